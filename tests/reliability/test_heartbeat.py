"""Signs of life: who lives, who has which name, and what a gap does; on SQLite and on PostgreSQL."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest
import sqlalchemy as sa

from bot.errors import InvalidSettings
from bot.server import guard, tables
from bot.server.heartbeat import DEAD, Heartbeat, alive
from bot.server.settings import Settings
from bot.server.store import Store
from tests.reliability.conftest import BEAT, Worker
from tests.reliability.waiting import until


def beats(store: Store) -> dict[str, float]:
    return {one.id: one.beat_at for one in store.workers()}


def age(store: Store, name: str, seconds: float) -> None:
    """Make a worker's last sign of life older."""
    table = tables.workers
    with store.transaction() as connection:
        values = {"beat_at": table.c.beat_at - seconds, "started_at": table.c.started_at - seconds}
        connection.execute(sa.update(table).where(table.c.id == name).values(values))


def test_who_beats_lives_and_who_ends_does_not(store: Store, worker: Worker) -> None:
    one, two = worker("one"), worker("two")
    assert alive(store, one.settings) == {"one", "two"}
    first = beats(store)
    until(lambda: all(beats(store)[name] > first[name] for name in first), "both beat")
    two.stop()
    assert alive(store, one.settings) == {"one"}


def test_the_clock_is_the_databases(store: Store, worker: Worker, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine whose clock is a day off is no more dead than others."""
    monkeypatch.setattr(time, "time", lambda: 1.0)
    one = worker("one")
    assert alive(store, one.settings) == {"one"}
    with store.transaction() as connection:
        assert abs(connection.execute(sa.select(store.clock)).scalar_one() - time.time_ns() / 1e9) < 60


def test_a_name_that_another_machine_uses_is_refused(store: Store, worker: Worker, tmp_path: Path) -> None:
    worker("one")
    other = Heartbeat(store, Settings(data=tmp_path / "elsewhere", worker="one", heartbeat=BEAT))
    with pytest.raises(InvalidSettings, match="already"):
        other.start()


def test_a_name_that_another_process_here_uses_is_refused_at_once(store: Store, worker: Worker, tmp_path: Path) -> None:
    worker("one", beat=600)
    other = Heartbeat(store, Settings(data=tmp_path / "one", worker="one", heartbeat=600))
    with pytest.raises(InvalidSettings, match="of this machine"):
        other.start()


def test_a_restart_in_the_same_place_waits_for_nothing(store: Store, tmp_path: Path) -> None:
    """Its data directory's lock is free, so the one before is dead, however fresh its last sign of life is."""
    code = (
        "import os, sys\nfrom pathlib import Path\nfrom bot.server.heartbeat import Heartbeat\n"
        "from bot.server.settings import Settings\nfrom bot.server.store import Store, open_engine\n"
        "settings = Settings(data=Path(sys.argv[2]), worker='one', heartbeat=600)\n"
        "h = Heartbeat(Store(open_engine(sys.argv[1])), settings)\n"
        "h.start()\nprint(h.mark, flush=True)\nos.kill(os.getpid(), 9)\n"
    )
    url = store.engine.url.render_as_string(hide_password=False)
    done = subprocess.run(
        [sys.executable, "-c", code, url, str(tmp_path / "one")], capture_output=True, text=True, check=False
    )
    assert done.returncode == -signal.SIGKILL
    again = Heartbeat(store, Settings(data=tmp_path / "one", worker="one", heartbeat=600))
    again.start()
    assert again.mark > done.stdout.strip()
    again.stop()


def test_a_dead_name_is_free_elsewhere(store: Store, worker: Worker, tmp_path: Path) -> None:
    first = worker("one", beat=600)
    before = first.started_at
    age(store, "one", DEAD * 600 + 1)
    other = worker("one", data=tmp_path / "elsewhere", beat=600)
    assert other.started_at > before - DEAD * 600
    first.beat()
    assert first.replaced.is_set()
    assert not first.certain
    other.beat()
    assert other.certain


def test_a_gap_is_told_and_then_patience_begins_anew(store: Store, worker: Worker) -> None:
    one = worker("one")
    until(lambda: one.steady, "it may judge others")
    told = threading.Event()
    one.on_gap(lambda why: told.set())
    with store.transaction() as connection:
        if store.engine.dialect.name == "postgresql":  # SQLite lets one write at a time anyway
            connection.execute(sa.text("LOCK TABLE ptebot_workers IN ACCESS EXCLUSIVE MODE"))
        assert told.wait(30)
        assert not one.certain
    until(lambda: one.certain, "it beats again")
    assert not one.steady


def test_the_guard_ends_what_a_silent_worker_started(tmp_path: Path) -> None:
    code = (
        "import subprocess, sys\nshell = 'sleep 600 & echo $!; wait'\n"
        "subprocess.Popen(['sh', '-c', shell])\nsys.stdin.read()"
    )
    parent = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert parent.stdin and parent.stdout
    grandchild = psutil.Process(int(parent.stdout.readline()))
    watching = subprocess.Popen([sys.executable, "-I", guard.__file__, str(parent.pid)], stdin=subprocess.PIPE)
    assert watching.stdin
    watching.stdin.write(f"{time.monotonic() + 600}\n".encode())
    watching.stdin.flush()
    os.kill(parent.pid, signal.SIGSTOP)
    assert grandchild.is_running()
    watching.stdin.write(f"{time.monotonic() + 0.1}\n".encode())
    watching.stdin.flush()
    until(lambda: not grandchild.is_running() or grandchild.status() == psutil.STATUS_ZOMBIE, "the grandchild ends")
    assert watching.poll() is None
    watching.stdin.close()
    assert watching.wait(30) == 0
    os.kill(parent.pid, signal.SIGCONT)
    parent.stdin.close()
    assert parent.wait(30) == 0
