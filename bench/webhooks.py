"""The webhook endpoint under load and under attack, measured on this machine: two tables, or ``--json``.

``load``: wrk (Debian's package) posts webhooks with 100 requests in flight to the whole web application on uvicorn, in
a process of its own, with SQLite, and with PostgreSQL with ``--postgres URL``. Seven in ten are new pushes, the others
are sent twice, are for others, or have a wrong secret. Beside it the same with wrong secrets alone, which cost no
database: the ratio says what keeping a delivery costs. ``fuzz``: hostile requests from a seed, as
``bench.hostile_webhooks`` makes them, against a fresh server, then a look into its database.

    python bench/webhooks.py [--seconds 10] [--connections 100] [--fuzz 100000] [--seed 1] [--json]

The exit status is 1 where a hostile request did what it must not. Figures of a shared machine swing.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
if sys.path[0] != str(ROOT):
    sys.path.insert(0, str(ROOT))

from rich.console import Console  # noqa: E402
from rich.table import Table  # noqa: E402

from bench.hostile_webhooks import BAD, PATH, Outcome, attack  # noqa: E402
from bot.server.inbox import Inbox  # noqa: E402
from bot.server.settings import Settings  # noqa: E402
from bot.server.store import Store, open_engine  # noqa: E402
from bot.web import webhook  # noqa: E402
from bot.web.connections import Patient  # noqa: E402

SECRET = "a-secret-of-the-bench"  # noqa: S105 - of no other use
SCRIPT = """
local thread_number = 0
function setup(thread) thread:set("id", thread_number); thread_number = thread_number + 1 end
local number, only_wrong = 0, %s
local body = '{"event":{"action":"update","scope":"repo.content"},"repo":{"type":"model","name":"%%s/tiny",' ..
  '"id":"6366c000a2abcdf2fd69a080","private":false,"headSha":"%%s"},"updatedRefs":[{"ref":"refs/heads/main",' ..
  '"oldSha":null,"newSha":"%%s"}],"webhook":{"id":"6390e855e30d9209411de93b","version":3}}'
function request()
  number = number + 1
  local kind = number %% 10
  local sha = string.format("%%08x%%032x", id + 1, kind == 9 and number - 1 or number)
  local owner = kind == 8 and "mallory" or "acme"
  local secret = (only_wrong or kind == 7) and "wrong" or "%s"
  return wrk.format("POST", "%s", {["X-Webhook-Secret"] = secret, ["Content-Type"] = "application/json"},
    string.format(body, owner, sha, sha))
end
function done(summary, latency)
  local errors = summary.errors
  local told = '{"requests": %%d, "seconds": %%f, "p50": %%f, "p99": %%f, "most": %%f, "broken": %%d}\\n'
  io.stderr:write(string.format(told, summary.requests, summary.duration / 1e6, latency:percentile(50) / 1e3,
    latency:percentile(99) / 1e3, latency.max / 1e3, errors.connect + errors.read + errors.write + errors.timeout))
end
"""


@dataclass(frozen=True, kw_only=True)
class Load:
    """Figures of one run; times in milliseconds."""

    what: str
    requests: int
    per_second: float
    p50: float
    p99: float
    most: float
    failed: int
    """Answers that are no answers of the endpoint's (other than 202 and 403), and broken connections."""
    kept: int
    """Deliveries in the database afterwards."""


def load(database: str, *, seconds: int, connections: int, only_wrong: bool = False) -> Load:
    """Measure the endpoint over a fresh database."""
    with _server(database) as port, tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        script.write(SCRIPT % ("true" if only_wrong else "false", SECRET, PATH))
        script.flush()
        command = [_wrk(), "-t2", f"-c{connections}", f"-d{seconds}s", "--timeout", "30s", "-s", script.name]
        done = subprocess.run([*command, f"http://127.0.0.1:{port}{PATH}"], check=True, capture_output=True, text=True)
        figures = json.loads(done.stderr.strip().splitlines()[-1])
        results = json.loads(_ask(port, "/results"))
    store = Store(open_engine(database))
    kept = len(store.waiting(10_000_000))
    store.close()
    known = {"accepted", "duplicate", "ignored", "unauthorized"}
    failed = figures["broken"] + sum(count for name, count in results.items() if name not in known)
    return Load(
        what="wrong secrets" if only_wrong else database.split(":", maxsplit=1)[0],
        requests=figures["requests"],
        per_second=figures["requests"] / figures["seconds"],
        p50=figures["p50"],
        p99=figures["p99"],
        most=figures["most"],
        failed=failed,
        kept=kept,
    )


def fuzz(database: str, *, seed: int, count: int) -> tuple[Outcome, list[str]]:
    """Attack a fresh server; what came of it, and what must not have."""
    with _server(database) as port:
        outcome = asyncio.run(attack(port, SECRET, seed=seed, count=count))
        if json.loads(_ask(port, "/results")).get("accepted", 0) == 0:
            outcome.failures.append("the server says that it accepted nothing")
    store = Store(open_engine(database))
    return outcome, judge(outcome, store)


