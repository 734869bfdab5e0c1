"""The webhook endpoint on a real server on loopback, for tests: uvicorn in a thread of this process."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn
from starlette.applications import Starlette

from bot.localhub import server
from bot.server.inbox import Inbox
from bot.server.settings import Settings
from bot.server.store import Store
from bot.web import webhook
from bot.web.connections import Patient

SECRET = "correct+horse-battery&staple"


@dataclass
class Receiver:
    """A running endpoint."""

    url: str
    port: int
    inbox: Inbox
    results: Counter[str] = field(default_factory=Counter)


def settings_for(**fields: Any) -> Settings:
    return Settings(**{"webhook_secret": SECRET, "watch": ("acme",), **fields})


@contextmanager
def receiving(settings: Settings, store: Store, *, kept: Any = lambda: None) -> Iterator[Receiver]:
    """The endpoint alone, answering at ``url`` for the time of the block."""
    inbox = Inbox(store, kept=kept)
    results: Counter[str] = Counter()

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        await inbox.close()

    app = Starlette(
        routes=webhook.routes(settings, inbox, on_result=lambda outcome: results.update([outcome])), lifespan=lifespan
    )
    listener = server.bind("127.0.0.1", 0)
    port = listener.getsockname()[1]
    config = uvicorn.Config(app, log_config=None, access_log=True, http=Patient, timeout_graceful_shutdown=2)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=(running.serve(sockets=[listener]),), daemon=True)
    thread.start()
    try:
        yield Receiver(f"http://127.0.0.1:{port}{webhook.PATH}", port, inbox, results)
    finally:
        running.should_exit = True
        thread.join(15)
        listener.close()
