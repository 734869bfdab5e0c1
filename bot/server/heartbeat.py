"""Which workers live: each one's signs of life, and who may judge them.

Beside the stages: all of them run in a worker. In: the database, whose clock counts, because those of machines differ.
Out: a row of ptebot_workers that says when a process last lived, and a word to this process when it may have been
taken for dead. ``bot.server.takeover`` looks for the dead, ``bot.server.leases`` keeps two from doing one thing.

Three moments, counted in beats from the last sign of life that reached the database, keep two processes from doing
one thing at once: after ``SOFT`` the worker itself stops what it holds leases for, after ``HARD`` its guard
(``bot.server.guard``) kills the exports even where the process is frozen, after ``DEAD`` others take over. Whoever
has not given signs of life for that long without a gap judges nobody: a database that was away for a minute does not
make everybody dead in the eyes of the first who finds it again.
"""

from __future__ import annotations

import fcntl
import hashlib
import logging
import os
import secrets
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

import sqlalchemy as sa

from bot.errors import DatabaseUnavailable, InvalidSettings
from bot.server import guard, tables
from bot.server.settings import Settings
from bot.server.store import Store
from exporter import __version__

SOFT, HARD, DEAD = 4, 5, 6
GOODBYE = 0.0
"""The last sign of life of a worker that ended by itself: nobody need wait until it is missed."""
MARK_DIGITS = 16
log = logging.getLogger(__name__)
_workers = tables.workers


def worker_name(settings: Settings) -> str:
    """This process's name among the workers."""
    return settings.worker or socket.gethostname()


def alive(store: Store, settings: Settings) -> set[str]:
    """The workers that live."""
    query = sa.select(_workers.c.id).where(_workers.c.beat_at >= store.clock - DEAD * settings.heartbeat)
    with store.transaction() as connection:
        return set(connection.execute(query).scalars())


def mark(started_at: float) -> str:
    """A start of a worker in ``MARK_DIGITS`` hex digits; two of one name are never alike."""
    return struct.pack(">d", started_at).hex()