def judge(outcome: Outcome, store: Store) -> list[str]:
    """What went wrong, a line each: failures told by answers, and what the database must not have or lacks."""
    told = list(outcome.failures)
    kept = set()
    for delivery in store.waiting(10_000_000):
        name = str(delivery.data.get("sha") or delivery.data.get("comment_id"))
        kept.add(name)
        if name.startswith(BAD) or not delivery.repo_id.lower().startswith("acme/"):
            told.append(f"kept without a right to it: {delivery.repo_id} {name}, {BAD}")
    told += [f"{name} was answered 202 and was lost" for name in outcome.expected - kept]
    return told


@contextmanager
def _server(database: str) -> Iterator[int]:
    """The application in a process of its own."""
    command = [sys.executable, str(Path(__file__).resolve()), "--serve", database]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        assert process.stdout is not None  # noqa: S101 - it was asked for
        line = process.stdout.readline()
        if not line:
            raise SystemExit("the server did not start")
        yield int(line)
    finally:
        process.terminate()
        process.wait(30)


def _serve(database: str) -> None:
    """Serve the endpoint on a free port of the loopback, which is printed, until it is ended."""
    import uvicorn
    from starlette.requests import Request
    from starlette.responses import JSONResponse, Response
    from starlette.routing import Route

    from bot.server.actions import Actions
    from bot.web import app as web

    store = Store(open_engine(database))
    store.create()
    settings = Settings(webhook_secret=SECRET, watch=("acme",), data=Path(tempfile.mkdtemp(prefix="ptebot-bench-")))  # type: ignore[arg-type]
    results: dict[str, int] = {}

    def count(outcome: str) -> None:
        results[outcome] = results.get(outcome, 0) + 1

    async def told(_request: Request) -> Response:
        return JSONResponse(results)

    class Nothing:
        """Webhooks start no job by themselves."""

    actions: Actions = Nothing()  # type: ignore[assignment]
    app = web.build(settings, store, actions, Inbox(store), more=[Route("/results", told)], on_webhook=count)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(uvicorn.Config(app, log_level="critical", access_log=False, http=Patient)).run(sockets=[listener])
    shutil.rmtree(settings.data, ignore_errors=True)


def _ask(port: int, path: str) -> str:
    import urllib.request

    with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=30) as answer:
        return str(answer.read().decode())


def _wrk() -> str:
    """wrk, from Debian where it is missing."""
    if (found := shutil.which("wrk")) is None:
        root = [] if os.geteuid() == 0 else ["sudo", "-n"]
        for arguments in (["update"], ["install", "-y", "--no-install-recommends", "wrk"]):
            subprocess.run([*root, "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300", *arguments], check=True)
        found = shutil.which("wrk")
    if found is None:
        raise SystemExit("wrk is missing and cannot be installed")
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--connections", type=int, default=100)
    parser.add_argument("--postgres", metavar="URL", help="an empty database")
    parser.add_argument("--fuzz", type=int, default=100_000, metavar="COUNT")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--serve", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        _serve(options.serve)
        return 0
    with tempfile.TemporaryDirectory(prefix="ptebot-bench-") as folder:
        fresh = [f"sqlite:///{folder}/{number}.db" for number in range(3)]
        measured = []
        if options.seconds:
            given = {"seconds": options.seconds, "connections": options.connections}
            measured = [load(fresh[0], **given), load(fresh[1], **given, only_wrong=True)]
            if options.postgres:
                measured.append(load(options.postgres, **given))
        began = time.monotonic()
        outcome, wrong = fuzz(fresh[2], seed=options.seed, count=options.fuzz) if options.fuzz else (Outcome(), [])
        seconds = time.monotonic() - began
    statuses = {str(status): count for status, count in sorted(outcome.statuses.items())}
    if options.json:
        told = {"seed": options.seed, "statuses": statuses, "wrong": wrong[:100], "seconds": round(seconds, 1)}
        print(json.dumps({"load": [asdict(one) for one in measured], "fuzz": told}, indent=2))
        return 1 if wrong else 0
    _show(measured, statuses, wrong, seconds, options)
    return 1 if wrong else 0


def _show(
    measured: list[Load], statuses: dict[str, int], wrong: list[str], seconds: float, options: argparse.Namespace
) -> None:
    console = Console()
    if measured:
        table = Table(title=f"{options.connections} requests in flight, {options.seconds} s")
        for name in ("database", "requests/s", "p50 ms", "p99 ms", "most ms", "failed", "kept", "p99 to no database"):
            table.add_column(name, justify="right")
        plain = next(one for one in measured if one.what == "wrong secrets")
        for one in measured:
            figures = [f"{one.per_second:,.0f}", f"{one.p50:.1f}", f"{one.p99:.1f}", f"{one.most:.1f}"]
            table.add_row(one.what, *figures, str(one.failed), f"{one.kept:,}", f"{one.p99 / plain.p99:.2f}")
        console.print(table)
    if statuses:
        table = Table(title=f"{options.fuzz:,} hostile requests, seed {options.seed}, {seconds:.0f} s")
        for name in ("status", "answers"):
            table.add_column(name, justify="right")
        for status, count in statuses.items():
            table.add_row("closed" if status == "0" else status, f"{count:,}")
        console.print(table)
        console.print(f"{len(wrong)} did what they must not" if wrong else "none did what it must not")
        for line in wrong[:20]:
            console.print(line, markup=False)


if __name__ == "__main__":
    assert webhook.PATH == PATH  # noqa: S101 - the attack is written against it
    sys.exit(main())
