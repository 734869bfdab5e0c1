"""The inbox: many deliveries in few transactions, each answered when it is on the disk, and none half kept."""

from __future__ import annotations

import asyncio
import sqlite3
import threading
from collections.abc import Sequence

import pytest

from bot.errors import DatabaseUnavailable
from bot.server import inbox as inboxes
from bot.server.inbox import Inbox, InboxFull
from bot.server.records import Delivery
from bot.server.store import Store

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


def delivery(number: int) -> Delivery:
    return Delivery(key=f"push:{number}", kind="push", repo_id="acme/tiny", data={"sha": f"{number:040}"})


class Watching:
    """A store whose transactions are counted, and can be held up or made to fail."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.batches: list[int] = []
        self.open = threading.Event()
        self.open.set()
        self.failures: list[Exception] = []
        self.refused: set[str] = set()

    def deliver(self, deliveries: Sequence[Delivery]) -> list[bool]:
        self.open.wait(20)
        self.batches.append(len(deliveries))
        if self.failures:
            raise self.failures.pop()
        if self.refused & {one.key for one in deliveries}:
            raise ValueError("the database does not take it")
        return self.store.deliver(deliveries)


@pytest.fixture
def watching(local_store: Store) -> Watching:
    return Watching(local_store)


async def test_what_waits_shares_a_transaction(watching: Watching) -> None:
    woken: list[int] = []
    inbox = Inbox(watching, kept=lambda: woken.append(1))  # type: ignore[arg-type]
    watching.open.clear()
    puts = [asyncio.create_task(inbox.put(delivery(number % 90))) for number in range(100)]
    while len(inbox._waiting) < 99 and inbox._writer is None:
        await asyncio.sleep(0)
    watching.open.set()
    new = await asyncio.gather(*puts)
    assert sum(new) == 90 and len(watching.store.waiting(200)) == 90
    assert len(watching.batches) <= 2, watching.batches
    assert woken
    await inbox.close()


async def test_each_is_answered_only_when_it_is_kept(watching: Watching) -> None:
    inbox = Inbox(watching)  # type: ignore[arg-type]
    watching.open.clear()
    put = asyncio.create_task(inbox.put(delivery(1)))
    await asyncio.sleep(0)
    assert not put.done() and watching.store.waiting() == []
    watching.open.set()
    assert await put is True
    assert [one.key for one in watching.store.waiting()] == ["push:1"]
    assert await inbox.put(delivery(1)) is False
    await inbox.close()


async def test_a_database_that_does_not_answer_keeps_nothing(watching: Watching) -> None:
    inbox = Inbox(watching)  # type: ignore[arg-type]
    watching.failures = [DatabaseUnavailable("gone")]
    found = await asyncio.gather(*(inbox.put(delivery(number)) for number in range(5)), return_exceptions=True)
    assert all(isinstance(one, DatabaseUnavailable) for one in found)
    assert watching.store.waiting() == [] and watching.batches == [5], "tried once, for all of them"
    assert await inbox.put(delivery(1)) is True, "and works again afterwards"
    await inbox.close()


async def test_one_that_the_database_does_not_take_costs_no_other(watching: Watching) -> None:
    inbox = Inbox(watching)  # type: ignore[arg-type]
    watching.refused = {"push:2"}
    found = await asyncio.gather(*(inbox.put(delivery(number)) for number in range(4)), return_exceptions=True)
    assert [type(one) for one in found] == [bool, bool, ValueError, bool]
    assert {one.key for one in watching.store.waiting()} == {"push:0", "push:1", "push:3"}
    await inbox.close()


async def test_who_goes_away_does_not_stop_the_others(watching: Watching) -> None:
    inbox = Inbox(watching)  # type: ignore[arg-type]
    watching.open.clear()
    first, second = (asyncio.create_task(inbox.put(delivery(number))) for number in (1, 2))
    await asyncio.sleep(0)
    first.cancel()
    watching.open.set()
    assert await second is True
    await inbox.close()


async def test_no_more_wait_than_may(watching: Watching, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inboxes, "MOST_WAITING", 3)
    inbox = Inbox(watching)  # type: ignore[arg-type]
    puts = [asyncio.create_task(inbox.put(delivery(number))) for number in range(3)]
    await asyncio.sleep(0)
    with pytest.raises(InboxFull):
        await inbox.put(delivery(9))
    assert await asyncio.gather(*puts) == [True] * 3
    await inbox.close()


async def test_a_locked_file_is_told(local_store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another program holds SQLite's file for longer than we wait."""
    path = local_store.engine.url.database
    assert path is not None
    with local_store.engine.connect() as connection:
        connection.connection.driver_connection.execute("PRAGMA busy_timeout=50")  # type: ignore[union-attr]
    holder = sqlite3.connect(path, isolation_level=None)
    holder.execute("BEGIN IMMEDIATE")
    inbox = Inbox(local_store)
    with pytest.raises(DatabaseUnavailable):
        await inbox.put(delivery(1))
    holder.execute("ROLLBACK")
    assert await inbox.put(delivery(1)) is True
    holder.close()
    await inbox.close()
