"""Who takes over the jobs of the dead: one at a time, once it is sure; on SQLite and on PostgreSQL."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path

from bot.server.heartbeat import DEAD, Heartbeat
from bot.server.leases import Leases
from bot.server.store import Store
from bot.server.takeover import FORGOTTEN, Takeover
from tests.reliability.conftest import BEAT, Worker
from tests.reliability.test_heartbeat import age
from tests.reliability.waiting import until


class Adopting:
    """Stands for the engine: notes what it was asked, and is inside one call as long as a test wants."""

    def __init__(self, let_go: bool = True) -> None:
        self.asked: list[list[str]] = []
        self.inside, self.let_go = threading.Event(), threading.Event()
        if let_go:
            self.let_go.set()

    def __call__(self, names: Sequence[str]) -> None:
        self.asked.append(list(names))
        self.inside.set()
        assert self.let_go.wait(60)


def be_steady(one: Heartbeat) -> None:
    """As if it had given signs of life for that long."""
    one._since -= DEAD * one.interval
    assert one.steady


def test_the_dead_are_taken_over_once_and_named_again_later(store: Store, worker: Worker) -> None:
    one, _ = worker("one", beat=600), worker("two", beat=600)
    adopting = Adopting()
    takeover = Takeover(Leases(one), adopting)
    be_steady(one)
    assert takeover.look() == []
    age(store, "two", DEAD * 600 + 1)
    assert takeover.look() == ["two"]
    again = [takeover.look() for _ in range(DEAD)]
    assert again.count(["two"]) == 1
    assert again.count([]) == DEAD - 1
    assert adopting.asked == [["two"]] * 2
    age(store, "two", FORGOTTEN)
    assert takeover.look() == ["two"]
    assert [one.id for one in store.workers()] == ["one"]


def test_who_said_goodbye_is_taken_over_and_forgotten(store: Store, worker: Worker) -> None:
    one, two = worker("one", beat=600), worker("two", beat=600)
    adopting = Adopting()
    takeover = Takeover(Leases(one), adopting)
    be_steady(one)
    two.stop()
    assert takeover.look() == ["two"]
    assert takeover.look() == []
    assert [found.id for found in store.workers()] == ["one"]


def test_who_lives_is_left_alone_and_so_is_who_comes_back(store: Store, worker: Worker, tmp_path: Path) -> None:
    one, two = worker("one"), worker("two")
    adopting = Adopting()
    takeover = Takeover(Leases(one), adopting)
    takeover.start()
    until(lambda: one.steady, "it may judge others")
    two.stop()
    assert adopting.inside.wait(30)
    worker("two", data=tmp_path / "two")
    count = len(adopting.asked)
    beat = one.store.workers()[0].beat_at
    until(lambda: one.store.workers()[0].beat_at > beat + 2 * DEAD * BEAT, "many rounds")
    takeover.stop()
    assert len(adopting.asked) <= count + 1  # a round that had begun


def test_one_process_at_a_time(store: Store, worker: Worker) -> None:
    one, two, _ = worker("one", beat=600), worker("two", beat=600), worker("dead", beat=600)
    slow, quick = Adopting(let_go=False), Adopting()
    first, second = Takeover(Leases(one), slow), Takeover(Leases(two), quick)
    be_steady(one)
    be_steady(two)
    age(store, "dead", DEAD * 600 + 1)
    thread = threading.Thread(target=first.look, daemon=True)
    thread.start()
    assert slow.inside.wait(30)
    assert second.look() == []
    assert quick.asked == []
    slow.let_go.set()
    thread.join(30)
    assert second.look() == ["dead"]


def test_a_failed_takeover_is_tried_again(store: Store, worker: Worker) -> None:
    one, two = worker("one"), worker("two")
    asked: list[Sequence[str]] = []

    def adopt(names: Sequence[str]) -> None:
        asked.append(names)
        if len(asked) == 1:
            raise RuntimeError("the engine is not ready")

    takeover = Takeover(Leases(one), adopt)
    until(lambda: one.steady, "it may judge others")
    two.stop()
    takeover.start()
    until(lambda: len(asked) >= 2, "the second time")
    takeover.stop()
    assert asked[0] == asked[1] == ["two"]


def test_who_was_away_judges_nobody(store: Store, worker: Worker) -> None:
    """After an outage of the database everybody looks dead to the first who finds it again."""
    one = worker("one", beat=600)
    worker("two", beat=600)
    adopting = Adopting()
    takeover = Takeover(Leases(one), adopting)
    age(store, "two", DEAD * 600 + 1)
    assert takeover.look() == []
    be_steady(one)
    assert takeover.look() == ["two"]
