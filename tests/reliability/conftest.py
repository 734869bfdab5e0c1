"""Stores on both databases, and workers that beat fast enough for a test."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from bot.server.heartbeat import Heartbeat
from bot.server.settings import Settings
from bot.server.store import Store, open_engine

BEAT = 0.2


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A fresh database's address."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path / 'jobs.sqlite3'}"
    return str(request.getfixturevalue("postgres_url"))


@pytest.fixture
def store(database: str) -> Iterator[Store]:
    made = Store(open_engine(database))
    made.create()
    yield made
    made.close()


Worker = Callable[..., Heartbeat]


@pytest.fixture
def worker(store: Store, tmp_path: Path) -> Iterator[Worker]:
    """Starts a worker by its name; each has a data directory of its own unless one is given."""
    with ExitStack() as stack:

        def start(name: str, *, data: Path | None = None, beat: float = BEAT) -> Heartbeat:
            settings = Settings(data=data or tmp_path / name, worker=name, heartbeat=beat)
            made = Heartbeat(store, settings)
            made.start()
            stack.callback(made.stop)
            return made

        yield start
