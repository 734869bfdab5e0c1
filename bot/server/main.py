"""The server's parts put together, started and ended in order: settings in, a process that does jobs out.

``Parts`` are the same for ``ptebot serve`` and ``ptebot worker``; the one puts the web app before them. A process that
ends leaves what it does as it is: its jobs stay its own, and go on when it starts again or when others take it for
dead. Nothing is torn down that a kill would not leave just so, which is why a kill loses nothing.
"""

from __future__ import annotations

import logging
import os
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from types import FrameType

import uvicorn
from starlette.types import ASGIApp

from bot.sandbox.call import Executor
from bot.server import executors, logs, migrate, tracing
from bot.server.heartbeat import Heartbeat, worker_name
from bot.server.intake import Intake
from bot.server.leases import Leases
from bot.server.metrics import Metrics
from bot.server.replier import Replier
from bot.server.retention import Retention
from bot.server.sealing import Sealer
from bot.server.settings import Settings, database_url
from bot.server.steps import Steps
from bot.server.store import Store, open_engine
from bot.server.sweep import Sweep
from bot.server.takeover import Takeover
from bot.web.connections import Patient
from bot.workflow.engine import Engine
from bot.workflow.queue import Queue

GRACE_SECONDS = 20.0
"""For what is being published when the process is asked to end; exports go on later."""
log = logging.getLogger(__name__)


def open_store(settings: Settings) -> Store:
    """The database, created or brought up to date; raises DatabaseUnavailable, DatabaseTooNew."""
    settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
    store = Store(open_engine(database_url(settings)))
    migrate.upgrade(store.engine)
    return store


def queue_of(settings: Settings, store: Store) -> Queue:
    """Asks for jobs; seals the tokens of people who signed in."""
    sealer = Sealer.of(settings)
    return Queue(settings, store, sealer.seal_token)


class Parts:
    """Everything but the web app."""

    def __init__(self, settings: Settings, *, executor: Executor | None = None) -> None:
        """
        Args:
            executor: runs exports; None for what the settings say.

        Raises:
            SandboxTooWeak, InvalidSettings, DatabaseUnavailable, DatabaseTooNew: it cannot do jobs here.
        """
        worker = worker_name(settings)
        logs.setup(settings, worker=worker)
        executor = executor or executors.chosen(settings)
        log.info("exports run behind: %s", executor.rung)
        self.settings = settings
        self.store = open_store(settings)
        self.metrics = Metrics(self.store, heartbeat=settings.heartbeat)
        self.queue = queue_of(settings, self.store)
        self.queue.on_end = self.metrics.ended
        self.heartbeat = Heartbeat(self.store, settings, guarded=True)
        leases = Leases(self.heartbeat)
        self.steps = Steps(
            settings,
            self.store,
            self.queue,
            leases,
            worker=worker,
            executor=executor,
            observer=self.metrics,
            token_of=self._token_of,
        )
        self.replier = Replier(settings, self.store, worker=worker)
        self.engine = Engine(settings, self.steps, self.queue, worker=worker, reply=self.replier)
        self.takeover = Takeover(leases, self.engine.adopt)
        self.intake = Intake(settings, self.store, self.queue)
        self.sweep = Sweep(settings, self.store, self.queue)
        self.retention = Retention(
            settings, self.store, forget=self.queue.forget, leftovers=executors.leftovers(executor)
        )
        self._sealer = Sealer.of(settings)

    def start(self) -> None:
        """Begin; raises InvalidSettings where another process that lives has this one's name."""
        self.heartbeat.start()
        self.engine.start()
        logs.setup(self.settings, worker=self.heartbeat.id)  # the engine brings handlers of its own
        tracing.setup(worker=self.heartbeat.id)
        for part in (self.replier, self.takeover, self.intake, self.sweep, self.retention):
            part.start()
        log.info("worker %s is ready", self.heartbeat.id)

    def stop(self) -> None:
        """Begin nothing more, give what is being published its time, and tell the others."""
        self.engine.stop()
        for part in (self.intake, self.sweep, self.retention, self.takeover):
            part.stop()
        until = time.monotonic() + GRACE_SECONDS
        while self.steps.publishing and time.monotonic() < until:
            time.sleep(0.1)
        self.replier.stop()
        self.heartbeat.stop()
        tracing.stop()
        log.info("worker %s ended", self.heartbeat.id)

    def _token_of(self, job_id: str) -> str | None:
        sealed = self.store.sealed(job_id)
        return self._sealer.open_token(job_id, sealed) if sealed is not None else None


def leave(code: int) -> None:
    """End the process at once: threads of the engine wait for jobs that are somebody else's by now."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def wait(parts: Parts) -> int:
    """Until a signal asks the process to end; the exit code."""
    ended = threading.Event()

    def end(number: int, _frame: FrameType | None) -> None:
        log.info("%s: ending", signal.Signals(number).name)
        ended.set()

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, end)
    while not ended.wait(0.5):
        if parts.heartbeat.replaced.is_set():
            log.error("another process has taken this one's name; ending")
            return 1
    return 0


def serve_app(
    app: ASGIApp,
    parts: Parts,
    *,
    host: str,
    port: int,
    listening: Callable[[str], None],
    before_end: Callable[[], None],
) -> int:
    """Serve the app until a signal asks the process to end; the exit code.

    Args:
        listening: told the address once connections are taken.
        before_end: lets go who watches, so that their connections end.
    """
    config = uvicorn.Config(
        app,
        host=host,
        port=port,
        log_config=None,
        http=Patient,
        access_log=False,
        timeout_graceful_shutdown=5,
        timeout_keep_alive=15,
        h11_max_incomplete_event_size=64 * 1024,
        limit_concurrency=1_000,
        server_header=False,
        proxy_headers=False,  # ``trusted_proxies`` says whose count (bot.web.security); uvicorn believes 127.0.0.1
    )
    server = _Server(config, listening, before_end)
    watcher = threading.Thread(target=_follow, args=(parts, server), name="replaced", daemon=True)
    watcher.start()
    for number in (signal.SIGTERM, signal.SIGINT):
        # uvicorn sends itself again what ended it, to whoever had the signal before: that would skip our own end.
        signal.signal(number, signal.SIG_IGN)
    with suppress(SystemExit):  # uvicorn's, where it cannot listen: the log says why, and our own end follows
        server.run()
    return 0 if server.started and not parts.heartbeat.replaced.is_set() else 1


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, listening: Callable[[str], None], before_end: Callable[[], None]
    ) -> None:
        super().__init__(config)
        self._listening, self._before_end = listening, before_end

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started and self.servers:
            host, port = self.servers[0].sockets[0].getsockname()[:2]
            self._listening(f"http://{f'[{host}]' if ':' in host else host}:{port}")

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        self._before_end()
        await super().shutdown(sockets)


def _follow(parts: Parts, server: uvicorn.Server) -> None:
    parts.heartbeat.replaced.wait()
    log.error("another process has taken this one's name; ending")
    server.should_exit = True
