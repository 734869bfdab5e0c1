"""Whether the process lives, whether it can do its work, and its metrics: /healthz, /readyz, /metrics.

In: what is checked. Out: routes for ``bot.web.app.build(more=...)``, or an application of their own for
``ptebot worker``, which has no pages. /healthz asks nobody: a process that waits for a database must not be killed for
it. /readyz asks all, at most once a second however often it is asked.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
import shutil
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import sqlalchemy as sa
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from bot.server import metrics as counted
from bot.server.metrics import Metrics
from bot.server.settings import Settings
from bot.server.store import Store
from exporter import __version__
from exporter.errors import PtebotError

FRESH_SECONDS = 1.0
"""For so long an answer of /readyz is given again."""
PATIENCE_SECONDS = 5.0
"""For one check."""
Check = Callable[[], str | None]
"""None, or why not, in words that may be shown to everybody."""
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Verdict:
    """Of each check, None or why not."""

    reasons: dict[str, str | None]

    @property
    def ready(self) -> bool:
        return all(reason is None for reason in self.reasons.values())


class Readiness:
    """Checks by name, asked in threads."""

    def __init__(self, checks: dict[str, Check]) -> None:
        self._checks = checks
        self._known: tuple[float, Verdict] | None = None
        self._lock = asyncio.Lock()
        self._busy: set[str] = set()

    async def look(self) -> Verdict:
        """Ask all of them, or give the answer of the last second."""
        async with self._lock:
            if self._known is None or time.monotonic() - self._known[0] > FRESH_SECONDS:
                found = await asyncio.gather(*(self._ask(name) for name in self._checks))
                verdict = Verdict(dict(zip(self._checks, found, strict=True)))
                if not verdict.ready:
                    log.warning("not ready: %s", {name: why for name, why in verdict.reasons.items() if why})
                self._known = (time.monotonic(), verdict)
            return self._known[1]

    async def _ask(self, name: str) -> str | None:
        if name in self._busy:
            return "it has not answered yet"  # a check that hangs holds one thread, not one more a second
        self._busy.add(name)
        answer: asyncio.Future[str | None] = asyncio.get_running_loop().create_future()
        thread = threading.Thread(target=self._run, args=(name, answer), name=f"ready {name}", daemon=True)
        thread.start()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                return await answer
        except TimeoutError:
            return f"no answer within {PATIENCE_SECONDS:g} s"

    def _run(self, name: str, answer: asyncio.Future[str | None]) -> None:
        try:
            found = self._checks[name]()
        except PtebotError as error:
            found = error.title
        except Exception as error:
            log.exception("the check %s failed", name)
            found = type(error).__name__
        self._busy.discard(name)

        def tell() -> None:
            if not answer.done():
                answer.set_result(found)

        try:
            answer.get_loop().call_soon_threadsafe(tell)
        except RuntimeError:  # the server ended meanwhile
            return


def database(store: Store) -> Check:
    """The database answers."""

    def check() -> str | None:
        with store.transaction() as connection:
            connection.execute(sa.select(1))
        return None

    return check


def disk(settings: Settings) -> Check:
    """The data directory has room."""

    def check() -> str | None:
        try:
            free = shutil.disk_usage(settings.data).free
        except OSError as error:
            return f"the data directory cannot be looked at: {error.strerror}"
        if free < settings.least_disk:
            return f"{free:,} bytes are free, at least {settings.least_disk:,} are wanted"
        return None

    return check


def holds(condition: Callable[[], bool], otherwise: str) -> Check:
    """A condition of this process: the engine was launched, signs of life reach the database."""
    return lambda: None if condition() else otherwise


def readiness(
    settings: Settings, store: Store, *, launched: Callable[[], bool], alive: Callable[[], bool]
) -> Readiness:
    """What a server needs to do its work.

    Args:
        launched: whether the job engine runs.
        alive: whether this process's signs of life reach the database (``Heartbeat.certain``).
    """
    return Readiness(
        {
            "database": database(store),
            "engine": holds(launched, "the job engine does not run"),
            "heartbeat": holds(alive, "no sign of life of this worker reached the database for too long"),
            "disk": disk(settings),
        }
    )


def routes(settings: Settings, ready: Readiness, metrics: Metrics) -> list[BaseRoute]:
    """/healthz, /readyz and /metrics."""
    token = settings.metrics_token.get_secret_value() if settings.metrics_token else None

    async def healthz(_: Request) -> Response:
        return PlainTextResponse("ok\n", headers={"Cache-Control": "no-store"})

    async def readyz(_: Request) -> Response:
        verdict = await ready.look()
        body = {
            "ready": verdict.ready,
            "version": __version__,
            "checks": {name: {"ok": why is None, "reason": why} for name, why in verdict.reasons.items()},
        }
        return JSONResponse(body, 200 if verdict.ready else 503, headers={"Cache-Control": "no-store"})

    async def show_metrics(request: Request) -> Response:
        if token is not None and not _bears(request, token):
            return PlainTextResponse(
                "This needs Authorization: Bearer with the metrics' token.\n", 401, {"WWW-Authenticate": "Bearer"}
            )
        text = await asyncio.to_thread(metrics.text)
        return Response(text, media_type=counted.CONTENT_TYPE, headers={"Cache-Control": "no-store"})

    return [
        Route("/healthz", healthz, name="healthz"),
        Route("/readyz", readyz, name="readyz"),
        Route("/metrics", show_metrics, name="metrics"),
    ]


def application(more: Sequence[BaseRoute]) -> Starlette:
    """These routes alone, for a process without pages."""
    return Starlette(routes=list(more))


def _bears(request: Request, token: str) -> bool:
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    digests = [hashlib.sha256(text.encode("utf-8", "surrogateescape")).digest() for text in (given.strip(), token)]
    return scheme.lower() == "bearer" and hmac.compare_digest(*digests)
