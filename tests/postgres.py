"""A real PostgreSQL for tests: one server for the session, a fresh database for each test that asks.

``tools.postgres`` brings it from Debian where it is missing; where it cannot be had, a test is skipped, which with
``CI=true`` is a failure.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import pytest

from tools import postgres
from tools.postgres import Postgres


@contextmanager
def server() -> Iterator[Postgres]:
    """The server for the time of the block, without waiting for the disk."""
    with ExitStack() as stack:
        try:
            found = stack.enter_context(postgres.postgres())
        except postgres.NoPostgres as error:
            pytest.skip(str(error))
        yield found


@contextmanager
def database(found: Postgres) -> Iterator[str]:
    """A fresh database's address; gone behind the block."""
    url = found.create()
    try:
        yield url
    finally:
        found.drop(url)
