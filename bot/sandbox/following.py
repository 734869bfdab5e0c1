"""Stays with a job on another machine until it has said its verdict, or ends it.

Stage 3 of the way of one request, on this side of the wall, for every kind of remote job. In: a job that can be read,
asked and ended. Out: the reader has its verdict, or how it ended without one. Connections break, so the log is read
again from its beginning as often as it has to be: the reader passes every line on once.
"""

from __future__ import annotations

import queue
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, Protocol

from bot.errors import RemoteJobFailed
from bot.sandbox.errand import Reader
from exporter.errors import PtebotError

MOST_FAILURES = 30
"""Failed questions in a row before the job is taken for lost; with the default pause, a minute."""
LAST_WORDS_SECONDS = 15.0
"""How long the log of a job that is over may take to come."""
LATE_SECONDS = 120.0
"""What a run's own machine may be late with ending it, before it is ended from here."""


class Unanswered(Exception):
    """Whoever runs the job did not answer, and may do so later. Never shown."""


class RemoteJob(Protocol):
    """One job on another machine. To add a kind of machine, implement this and ``bot.sandbox.call.Executor``."""

    @property
    def name(self) -> str:
        """What a person finds it by."""

    def lines(self) -> Iterable[str]:
        """Its log from the beginning, as it comes, until the job or the connection ends. Raises Unanswered."""

    def over(self) -> str | None:
        """None while it waits or runs; else how it ended, in words. Raises Unanswered."""

    def end(self) -> None:
        """End it now, whatever it does. Raises Unanswered."""


@dataclass(frozen=True, kw_only=True)
class Patience:
    """How long what may take."""

    pause: float = 2.0
    """Seconds between two questions."""
    start: float = 3600.0
    """Seconds until the job has to have begun: machines may have to be found, and an image of gigabytes fetched."""


Outcome = Literal["verdict", "over", "stopped", "late"]


def follow(
    job: RemoteJob, reader: Reader, *, seconds: float | None, stop: threading.Event | None, patience: Patience
) -> tuple[Outcome, str]:
    """Read the log until the verdict; what came of it, and how the job ended where it did without one.

    An exception here (KeyboardInterrupt included) leaves the job alone: it is found again by its name.

    Args:
        seconds: what the run may take by its own clock.

    Raises:
        RemoteJobFailed: it did not begin in time, or nobody answers any more.
    """
    lines: queue.Queue[str] = queue.Queue(maxsize=1000)
    done = threading.Event()
    thread = threading.Thread(target=_pump, args=(job, lines, done, patience), name=f"{job.name} log", daemon=True)
    thread.start()
    asked_at = started_at = time.monotonic()
    begun: float | None = None
    over: str | None = None
    failures = 0
    try:
        while True:
            _take(lines, reader, patience.pause)
            now = time.monotonic()
            if reader.verdict is not None:
                return "verdict", ""
            if stop is not None and stop.is_set():
                _end(job)
                return "stopped", ""
            begun = begun or (now if reader.seen else None)
            if begun is None and now - started_at > patience.start:
                _end(job)
                raise RemoteJobFailed(f"{job.name} did not begin within {patience.start:,.0f} s; it was taken back.")
            if begun is not None and seconds is not None and now - begun > seconds + LATE_SECONDS:
                _end(job)
                return "late", ""
            if now - asked_at < patience.pause:
                continue
            asked_at = now
            try:
                over = job.over()
                failures = 0
            except Unanswered as error:
                failures += 1
                if failures >= MOST_FAILURES:
                    raise RemoteJobFailed(
                        f"Nobody answers for {job.name} any more: {error}.",
                        remedy="It may still run. Try again later: it is found by its name.",
                    ) from None
            if over is not None:
                break
        _last_words(job, lines, reader, thread)
        return ("verdict" if reader.verdict is not None else "over"), over
    finally:
        done.set()


def _take(lines: queue.Queue[str], reader: Reader, most_seconds: float) -> None:
    """Pass on what there is; where there is nothing, wait a moment for it."""
    try:
        reader.line(lines.get(timeout=min(most_seconds, 0.5)))
        for _ in range(lines.maxsize):
            reader.line(lines.get_nowait())
    except queue.Empty:
        pass


def _last_words(job: RemoteJob, lines: queue.Queue[str], reader: Reader, thread: threading.Thread) -> None:
    """What the log still has to say of a job that is over."""
    until = time.monotonic() + LAST_WORDS_SECONDS
    while reader.verdict is None and time.monotonic() < until and (thread.is_alive() or not lines.empty()):
        _take(lines, reader, 0.1)
    if reader.verdict is None and not thread.is_alive():
        try:
            for line in job.lines():
                reader.line(line)
        except Unanswered:
            return  # then there is no verdict, which is what the caller tells


def _pump(job: RemoteJob, lines: queue.Queue[str], done: threading.Event, patience: Patience) -> None:
    """Read the log, again and again, until somebody has what they want of it."""
    while not done.is_set():
        try:
            for line in job.lines():
                while not done.is_set():
                    try:
                        lines.put(line, timeout=0.2)
                        break
                    except queue.Full:
                        continue
                if done.is_set():
                    return
            if job.over() is not None:
                return
        except (Unanswered, PtebotError):
            pass  # the one who asks how the job is doing meets the same, and counts
        done.wait(patience.pause)


def _end(job: RemoteJob) -> None:
    """End it, with some insistence.

    Raises:
        RemoteJobFailed: it cannot be reached.
    """
    for attempt in range(5):
        try:
            job.end()
            return
        except Unanswered as error:
            last = error
            time.sleep(0.2 * 2**attempt)
    raise RemoteJobFailed(f"{job.name} cannot be ended: {last}.", remedy="It may still run: end it where it runs.")
