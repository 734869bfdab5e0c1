"""What the database counts, for metrics: one look in, a few numbers out, and nothing that a stranger wrote."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import sqlalchemy as sa

from bot.server import tables
from bot.server.heartbeat import DEAD
from bot.server.store import Store

MOST_WORKERS = 100
"""Workers that are counted by name; the others together."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """The state of the whole server at one moment."""

    jobs: Mapping[tuple[str, int], int]
    """By state and priority."""
    oldest_seconds: float
    """For how long the oldest queued job has waited; 0 where none waits."""
    running: Mapping[str, int]
    """Running jobs by worker, with a 0 for each living one that is idle."""
    deliveries: int
    """Webhooks that are kept and not handled."""
    oldest_delivery_seconds: float
    workers_alive: int
    workers_dead: int
    """Those that ended without a word and are not forgotten yet."""


def look(store: Store, heartbeat: float) -> Figures:
    """The figures now, in one transaction; ``heartbeat`` in seconds. Raises DatabaseUnavailable."""
    jobs, workers, deliveries = tables.jobs, tables.workers, tables.deliveries
    with store.transaction() as connection:
        now = connection.execute(sa.select(store.clock)).scalar_one()
        counted = connection.execute(
            sa.select(jobs.c.state, jobs.c.priority, sa.func.count()).group_by(jobs.c.state, jobs.c.priority)
        ).all()
        oldest = connection.execute(sa.select(sa.func.min(jobs.c.created_at)).where(jobs.c.state == "queued")).scalar()
        beats = connection.execute(sa.select(workers.c.id, workers.c.beat_at)).all()
        alive = {row.id for row in beats if row.beat_at >= now - DEAD * heartbeat}
        busy = connection.execute(
            sa.select(jobs.c.worker, sa.func.count()).where(jobs.c.state == "running").group_by(jobs.c.worker)
        ).all()
        waiting, since = connection.execute(
            sa.select(sa.func.count(), sa.func.min(deliveries.c.received_at)).where(deliveries.c.handled_at.is_(None))
        ).one()
    running = dict.fromkeys(sorted(alive)[:MOST_WORKERS], 0)
    for worker, count in busy:
        name = worker if worker in running else "other"
        running[name] = running.get(name, 0) + count
    return Figures(
        jobs={(state, priority): count for state, priority, count in counted},
        oldest_seconds=max(0.0, now - oldest) if oldest is not None else 0.0,
        running=running,
        deliveries=waiting,
        oldest_delivery_seconds=max(0.0, now - since) if since is not None else 0.0,
        workers_alive=len(alive),
        workers_dead=len(beats) - len(alive),
    )
