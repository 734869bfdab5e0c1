"""Actions that keep jobs in the store and run none: what the intake asks for, without an engine."""

from __future__ import annotations

from collections.abc import Callable

from bot.server.records import LIVE, Asked, Asker, JobRecord
from bot.server.store import Store


class Kept:
    """``submit`` as the engine does it, up to the queue."""

    def __init__(self, store: Store) -> None:
        self.store = store
        self.before: Callable[[], None] = lambda: None
        """Called first by every ``submit``: for failures and deaths."""
        self.retried: list[str] = []

    def submit(self, asked: Asked, asker: Asker, *, token: str | None = None) -> tuple[JobRecord, bool]:
        self.before()
        job, new = self.store.add(asked, asker)
        if new:
            for other in self.store.jobs(states=LIVE, repo_id=asked.repo_id):
                if other.asked.sha != asked.sha and other.asker.trigger in ("webhook", "sweep"):
                    self.store.end(other.id, "superseded")
        return job, new

    def cancel(self, job_id: str, *, by: str) -> JobRecord:
        raise NotImplementedError

    def retry(self, job_id: str, *, by: str) -> JobRecord:
        self.retried.append(job_id)
        self.store.update(job_id, state="queued")
        found = self.store.job(job_id)
        assert found is not None
        return found

    def resume(self, job_id: str, *, by: str) -> JobRecord:
        raise NotImplementedError
