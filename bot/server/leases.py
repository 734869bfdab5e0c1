"""One export per repository at a time, over all machines: leases in the database, with tokens that fence.

Around stage 3 of the way of one request. In: this process's signs of life (``bot.server.heartbeat``), a repository
and a job. Out: a lease that is waited for, and that knows when it is lost. A lease's token says whose start of which
worker took it, so that what a dead process left is told from what a living one holds; whoever loses a lease is told
by ``stop`` at the next sign of life, and asks ``check`` before anything that others see.
"""

from __future__ import annotations

import logging
import secrets
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import sqlalchemy as sa

from bot.errors import DatabaseUnavailable, LeaseLost, Stopped
from bot.server import tables
from bot.server.heartbeat import DEAD, GOODBYE, MARK_DIGITS, Heartbeat, mark

LOOK_SECONDS = 1.0
"""Between two looks at a lease that another machine holds, at most."""
END_SECONDS = 10.0
"""For what runs under leases to end, when the process does."""
log = logging.getLogger(__name__)
_leases, _workers = tables.leases, tables.workers


@dataclass(eq=False, kw_only=True)
class Lease:
    """The right to export one repository."""

    repo_id: str
    job_id: str
    token: str
    stop: threading.Event
    """Set when the lease is lost, and by whoever else wants what is done under it to end."""
    _owner: Leases = field(repr=False)
    _lost: str = ""

    @property
    def lost(self) -> bool:
        """Whether it is known to be lost; once, for good."""
        if not self._lost and not self._owner.heartbeat.certain:
            self.lose("this process gave no sign of life for too long")
        return bool(self._lost)

    def lose(self, why: str) -> None:
        self._lost = self._lost or why
        self.stop.set()

    def still_held(self) -> bool:
        """Asks the database; raises DatabaseUnavailable."""
        if not self.lost and not self._owner.holds(self.token):
            self.lose("another worker took it over")
        return not self.lost

    def check(self) -> None:
        """Before anything that others see; raises LeaseLost, DatabaseUnavailable."""
        if not self.still_held():
            raise self.error()

    def error(self) -> LeaseLost:
        return LeaseLost(f"The lease on {self.repo_id} is lost: {self._lost}.")


class Leases:
    """All leases that this process holds; one object for each process."""

    def __init__(self, heartbeat: Heartbeat) -> None:
        self.heartbeat = heartbeat
        self._store = heartbeat.store
        self._held: dict[str, Lease] = {}
        self._asked: set[str] = set()
        """Tokens of leases that are being taken: those in the database would look left over."""
        self._changed = threading.Condition()
        heartbeat.on_gap(self._lose_all)
        heartbeat.on_beat(self._look_after)
        heartbeat.on_end(self._all_back)

    @contextmanager
    def lease(self, repo_id: str, job_id: str, stop: threading.Event) -> Iterator[Lease]:
        """Wait until nobody alive exports this repository, and hold it for the time of the block.

        Raises:
            Stopped: ``stop`` was set while it waited.
            LeaseLost: it was lost in the block, whatever else the block raised: that comes of it.
            DatabaseUnavailable: it is unknown who has it.
        """
        while (held := self._take(repo_id, job_id, stop)) is None:
            if stop.is_set():
                raise Stopped(f"Stopped while another export of {repo_id} was waited for.")
            with self._changed:
                self._changed.wait(min(LOOK_SECONDS, self.heartbeat.interval / 2))
        try:
            yield held
        except Exception:  # raised again: of a lost lease, whatever came of it is told as that
            if held.lost:
                raise held.error() from None
            raise
        else:
            if held.lost:
                raise held.error()
        finally:
            self._give_back(held)

    @contextmanager
    def alone(self, what: str) -> Iterator[bool]:
        """Whether no other living process is in a block of this name now; such names are no repositories'."""
        held = self._take(f":{what}", "", threading.Event())
        try:
            yield held is not None
        finally:
            if held is not None:
                self._give_back(held)

    def holds(self, token: str) -> bool:
        with self._store.transaction() as connection:
            return connection.execute(sa.select(_leases.c.token).where(_leases.c.token == token)).first() is not None

    # --- taking and giving back

    def _take(self, repo_id: str, job_id: str, stop: threading.Event) -> Lease | None:
        """The lease, if nobody alive has it."""
        heartbeat, key = self.heartbeat, repo_id.lower()
        if not heartbeat.certain or stop.is_set():
            return None
        token = heartbeat.mark + secrets.token_hex(8)
        values = {"job_id": job_id, "worker": heartbeat.id, "token": token}
        self._asked.add(token)
        try:
            with self._store.transaction() as connection:
                taken = self._store.insert_new(connection, _leases, {"repo_id": key, **values})
                if not taken:
                    found = sa.select(_leases.c.worker, _leases.c.token).where(_leases.c.repo_id == key)
                    row = connection.execute(found).one_or_none()
                    if row is not None and self._is_free(connection, row.worker, row.token):
                        change = sa.update(_leases).where(_leases.c.repo_id == key, _leases.c.token == row.token)
                        taken = connection.execute(change.values(**values)).rowcount == 1
            if not taken:
                return None
            held = Lease(repo_id=repo_id, job_id=job_id, token=token, stop=stop, _owner=self)
            self._held[token] = held
            return held
        finally:
            self._asked.discard(token)

    def _is_free(self, connection: sa.Connection, worker: str, token: str) -> bool:
        """Whether the process that took it is dead, or of ours and over."""
        heartbeat = self.heartbeat
        if worker == heartbeat.id:
            # an older start of this name is dead, or this one could not have begun
            return token not in self._held and token not in self._asked
        clock = self._store.clock
        query = sa.select(_workers.c.started_at, _workers.c.beat_at, (clock - _workers.c.beat_at).label("age"))
        row = connection.execute(query.where(_workers.c.id == worker)).one_or_none()
        if row is None or mark(row.started_at) != token[:MARK_DIGITS] or row.beat_at == GOODBYE:
            return True
        return bool(row.age > DEAD * heartbeat.interval and heartbeat.steady)

    def _give_back(self, held: Lease) -> None:
        self._held.pop(held.token, None)
        try:
            with self._store.transaction() as connection:
                connection.execute(sa.delete(_leases).where(_leases.c.token == held.token))
        except DatabaseUnavailable as error:
            log.warning("the lease on %s is given back later: %s", held.repo_id, error)  # by _look_after
        with self._changed:
            self._changed.notify_all()

    # --- as time goes on

    def _look_after(self, connection: sa.Connection) -> Callable[[], None]:
        """With each sign of life: what is lost is told, what nobody uses any more is given back."""
        known = list(self._held.values())
        query = sa.select(_leases.c.token).where(_leases.c.worker == self.heartbeat.id)
        found = set(connection.execute(query).scalars())
        left = [token for token in found if token not in self._held and token not in self._asked]
        if left:
            connection.execute(sa.delete(_leases).where(_leases.c.token.in_(left)))

        def tell() -> None:
            for one in known:
                if one.token not in found and one.token in self._held:
                    one.lose("another worker took it over")

        return tell

    def _all_back(self) -> bool:
        """Whether all are given back, within a while: what runs under them was stopped."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._held, timeout=END_SECONDS)

    def _lose_all(self, why: str) -> None:
        for one in list(self._held.values()):
            one.lose(why)
