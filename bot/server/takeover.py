"""Finds the workers that are dead, and has what they left done by those that live.

Beside the stages. In: the signs of life in the database. Out: a call of the engine with the names of the dead, by one
process at a time. To take over twice does no harm, and so nothing is written down about it.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence

import sqlalchemy as sa

from bot.errors import DatabaseUnavailable
from bot.server import tables
from bot.server.heartbeat import DEAD
from bot.server.leases import Leases

FORGOTTEN = 7 * 86400.0
"""Seconds after which a dead worker's row goes: names that a cluster makes up for each start would pile up."""
log = logging.getLogger(__name__)
_workers = tables.workers


class Takeover:
    """One in each process that does jobs, from ``start`` to ``stop``."""

    def __init__(self, leases: Leases, adopt: Callable[[Sequence[str]], object]) -> None:
        """
        Args:
            adopt: makes the jobs that the named workers left wait in the queue again. Called in a thread of this
                object, by one process at a time, and again with the same names after a while.
        """
        self._leases, self._adopt = leases, adopt
        self._heartbeat = leases.heartbeat
        self._ended = threading.Event()
        self._known: dict[str, float] = {}
        self._round = 0
        self._thread = threading.Thread(target=self._run, name="takeover", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(self._heartbeat.interval):
            try:
                self.look()
            except DatabaseUnavailable as error:
                log.warning("the dead workers could not be looked for: %s", error)
            except Exception:  # a thread that ends here would be a part of the server that is silently off
                log.exception("the jobs of dead workers could not be taken over; tried again soon")

    def look(self) -> list[str]:
        """One round; the workers whose jobs were taken over.

        The dead stay in the table and are named again every few rounds: one that was woken may have begun something
        after it was taken over, and ended then.
        """
        if not self._heartbeat.steady:
            return []
        dead = self._dead()
        new = [name for name, beat in dead.items() if self._known.get(name) != beat]
        self._round += 1
        names = sorted(dead if self._round % DEAD == 0 else new)
        if names:
            with self._leases.alone("takeover") as mine:
                if not mine:
                    return []
                for name in new:
                    log.warning("worker %s is dead; its jobs are taken over", name)
                self._adopt(names)
            self._forget(names)
        self._known = dead
        return names

    def _forget(self, names: Sequence[str]) -> None:
        """Workers that said goodbye, and those of long ago; only once their jobs were taken over."""
        store = self._heartbeat.store
        with store.transaction() as connection:
            old = sa.delete(_workers).where(_workers.c.id.in_(names), _workers.c.beat_at < store.clock - FORGOTTEN)
            connection.execute(old)

    def _dead(self) -> dict[str, float]:
        """When they gave their last sign of life, by name."""
        store = self._heartbeat.store
        with store.transaction() as connection:
            query = sa.select(_workers.c.id, _workers.c.beat_at).where(
                _workers.c.beat_at < store.clock - DEAD * self._heartbeat.interval, _workers.c.id != self._heartbeat.id
            )
            return {row.id: row.beat_at for row in connection.execute(query)}
