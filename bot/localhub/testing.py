"""A running local Hub for tests: real HTTP on a free port, with its traffic recorded and faults on demand.

Faults live here alone: the server itself has no switch for them.
"""

from __future__ import annotations

import asyncio
import json
import re
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal
from urllib.parse import parse_qs

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.localhub import oauth_apps, server
from bot.localhub.accounts import OrgRole, TokenRole
from bot.localhub.app import create_app
from bot.localhub.context import Hub, JobRunner, Limits
from bot.localhub.hub import open_hub
from bot.localhub.oidc import Publisher

RECORDED = 4 * 1024 * 1024


@dataclass(frozen=True)
class Exchange:
    """One request and its reply; bodies are decoded JSON (ndjson: a list; a form: name -> values), others None."""

    method: str
    path: str
    query: str
    request_type: str
    request_json: Any
    status: int
    response_type: str
    response_json: Any


@dataclass
class Fault:
    """What happens to matching requests: ``drop`` loses the reply after the work was done, ``drop_before`` the
    request before it, a number is answered instead of doing it. ``skip`` requests pass first, ``times`` are hit."""

    method: str
    path: re.Pattern[str]
    action: Literal["drop", "drop_before"] | int
    skip: int = 0
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    hits: int = 0

    def takes(self, method: str, path: str) -> bool:
        if self.method not in ("*", method) or not self.path.search(path) or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        self.hits += 1
        return True


class Tap:
    """An ASGI layer around the application that records what passes and plays the faults."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.traffic: list[Exchange] = []
        self.faults: list[Fault] = []
        self.server: uvicorn.Server | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["raw_path"].decode("ascii", "replace").split("?")[0]
        fault = next((item for item in self.faults if item.takes(scope["method"], path)), None)
        sent, got = bytearray(), bytearray()
        start: dict[str, Any] = {"status": 0, "headers": []}

        async def reading() -> Message:
            message = await receive()
            if len(sent) < RECORDED:
                sent.extend(message.get("body", b""))
            return message

        async def writing(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                if len(got) < RECORDED:
                    got.extend(message.get("body", b""))
                if not message.get("more_body"):  # before the client has it all, and looks at what was recorded
                    self.traffic.append(_exchange(scope, path, bytes(sent), start, bytes(got)))
            if fault is None or fault.action != "drop":
                await send(message)

        if fault and fault.action == "drop_before":
            await self._abort(scope)
            return
        if fault and isinstance(fault.action, int):
            while (await reading()).get("more_body"):
                pass
            await JSONResponse({"error": "injected fault"}, fault.action, fault.headers)(scope, receive, writing)
        else:
            await self.app(scope, reading, writing)
        if fault and fault.action == "drop":
            await self._abort(scope)

    async def _abort(self, scope: Scope) -> None:
        """Close the client's connection without a word."""
        for connection in list(self.server.server_state.connections) if self.server else []:
            if connection.client == scope["client"]:  # type: ignore[union-attr]
                connection.transport.abort()
        await asyncio.sleep(0.01)  # until uvicorn has noticed, or it would report an unanswered request


@dataclass
class RunningHub:
    """A local Hub that answers at ``endpoint``; ``token`` is the administrator's."""

    endpoint: str
    token: str
    data: Path
    hub: Hub
    tap: Tap

    @property
    def traffic(self) -> list[Exchange]:
        """Every exchange so far, in the order of their ends."""
        return self.tap.traffic

    def create_user(self, name: str, orgs: dict[str, OrgRole] | None = None, role: TokenRole = "write") -> str:
        """A token for the user ``name`` (made when new), who gets the given role in each of ``orgs``."""
        accounts = self.hub.accounts
        user = accounts.create(name)
        for org, org_role in (orgs or {}).items():
            accounts.join(accounts.create(org, is_org=True), user, org_role)
        return accounts.new_token(user, role)

    def trust(self, repo_id: str, issuer: str, **claims: str) -> None:
        """Make ``issuer`` a trusted publisher of a repository: its identity tokens with these claims are exchanged."""
        repo = self.hub.repos.find(*repo_id.split("/"))
        if repo is None:
            raise LookupError(repo_id)
        self.hub.publishers.append(Publisher(repo_id=repo.id, issuer=issuer, claims=claims))

    def register_app(self, *redirect_uris: str, scopes: tuple[str, ...] = ("write-discussions",)) -> tuple[str, str]:
        """A new OAuth application: its id and its secret."""
        app, secret = oauth_apps.register(self.hub.database, "An application", list(redirect_uris), list(scopes))
        return app.client_id, secret or ""

    def fail(
        self, path: str, action: Literal["drop", "drop_before"] | int, *, method: str = "*", skip: int = 0,
        times: int = 1, headers: dict[str, str] | None = None,
    ) -> Fault:  # fmt: skip
        """Inject a fault into requests whose raw path matches the regular expression ``path``."""
        fault = Fault(method, re.compile(path), action, skip, times, headers or {})
        self.tap.faults.append(fault)
        return fault

    def clear_faults(self) -> None:
        self.tap.faults.clear()


@contextmanager
def running_hub(
    data: Path | None = None, *, limits: Limits | None = None, jobs: Callable[[Hub], JobRunner] | None = None
) -> Iterator[RunningHub]:
    """A local Hub in a thread of this process, on a free loopback port; ``data`` is kept when given.

    Args:
        jobs: makes what runs Jobs for it.
    """
    with tempfile.TemporaryDirectory(prefix="localhub-") as fallback:
        directory = data or Path(fallback)
        hub = open_hub(directory, limits)
        token = server.admin_token(hub)
        hub.jobs = hub.deliveries.jobs = jobs(hub) if jobs else None
        tap = Tap(create_app(hub))
        listener = server.bind("127.0.0.1", 0)
        endpoint = server.endpoint_of(listener, "127.0.0.1")
        config = uvicorn.Config(tap, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
        tap.server = uvicorn.Server(config)
        thread = threading.Thread(target=asyncio.run, args=(tap.server.serve(sockets=[listener]),), daemon=True)
        thread.start()
        try:
            yield RunningHub(endpoint, token, hub.data, hub, tap)
        finally:
            tap.server.should_exit = True
            thread.join(15)
            listener.close()


def _exchange(scope: Scope, path: str, sent: bytes, start: dict[str, Any], got: bytes) -> Exchange:
    def content_type(headers: Iterable[tuple[bytes, bytes]]) -> str:
        return next((value.decode("latin-1") for key, value in headers if key.lower() == b"content-type"), "")

    asked, answered = content_type(scope["headers"]), content_type(start["headers"])
    query = scope["query_string"].decode("latin-1")
    sent_json, got_json = _decode(asked, sent), _decode(answered, got)
    return Exchange(scope["method"], path, query, asked, sent_json, start["status"], answered, got_json)


def _decode(content_type: str, body: bytes) -> Any:
    try:
        if "ndjson" in content_type:
            return [json.loads(line) for line in body.splitlines() if line.strip()]
        if "json" in content_type and body:
            return json.loads(body)
        if content_type.startswith("application/x-www-form-urlencoded"):
            return parse_qs(body.decode())
    except (ValueError, RecursionError):
        pass  # recorded as None: what is not JSON is none of the recorder's business
    return None
