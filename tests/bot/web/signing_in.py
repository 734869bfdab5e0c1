"""The pages on a free port, with actions that keep what they were given: what tests of signing in need."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import uvicorn
from starlette.applications import Starlette

from bot.localhub import server as binding
from bot.server.records import Asked, Asker, JobRecord
from bot.server.settings import Settings
from bot.server.store import Store, open_engine
from bot.web.app import build

ADMIN = "correct-horse-battery-staple-0123456789"
KEY = "k" * 40


@dataclass
class Kept:
    """Actions that put jobs in the store, and keep the tokens that came with them."""

    store: Store
    tokens: list[str | None] = field(default_factory=list)
    done: list[tuple[str, str, str]] = field(default_factory=list)

    def submit(self, asked: Asked, asker: Asker, *, token: str | None = None) -> tuple[JobRecord, bool]:
        self.tokens.append(token)
        return self.store.add(asked, asker)

    def cancel(self, job_id: str, *, by: str) -> JobRecord:
        return self._did("cancel", job_id, by)

    def retry(self, job_id: str, *, by: str) -> JobRecord:
        return self._did("retry", job_id, by)

    def resume(self, job_id: str, *, by: str) -> JobRecord:
        return self._did("resume", job_id, by)

    def _did(self, what: str, job_id: str, by: str) -> JobRecord:
        self.done.append((what, job_id, by))
        job = self.store.job(job_id)
        assert job is not None
        return job


@dataclass
class Site:
    """The running pages."""

    url: str
    app: Starlette
    store: Store
    actions: Kept
    settings: Settings


def settings_for(data: Path, **fields: Any) -> Settings:
    return Settings(**{"data": data, "secret_key": KEY, "admin_token": ADMIN, **fields})


def open_store(data: Path) -> Store:
    store = Store(open_engine(f"sqlite:///{data / 'test.sqlite3'}"))
    store.create()
    return store


@contextmanager
def running_site(data: Path, *, port_first: Any = None, **fields: Any) -> Iterator[Site]:
    """The pages with these settings; ``port_first`` is called with their address before they are built."""
    listener = binding.bind("127.0.0.1", 0)
    url = binding.endpoint_of(listener, "127.0.0.1")
    fields = {**fields, **(port_first(url) if port_first else {})}
    settings, store = settings_for(data, **fields), open_store(data)
    actions = Kept(store)
    app = build(settings, store, actions)
    config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=2)
    running = uvicorn.Server(config)
    thread = threading.Thread(target=asyncio.run, args=(running.serve(sockets=[listener]),), daemon=True)
    thread.start()
    try:
        yield Site(url, app, store, actions, settings)
    finally:
        running.should_exit = True
        thread.join(15)
        listener.close()
        store.close()
