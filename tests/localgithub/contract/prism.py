"""Recorded exchanges through prism: is what we sent what GitHub takes, is what the local GitHub said what GitHub says?

prism runs as a proxy before a server that repeats the recorded replies, and reports in a header what fits neither
the request's nor the reply's description. So flows run at full speed, and every distinct exchange is checked once.
"""

from __future__ import annotations

import json
import re
import socket
import subprocess
import threading
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import requests

from tests.localgithub.contract.spec import Operation, Spec
from tests.localgithub.contract.tools import Tools
from tests.localgithub.tap import Exchange

_NUMBER = "x-recorded"
START_SECONDS = 120
# Replies that GitHub's description does not list for every operation, though every operation can get them.
EVERYWHERE = {301, 304, 307, 400, 401, 403, 404, 405, 409, 413, 422, 429}


@dataclass(frozen=True)
class Violation:
    """One thing that does not fit, with the exchange that it was found in."""

    method: str
    path: str
    what: str

    def __str__(self) -> str:
        return f"{self.method} {self.path}: {self.what}"


def violations(exchanges: Iterable[Exchange], tools: Tools, scratch: Path) -> list[Violation]:
    """Everything in the exchanges with the API that does not fit GitHub's description; [] is what one wants."""
    spec = Spec(tools.openapi)
    found: list[Violation] = []
    distinct: dict[str, tuple[Exchange, Operation, str]] = {}
    for one in exchanges:
        if one.path == "/graphql":
            continue  # described elsewhere: in GraphQL's own way
        # Where a renamed repository redirects to: by its number, which GitHub serves but does not describe.
        match = spec.operation(one.method, re.sub(r"^/repositories/\d+", "/repos/by/number", one.path))
        if match is None:
            found.append(Violation(one.method, one.path, "GitHub has no such operation"))
            continue
        operation, path = match
        for what in spec.undeclared(operation, (name for name, _ in one.query), one.body):
            found.append(Violation(one.method, one.path, f"GitHub knows no {what} here"))
        parts = (one.method, operation.template, one.status, sorted(dict(one.query)), _shape(one.body))
        distinct.setdefault(json.dumps([*parts, _shape(one.response)]), (one, operation, path))
    checked = list(distinct.values())
    if checked:
        scratch.mkdir(parents=True, exist_ok=True)
        document = scratch / "openapi.json"
        document.write_text(json.dumps(spec.reduced(operation for _, operation, _ in checked)))
        with _repeater([one for one, _, _ in checked]) as upstream, _prism(tools, document, upstream) as proxy:
            for number, (one, _, path) in enumerate(checked):
                found += _replay(proxy, number, one, path)
    return list(dict.fromkeys(found))


def _shape(value: Any) -> Any:
    """A document without its values: names, and kinds of values; lengths of texts as powers of ten."""
    if isinstance(value, dict):
        return {key: _shape(inner) for key, inner in sorted(value.items())}
    if isinstance(value, list):
        return sorted({json.dumps(_shape(inner)) for inner in value})
    return f"text{len(str(len(value)))}" if isinstance(value, str) else type(value).__name__


def _replay(proxy: str, number: int, one: Exchange, path: str) -> Iterator[Violation]:
    headers = {_NUMBER: str(number), "Accept": "application/json"}
    body: bytes | None = None
    if one.body is not None:
        headers["Content-Type"], body = one.headers.get("content-type", ""), json.dumps(one.body).encode()
    elif one.size:
        headers["Content-Type"], body = one.headers.get("content-type", ""), b"\0"
    address = f"{proxy}{path}" + (f"?{urlencode(one.query)}" if one.query else "")
    reply = requests.request(one.method, address, data=body, headers=headers, timeout=60, allow_redirects=False)
    reported = json.loads(reply.headers.get("sl-violations", "[]"))
    if not reported and reply.headers.get("content-type", "").startswith("application/problem+json"):
        reported = [{"location": ["prism"], "message": reply.text[:500]}]
    for item in reported:
        where, message = [str(part) for part in item["location"]], item["message"]
        if where[0] == "response" and one.status in EVERYWHERE and "status code" in message:
            continue
        yield Violation(one.method, one.path, f"{'.'.join(where)} ({one.status}): {message}")


@contextmanager
def _repeater(exchanges: list[Exchange]) -> Iterator[str]:
    """A server that answers with the recorded replies."""

    class Repeat(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _reply(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            one = exchanges[int(self.headers[_NUMBER])]
            raw = b"" if one.response is None else json.dumps(one.response).encode()
            self.send_response(one.status)
            if raw:
                self.send_header("Content-Type", one.response_headers.get("content-type", "application/json"))
            if one.status != 204:
                self.send_header("Content-Length", str(len(raw)))
            self.end_headers()
            self.wfile.write(raw)

        do_GET = do_POST = do_PATCH = do_PUT = do_DELETE = do_HEAD = _reply

        def log_message(self, format: str, *arguments: Any) -> None:
            """Nothing: the tests speak."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Repeat)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join(10)


@contextmanager
def _prism(tools: Tools, document: Path, upstream: str) -> Iterator[str]:
    """prism as a proxy; its address."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = document.with_suffix(".log")
    command = ["node", str(tools.prism), "proxy", str(document), upstream, "-h", "127.0.0.1", "-p", str(port)]
    with log.open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        _wait(process, port, log)
        yield f"http://127.0.0.1:{port}"
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _wait(process: subprocess.Popen[bytes], port: int, log: Path) -> None:
    until = time.monotonic() + START_SECONDS
    while time.monotonic() < until:
        if process.poll() is not None:
            break
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise RuntimeError(f"prism did not start: {log.read_text(errors='replace')[-2000:]}")
