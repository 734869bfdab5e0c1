"""One export per repository at a time: who waits, who takes over, who is told; on SQLite and on PostgreSQL."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import psutil
import pytest
import sqlalchemy as sa

from bot.errors import LeaseLost, Stopped
from bot.server import leases, tables
from bot.server.heartbeat import GOODBYE
from bot.server.leases import Leases
from bot.server.store import Store
from tests.reliability.conftest import BEAT, Worker

REPO = "acme/tiny"


def rows(store: Store) -> dict[str, str]:
    with store.transaction() as connection:
        return {row.repo_id: row.worker for row in connection.execute(sa.select(tables.leases))}


def steal(store: Store) -> None:
    """What another worker does that takes this one for dead."""
    with store.transaction() as connection:
        connection.execute(sa.update(tables.leases).values(worker="thief", token="f" * 32))


class Taking(threading.Thread):
    """Takes a lease and holds it until it is told to let go."""

    def __init__(self, leases: Leases, job_id: str, repo_id: str = REPO) -> None:
        super().__init__(daemon=True)
        self.leases, self.job_id, self.repo_id = leases, job_id, repo_id
        self.stop, self.has, self.let_go = threading.Event(), threading.Event(), threading.Event()
        self.error: Exception | None = None
        self.start()

    def run(self) -> None:
        try:
            with self.leases.lease(self.repo_id, self.job_id, self.stop):
                self.has.set()
                self.let_go.wait(60)
        except Exception as error:
            self.error = error


@contextmanager
def holder(store: Store, data: Path, name: str) -> Iterator[tuple[subprocess.Popen[str], Callable[[], dict[str, Any]]]]:
    """A process that holds the lease; what it says, line by line."""
    url = store.engine.url.render_as_string(hide_password=False)
    command = [sys.executable, "-m", "tests.reliability.held", url, str(data), name, str(BEAT), REPO, "1" * 32]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    stream: IO[str] = process.stdout
    try:
        yield process, lambda: json.loads(stream.readline())
    finally:
        process.kill()
        process.wait()
        stream.close()
        if process.stdin:
            process.stdin.close()


def test_one_at_a_time_between_workers_and_threads(store: Store, worker: Worker) -> None:
    one, two = Leases(worker("one", beat=600)), Leases(worker("two", beat=600))
    order: list[tuple[str, str]] = []

    def export(leases: Leases, name: str) -> None:
        for _ in range(5):
            with leases.lease(REPO, "1" * 32, threading.Event()):
                order.extend([("begin", name), ("end", name)])

    threads = [threading.Thread(target=export, args=(one if n % 2 else two, str(n))) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(order) == 40
    for begin, end in zip(order[::2], order[1::2], strict=True):
        assert begin[0] == "begin"
        assert end == ("end", begin[1])
    assert rows(store) == {}


def test_other_repositories_do_not_wait_and_spelling_makes_no_other(store: Store, worker: Worker) -> None:
    leases = Leases(worker("one", beat=600))
    first, second, same = Taking(leases, "1"), Taking(leases, "2", "acme/other"), None
    assert first.has.wait(30)
    assert second.has.wait(30)
    same = Taking(leases, "3", "ACME/Tiny")
    assert not same.has.wait(0.5)
    first.let_go.set()
    assert same.has.wait(30)
    for one in (second, same):
        one.let_go.set()
        one.join(30)
        assert one.error is None


def test_who_waits_can_be_stopped(store: Store, worker: Worker) -> None:
    leases = Leases(worker("one", beat=600))
    first = Taking(leases, "1")
    assert first.has.wait(30)
    second = Taking(leases, "2")
    second.stop.set()
    second.join(30)
    assert isinstance(second.error, Stopped)
    first.let_go.set()
    first.join(30)


def test_what_is_taken_over_is_told_and_not_given_back(store: Store, worker: Worker) -> None:
    leases = Leases(worker("one"))
    with (
        pytest.raises(LeaseLost, match="another worker") as failure,
        leases.lease(REPO, "1", stop := threading.Event()) as held,
    ):
        assert held.still_held()
        steal(store)
        assert stop.wait(30)
        assert held.lost
        with pytest.raises(LeaseLost):
            held.check()
        raise ValueError("whatever comes of it")
    assert failure.value.exit_code == 99
    assert rows(store) == {REPO: "thief"}


def test_before_publishing_the_database_is_asked(store: Store, worker: Worker) -> None:
    leases = Leases(worker("one", beat=600))
    with pytest.raises(LeaseLost), leases.lease(REPO, "1", threading.Event()) as held:
        steal(store)
        assert not held.lost
        assert not held.still_held()


def test_a_lease_of_a_dead_worker_is_free_after_its_time_only(store: Store, worker: Worker, tmp_path: Path) -> None:
    mine = Leases(worker("mine"))
    with holder(store, tmp_path / "other", "other") as (process, said):
        child = psutil.Process(said()["child"])
        waiting = Taking(mine, "2" * 32)
        assert not waiting.has.wait(8 * BEAT)  # it lives, however long it takes
        process.kill()
        assert waiting.has.wait(30)
        child.kill()  # a plain child; an exporter ends with its parent (bot.leash)
    assert rows(store) == {REPO: "mine"}
    waiting.let_go.set()
    waiting.join(30)


def test_a_lease_of_an_earlier_start_is_free_at_once(store: Store, worker: Worker, tmp_path: Path) -> None:
    with holder(store, tmp_path / "one", "one") as (process, said):
        child = said()["child"]
        process.kill()
        process.wait()
        os.kill(child, signal.SIGKILL)
    again = Taking(Leases(worker("one", beat=600)), "2")
    assert again.has.wait(30)
    again.let_go.set()
    again.join(30)
    assert again.error is None


def test_who_was_frozen_and_taken_over_has_no_export_left_and_learns_it(
    store: Store, worker: Worker, tmp_path: Path
) -> None:
    mine = Leases(worker("mine"))
    with holder(store, tmp_path / "other", "other") as (process, said):
        child = psutil.Process(said()["child"])
        process.send_signal(signal.SIGSTOP)
        waiting = Taking(mine, "2" * 32)
        assert waiting.has.wait(30)
        assert child.status() == psutil.STATUS_ZOMBIE, "its export goes on while another one begins"
        process.send_signal(signal.SIGCONT)
        assert said() == {"at": "stopped", "child": -signal.SIGKILL, "held": False}
        assert said()["at"] == "lost"
        assert rows(store) == {REPO: "mine"}
    waiting.let_go.set()
    waiting.join(30)
    assert waiting.error is None


def test_what_was_left_in_the_table_is_given_back_with_the_next_sign_of_life(store: Store, worker: Worker) -> None:
    """As after a release that the database did not answer."""
    heartbeat = worker("one", beat=600)
    leases = Leases(heartbeat)
    with store.transaction() as connection:
        values = {"repo_id": REPO, "job_id": "1", "worker": "one", "token": heartbeat.mark + "0" * 16}
        connection.execute(sa.insert(tables.leases).values(values))
    with leases.lease("acme/other", "2", threading.Event()) as held:
        heartbeat.beat()
        assert rows(store) == {"acme/other": "one"}
        assert held.still_held()


def test_a_worker_that_is_asked_to_end_ends_its_export_before_it_says_so(
    store: Store, worker: Worker, tmp_path: Path
) -> None:
    """Then others need not wait until it is noticed."""
    mine = Leases(worker("mine", beat=600))
    with holder(store, tmp_path / "other", "other") as (process, said):
        child = psutil.Process(said()["child"])
        waiting = Taking(mine, "2" * 32)
        assert process.stdin
        process.stdin.write("end\n")
        process.stdin.flush()
        assert waiting.has.wait(30)
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
        assert said()["at"] == "stopped"
    waiting.let_go.set()
    waiting.join(30)
    assert waiting.error is None


def test_no_goodbye_while_something_runs_that_does_not_end(
    store: Store, worker: Worker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A container on its way down, say: others wait until it is noticed."""
    monkeypatch.setattr(leases, "END_SECONDS", 0.1)
    heartbeat = worker("one", beat=600)
    running = Taking(Leases(heartbeat), "1")
    assert running.has.wait(30)
    heartbeat.stop()
    assert running.stop.is_set()
    assert store.workers()[0].beat_at != GOODBYE
    running.let_go.set()
    running.join(30)
    assert isinstance(running.error, LeaseLost)
    heartbeat.stop()
    assert store.workers()[0].beat_at == GOODBYE
