"""A job's progress as a log that folds: one group for each stage and each cell. Stage 6.

In: ``Progress`` steps of fetching, exporting and publishing. Out: groups with elapsed seconds in every line, a sign
of life where a step says nothing for long, and after each group one line that says how it ended and how long it
took, so that the folded log reads as a table of contents.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from bot.action.commands import Log
from bot.console import SIGN_OF_LIFE_SECONDS, SILENCE_SECONDS
from bot.export_process import OnProgress, Progress
from bot.publish.markdown import one_line

TITLES = {
    "plan": "Plan: what is there already",
    "fetch": "Fetch the model",
    "check": "Check the model",
    "rehearse": "Rehearse on one layer",
    "load": "Load the model",
    "reference": "Run the original",
    "calibrate": "Collect calibration text",
    "quantize": "Prepare",
    "trace": "Prepare",
    "bench": "Measure speed",
    "publish": "Publish",
}
"""Headings of the stages; any other stage is shown by its own name."""
_ENDS = {"cell", "done"}
"""Steps that only say how something ended."""


@contextmanager
def grouped(log: Log) -> Iterator[OnProgress]:
    """A function that shows each progress step, for the time of a ``with`` block."""
    shown = _Grouped(log)
    ended = threading.Event()

    def live() -> None:
        while not ended.wait(min(1.0, SILENCE_SECONDS)):
            shown.live()

    thread = threading.Thread(target=live, name="sign of life", daemon=True)
    thread.start()
    try:
        yield shown.show
    finally:
        ended.set()
        thread.join()
        shown.close()


class _Grouped:
    def __init__(self, log: Log) -> None:
        self._log, self._lock = log, threading.RLock()
        self._began = self._said = time.monotonic()
        self._title, self._opened, self._result = "", self._began, ""
        self._key, self._last = ("", "", ""), ""

    def show(self, item: Progress) -> None:
        with self._lock:
            if item.stage in _ENDS and not item.backend:
                self.close()
                self._log.say(one_line(item.message))
                return
            title = heading(item)
            if title != self._title:
                self.close()
                self._title, self._opened = title, time.monotonic()
                self._log.open_group(title)
            if item.stage in _ENDS:
                self._result = one_line(item.message)
            self._line(item)

    def _line(self, item: Progress) -> None:
        text = one_line(f"{item.stage}: {item.message}" if item.message else item.stage)
        key = (item.stage, item.backend or "", item.precision or "")
        counting = key == self._key and item.fraction is not None
        if text == self._last or (counting and time.monotonic() - self._said < SIGN_OF_LIFE_SECONDS):
            return
        self._key, self._last = key, text
        self._print(text, item.fraction)

    def live(self) -> None:
        """Say that the work goes on, where nothing was said for long."""
        with self._lock:
            if self._title and time.monotonic() - self._said >= SILENCE_SECONDS:
                self._print(f"still at it: {self._last}", None)

    def close(self) -> None:
        """End the open group with the line that stays visible."""
        with self._lock:
            if self._title:
                self._log.close_group()
                result = f"{self._result}, " if self._result else ""
                self._log.say(f"{self._title}: {result}{time.monotonic() - self._opened:.1f} s")
            self._title, self._result, self._last, self._key = "", "", "", ("", "", "")

    def _print(self, text: str, fraction: float | None) -> None:
        self._said = time.monotonic()
        percent = "     " if fraction is None else f"{fraction:4.0%} "
        self._log.say(f"[{self._said - self._began:7.1f} s] {percent}{text}")


def heading(item: Progress) -> str:
    """The title of the group that a step belongs to; never empty."""
    stage = TITLES.get(item.stage, one_line(item.stage, 40))
    if item.stage in ("rehearse", "bench"):
        return stage
    if item.precision and item.stage == "reference":
        stage = TITLES["quantize"]
    return one_line(f"{item.backend or stage} {item.precision or ''}", 80) or "Work"
