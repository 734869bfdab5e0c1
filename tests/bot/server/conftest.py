"""Databases for tests of the server: a SQLite file and a PostgreSQL, each empty."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

from bot.server import migrate
from bot.server.store import Store, open_engine


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path / 'ptebot.db'}"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_url(request: pytest.FixtureRequest) -> str:
    """The address of an empty database, of each kind."""
    return str(request.getfixturevalue("sqlite_url" if request.param == "sqlite" else "postgres_url"))


@pytest.fixture
def engine(database_url: str) -> Iterator[sa.Engine]:
    made = open_engine(database_url)
    yield made
    made.dispose()


@pytest.fixture
def store(engine: sa.Engine) -> Store:
    """The store on each kind of database, up to date."""
    migrate.upgrade(engine)
    return Store(engine)


@pytest.fixture
def local_store(sqlite_url: str) -> Iterator[Store]:
    """The store on SQLite alone, for what no database has a say in."""
    made = open_engine(sqlite_url)
    migrate.upgrade(made)
    yield Store(made)
    made.dispose()
