"""One attempt of a job while a step of it runs in this process: told, watched, counted. Between stages 2 and 6.

In: a job's id. Out: a ``Run``, which ends by itself once the job is wanted no more: cancelled, superseded, begun anew.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Protocol

from bot.errors import DatabaseUnavailable, JobNotFound, Stopped
from bot.server import logs, tracing
from bot.server.records import JobRecord
from bot.server.store import Store
from bot.server.telling import Telling

WATCH_SECONDS = 1.0
"""Between two looks whether a running job is still wanted."""
log = logging.getLogger(__name__)


class Observer(Protocol):
    """Who counts what happens (``bot.server.metrics``)."""

    def observe_stage(self, stage: str, backend: str | None, seconds: float) -> None: ...

    def published(self, operation: str) -> None: ...

    def ended(self, state: str, failure: str | None = None) -> None: ...

    def exporter_peak(self, backend: str | None, peak_bytes: int) -> None: ...


@dataclass(frozen=True, kw_only=True)
class Run:
    """One attempt of a job while a step of it runs in this process."""

    job: JobRecord
    telling: Telling
    stop: threading.Event
    """Set once the job is wanted no more, or somebody else does it."""


class Running:
    """Begins steps of jobs for one worker."""

    def __init__(self, store: Store, *, worker: str, observer: Observer | None = None) -> None:
        self._store, self._worker, self._observer = store, worker, observer

    @contextmanager
    def step(self, job_id: str, attempt: int, stage: str, backend: str | None = None) -> Iterator[Run]:
        """The attempt's run, watched; raises Stopped at once where it is wanted no more."""
        record = self._store.job(job_id)
        if record is None:
            raise JobNotFound(f"There is no job {job_id}.")
        if not record.live or record.attempt != attempt:
            raise Stopped(f"{job_id} is {record.state}.")
        if record.state == "queued":
            started = {"state": "running", "started_at": time.time(), "worker": self._worker}
            self._store.update(job_id, only_if=("queued",), **started)
        elif record.worker != self._worker:
            self._store.update(job_id, only_if=("running",), worker=self._worker)
        stop = threading.Event()
        telling = Telling(self._store, job_id, mine=lambda: not stop.is_set())
        over = threading.Event()
        watcher = threading.Thread(
            target=self._watch, args=(job_id, attempt, stop, over), name=f"watch {job_id[:8]}", daemon=True
        )
        watcher.start()
        began = time.monotonic()
        name = f"{stage} {backend}" if backend else stage
        try:
            with logs.about(job_id=job_id, repo=record.asked.repo_id), tracing.span(name, job_id=job_id):
                log.info("%s begins, attempt %s", name, attempt)
                yield Run(job=record, telling=telling, stop=stop)
        finally:
            over.set()
            watcher.join()
            telling.close()
            if self._observer is not None:
                self._observer.observe_stage(stage, backend, time.monotonic() - began)

    def _watch(self, job_id: str, attempt: int, stop: threading.Event, over: threading.Event) -> None:
        while not over.wait(WATCH_SECONDS):
            try:
                record = self._store.job(job_id)
            except DatabaseUnavailable:
                continue  # away for a moment, it ends no export
            except Exception:  # a watcher that ends could stop nothing any more
                log.exception("job %s could not be looked at; looked at again", job_id)
                continue
            if record is None or not record.live or record.attempt != attempt:
                stop.set()
                return