class Heartbeat:
    """This process among the workers, from ``start`` to ``stop``."""

    def __init__(
        self, store: Store, settings: Settings, worker_id: str | None = None, *, guarded: bool = False
    ) -> None:
        """
        Args:
            guarded: everything that this process has started is killed when it may be taken for dead.
        """
        self.store, self.settings, self._guarded = store, settings, guarded
        self.id = worker_id or worker_name(settings)
        self.interval = settings.heartbeat
        self.started_at = 0.0
        """By the database's clock; with the name it tells this start of the worker from all others."""
        self.replaced = threading.Event()
        """Set when another process has taken this one's name: it has to end."""
        self._until = self._since = 0.0
        self._ended = threading.Event()
        self._renewed = threading.Condition()
        self._on_gap: list[Callable[[str], None]] = []
        self._on_beat: list[Callable[[sa.Connection], Callable[[], None]]] = []
        self._on_end: list[Callable[[], bool]] = []
        self._lock: IO[str] | None = None
        self._guard: subprocess.Popen[bytes] | None = None
        self._threads: list[threading.Thread] = []

    @property
    def mark(self) -> str:
        """This start of the worker."""
        return mark(self.started_at)

    @property
    def steady(self) -> bool:
        """Whether this process gave signs of life long enough to judge others."""
        now = time.monotonic()
        return self._since + DEAD * self.interval <= now < self._until

    @property
    def certain(self) -> bool:
        """Whether nobody can have taken this process for dead."""
        return time.monotonic() < self._until and not self.replaced.is_set()

    def start(self) -> None:
        """Take the name and begin; raises InvalidSettings where another process that lives has it."""
        host = f"{socket.gethostname()}/{self._own_place()}"
        asked = self._claim(host)
        if self._guarded:
            command = [sys.executable, "-I", guard.__file__, str(os.getpid())]
            self._guard = subprocess.Popen(command, stdin=subprocess.PIPE, start_new_session=True)
        self._hold(asked)
        self._since = asked
        for name, run in (("heartbeat", self._beat_on), ("heartbeat-watch", self._watch)):
            thread = threading.Thread(target=run, name=name, daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self) -> None:
        """End, with all exports, and tell the others at once: what this process left may be taken over."""
        self._ended.set()
        with self._renewed:
            self._until = 0.0
            self._renewed.notify_all()
        for thread in self._threads:
            thread.join()
        self._threads.clear()
        self._gap("is ending", time.monotonic())
        over = all(call() for call in self._on_end)
        self._end_guard()
        if over:
            self._say_goodbye()
        else:  # it is noticed in time
            log.warning("worker %s ends before what it does has ended", self.id)
        self._close_lock()

    def _say_goodbye(self) -> None:
        try:
            with self.store.transaction() as connection:
                connection.execute(sa.update(_workers).where(*self._own()).values(beat_at=GOODBYE))
        except DatabaseUnavailable as error:
            log.warning("the end of worker %s could not be told: %s", self.id, error)

    def _end_guard(self) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            self._feed_guard(0.0)  # a moment that has passed
            self._guard.stdin.close()
            self._guard.wait()

    def on_gap(self, call: Callable[[str], None]) -> None:
        """Have ``call`` told why, as soon as others may take this process for dead."""
        self._on_gap.append(call)

    def on_beat(self, call: Callable[[sa.Connection], Callable[[], None]]) -> None:
        """Have ``call`` asked in the transaction of each beat; what it gives back is called once that is kept."""
        self._on_beat.append(call)

    def on_end(self, call: Callable[[], bool]) -> None:
        """Have ``call`` asked, after ``on_gap``'s, whether all that only a living worker may do has ended."""
        self._on_end.append(call)

    # --- the name

    def _own(self) -> tuple[sa.ColumnElement[bool], ...]:
        return _workers.c.id == self.id, _workers.c.started_at == self.started_at

    def _own_place(self) -> str:
        """What marks this data directory, locked for this name: who holds it knows that the one before is dead."""
        folder = self.settings.data / "workers"
        folder.mkdir(parents=True, exist_ok=True)
        self._lock = Path(folder, hashlib.sha256(self.id.encode()).hexdigest()[:16]).open("a+")  # noqa: SIM115
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            self._lock.close()
            raise InvalidSettings(
                f"Another process of this machine is the worker {self.id!r} already.",
                remedy="End it, or give this one another name with PTEBOT_WORKER.",
            ) from None
        self._lock.seek(0)
        known = self._lock.read().strip()
        if not known:
            known = secrets.token_hex(8)
            self._lock.write(known)
            self._lock.flush()
        return known

    def _claim(self, host: str) -> float:
        """Take the row of this name; when that was asked, by the monotonic clock."""
        seen: float | None = None
        while not self._ended.is_set():
            asked = time.monotonic()
            with self.store.transaction() as connection:
                now, row = self._row(connection)
                if row is None:
                    self.started_at = now
                    new = {"id": self.id, "host": host, "started_at": now, "beat_at": now, "version": __version__}
                    if self.store.insert_new(connection, _workers, new):
                        return asked
                    continue
                if row.host == host or row.beat_at < now - DEAD * self.interval:
                    # later than all before, so that no two starts are alike even where the clock was set back
                    self.started_at = max(now, row.started_at + 0.001)
                    done = connection.execute(
                        sa.update(_workers)
                        .where(_workers.c.id == self.id, _workers.c.started_at == row.started_at)
                        .where(_workers.c.beat_at == row.beat_at)
                        .values(host=host, started_at=self.started_at, beat_at=now, version=__version__)
                    )
                    if done.rowcount == 1:
                        return asked
                    continue
            if seen is None:
                log.info("worker %s gave a sign of life on %s; waiting to see another", self.id, row.host)
            elif seen != row.beat_at:
                self._close_lock()
                raise InvalidSettings(
                    f"Another process is the worker {self.id!r} already, on {row.host.partition('/')[0]}.",
                    remedy="End it, or give this one another name with PTEBOT_WORKER.",
                )
            seen = row.beat_at
            self._ended.wait(self.interval / 2)
        raise InvalidSettings(f"Ended before the worker {self.id!r} could begin.")

    def _row(self, connection: sa.Connection) -> tuple[float, Any]:
        now = connection.execute(sa.select(self.store.clock)).scalar_one()
        query = sa.select(_workers.c.started_at, _workers.c.beat_at, _workers.c.host).where(_workers.c.id == self.id)
        return now, connection.execute(query).one_or_none()

    def _close_lock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    # --- signs of life

    def _hold(self, asked: float) -> None:
        """What was asked at this moment is kept, so nobody takes this process for dead before the moments it sets."""
        with self._renewed:
            self._until = asked + SOFT * self.interval
            self._renewed.notify_all()
        self._feed_guard(asked + HARD * self.interval)

    def _feed_guard(self, until: float) -> None:
        if self._guard is not None and self._guard.stdin is not None:
            try:
                self._guard.stdin.write(f"{until}\n".encode())
                self._guard.stdin.flush()
            except OSError as error:
                log.error("the guard of worker %s is gone: %s", self.id, error)

    def _beat_on(self) -> None:
        while not self._ended.wait(self.interval):
            try:
                self.beat()
            except DatabaseUnavailable as error:
                log.warning("no sign of life of worker %s: %s", self.id, error)
            except Exception:  # a thread that ends here would be a part of the server that is silently off
                log.exception("no sign of life of worker %s", self.id)

    def beat(self) -> None:
        """One sign of life; raises DatabaseUnavailable."""
        asked = time.monotonic()
        if asked >= self._until:
            self._gap("gave no sign of life for too long", asked)
        with self.store.transaction() as connection:
            values = {"beat_at": self.store.clock}
            done = connection.execute(sa.update(_workers).where(*self._own()).values(values))
            afterwards = [call(connection) for call in self._on_beat] if done.rowcount == 1 else []
        if done.rowcount == 1:
            self._hold(asked)
            for call in afterwards:
                call()
        elif not self.replaced.is_set():
            self.replaced.set()
            self._gap("is another process by now", asked)

    def _watch(self) -> None:
        """Notice the moment when ``_until`` passes, even where the database holds up the thread that beats."""
        while not self._ended.is_set():
            with self._renewed:
                left = self._until - time.monotonic()
                self._renewed.wait(left if left > 0 else self.interval)
            if not self._ended.is_set() and time.monotonic() >= self._until:
                self._gap("gave no sign of life for too long", time.monotonic())

    def _gap(self, why: str, now: float) -> None:
        self._since = now
        for call in self._on_gap:
            call(f"worker {self.id} {why}")
