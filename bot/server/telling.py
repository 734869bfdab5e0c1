"""What a running job says of itself, on its way into the store: progress and log lines in, few bounded events out.

A job may say much more than anybody reads, and each write costs a transaction: stages are kept at once, the rest at
most once a second, and no job fills the database.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

from bot.console import clean
from bot.errors import DatabaseUnavailable
from bot.export_process import Progress
from bot.server.records import Event
from bot.server.store import Store

SECONDS_BETWEEN = 1.0
MOST_LOG_LINES = 5_000
"""Of one step; more are counted, not kept."""
MOST_STAGES = 500
"""Of one step that are kept at once; a step has some twenty for each file. More are told as progress is."""
MOST_CHARACTERS = 2_000
_MOST_WAITING = 200


class Telling:
    """One attempt of a job, told from any thread; ``close`` keeps what is left.

    ``mine`` is asked before each write: once the job is another attempt's, nothing of this one is shown any more.
    """

    def __init__(self, store: Store, job_id: str, mine: Callable[[], bool] = lambda: True) -> None:
        self._store, self._job_id, self._mine = store, job_id, mine
        self._lock = threading.Lock()
        self._waiting: list[Event] = []
        self._at: Progress | None = None
        self._written, self._logged, self._stages = 0.0, 0, 0

    def show(self, step: Progress) -> None:
        """Tell progress; a new stage is kept at once."""
        with self._lock:
            new = (self._at is None or step.where != self._at.where) and self._stages < MOST_STAGES
            self._stages += new
            self._at = step
            self._keep("stage" if new else "progress", step.message, step)
            self._write(at_once=new)

    def log(self, line: str) -> None:
        """Keep a line of the exporter's log."""
        with self._lock:
            self._logged += 1
            if self._logged == MOST_LOG_LINES + 1:
                self._keep("log", f"(no more than {MOST_LOG_LINES:,} lines of the log are kept)", None)
            if self._logged <= MOST_LOG_LINES:
                self._keep("log", line, None)
            self._write(at_once=False)

    def close(self) -> None:
        with self._lock:
            self._write(at_once=True)

    def _keep(self, kind: str, message: str, step: Progress | None) -> None:
        if kind == "progress" and self._waiting and self._waiting[-1].kind == "progress":
            self._waiting.pop()  # only the newest says where it is
        self._waiting.append(
            Event(
                job_id=self._job_id,
                at=time.time(),
                kind="stage" if kind == "stage" else "progress" if kind == "progress" else "log",
                stage=_short(step.stage) if step else "",
                backend=_short(step.backend) if step and step.backend else None,
                precision=_short(step.precision) if step and step.precision else None,
                fraction=step.fraction if step else None,
                message=clean(message)[:MOST_CHARACTERS],
            )
        )

    def _write(self, *, at_once: bool) -> None:
        now = time.monotonic()
        if not self._waiting or not (at_once or now - self._written > SECONDS_BETWEEN):
            if len(self._waiting) > _MOST_WAITING:
                del self._waiting[:-_MOST_WAITING]
            return
        events, self._waiting, self._written = self._waiting, [], now
        if not self._mine():
            return
        try:
            self._store.append(events)
            if self._at is not None:
                where, fraction = _short(self._at.where), self._at.fraction
                self._store.update(self._job_id, only_if=("running",), stage=where, fraction=fraction)
        except DatabaseUnavailable:
            # Whoever tells is a thread that reads an exporter's output: it has to go on, or the exporter stands still.
            self._waiting = [*events, *self._waiting][-_MOST_WAITING:]


def _short(text: str) -> str:
    return clean(text).replace("\n", " ")[:200]
