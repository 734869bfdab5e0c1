"""How much memory a child takes, sampled, and its end when that is more than it was given.

Stage 3 of the way of one request, on the parent's side of the wall. In: a running child and a limit in bytes. Out:
the most that it and its descendants held at once, and whether that was too much. Resident memory is what counts, as in
the report's ``peak_rss_bytes``; pages that several processes share are counted once before anybody is ended for them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import psutil

SAMPLE_SECONDS = 0.1
FAMILY_SECONDS = 1.0
"""Between two looks for new descendants, which go through every process of the machine."""


class Watch:
    """Samples process ``pid`` until ``stop``; calls ``end`` once it holds more than ``limit_bytes``.

    What it started counts too; where it runs under a user of its own (``uid``), so does what has left its family.
    """

    def __init__(self, pid: int, limit_bytes: int, end: Callable[[], None], *, uid: int | None = None) -> None:
        self._pid, self._limit, self._end, self._uid = pid, limit_bytes, end, uid
        self._stopped = threading.Event()
        self.peak_bytes = 0
        self.exceeded = False
        self._thread = threading.Thread(target=self._run, name="memory", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more samples; to be called before the child's number can be another process's."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            child = psutil.Process(self._pid)
        except psutil.NoSuchProcess:
            return
        family, looked = [child], 0.0
        while not self._stopped.wait(SAMPLE_SECONDS):
            if time.monotonic() - looked > FAMILY_SECONDS:
                family, looked = self._family(child), time.monotonic()
            held = sum(_resident(process) for process in family)
            if held > self._limit and len(family) > 1:
                held = sum(_own_share(process) for process in family)
            self.peak_bytes = max(self.peak_bytes, held)
            if held > self._limit:
                self.exceeded = True
                self._end()
                return

    def _family(self, child: psutil.Process) -> list[psutil.Process]:
        if self._uid is not None:
            return [process for process in psutil.process_iter() if self._uid in _users(process)]
        try:
            return [child, *child.children(recursive=True)]
        except psutil.Error:
            return [child]


def _users(process: psutil.Process) -> tuple[int, ...]:
    try:
        return tuple(process.uids())
    except psutil.Error:
        return ()


def _resident(process: psutil.Process) -> int:
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def _own_share(process: psutil.Process) -> int:
    """Resident bytes with each shared page divided by its users (Linux' PSS); plain ones elsewhere."""
    try:
        found = process.memory_full_info()
        return int(getattr(found, "pss", found.rss))
    except psutil.Error:
        return _resident(process)
