"""How much a child takes, sampled, and its end when that is more than it was given, or when it is wanted no more.

Stage 3 of the way of one request, on the parent's side of the wall. In: a running child, its limits and the folders
that it writes. Out: the most memory that it and its descendants held at once, and what it was ended for. Resident
memory is what counts, as in the report's ``peak_rss_bytes``; pages that several processes share are counted once before
anybody is ended for them. Of files the larger of size and room on the disk counts: holes are filled when they are
copied, and a million empty files are no small thing either.
"""

from __future__ import annotations

import os
import shutil
import stat
import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal

import psutil

from bot.sandbox.call import Limits

SAMPLE_SECONDS = 0.1
FAMILY_SECONDS = 1.0
"""Between two looks for new descendants, which go through every process of the machine."""
FILES_SECONDS = 0.5
"""Between two looks into folders; more when one look takes long."""
LEAST_ENTRY_BYTES = 4096
MOST_LEVELS = 64
MOST_ENTRIES = 100_000
"""Files and folders below one folder; an export has some hundred."""
RESERVE_BYTES = 1 << 30
"""That stay free on the disk whatever the limit is, or a fiftieth of a small one."""
"""Of directories in one another; a model has two."""

OURS = 8
"""Processes of a child that are the wall's own; the kernel counts some of them too."""

Reason = Literal["memory", "time", "output", "processes", "stop"]


class Watch:
    """Samples process ``pid`` until ``stop``; calls ``end`` once it has passed a limit, or ``stop_event`` is set.

    What it started counts too; where it runs under a user of its own (``uid``), so does what has left its family.
    """

    def __init__(
        self,
        pid: int,
        limits: Limits,
        end: Callable[[], None],
        *,
        uid: int | None = None,
        stop_event: threading.Event | None = None,
        folders: Sequence[Path] = (),
    ) -> None:
        self._pid, self._limits, self._end, self._uid = pid, limits, end, uid
        self._stop_event, self._folders = stop_event, folders
        self._started = time.monotonic()
        self._next_look_at_files = 0.0
        self._stopped = threading.Event()
        self.peak_bytes: int | None = None if limits.memory_bytes is None else 0
        self.reason: Reason | None = None
        self._thread = threading.Thread(target=self._run, name="watch", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """No more samples; to be called before the child's number can be another process's."""
        self._stopped.set()
        self._thread.join()

    def look_at_files(self) -> None:
        """Once more, when the child has ended: what it wrote last counts too."""
        if self.reason is None and self._too_much_output():
            self.reason = "output"

    def _run(self) -> None:
        try:
            child = psutil.Process(self._pid)
        except psutil.NoSuchProcess:
            return
        family, looked_for_family = [child], 0.0
        try:
            while not self._stopped.wait(SAMPLE_SECONDS):
                now = time.monotonic()
                afresh = now - looked_for_family > FAMILY_SECONDS
                if afresh:
                    family, looked_for_family = self._family(child), now
                self.reason = self._passed(family, now, afresh)
                if self.reason is not None:
                    break
        finally:
            if not self._stopped.is_set():
                self._end()  # also where looking failed: nothing runs that nobody watches

    def _passed(self, family: list[psutil.Process], now: float, afresh: bool) -> Reason | None:
        if self._stop_event is not None and self._stop_event.is_set():
            return "stop"
        if self._limits.seconds is not None and now - self._started > self._limits.seconds:
            return "time"
        if self._too_much_memory(family):
            return "memory"
        if afresh and sum(map(_threads, family)) > self._limits.processes + OURS:
            return "processes"
        if now < self._next_look_at_files:
            return None
        too_much = self._too_much_output(family)
        took = time.monotonic() - now
        self._next_look_at_files = now + max(FILES_SECONDS, 10 * took)
        return "output" if too_much else None

    def _too_much_memory(self, family: list[psutil.Process]) -> bool:
        limit = self._limits.memory_bytes
        if limit is None:
            return False
        held = sum(_resident(process) for process in family)
        if held > limit and len(family) > 1:
            held = sum(_own_share(process) for process in family)
        self.peak_bytes = max(self.peak_bytes or 0, held)
        return held > limit

    def _too_much_output(self, family: Sequence[psutil.Process] = ()) -> bool:
        limit = self._limits.output_bytes
        if limit is None:
            return False
        return (
            any(size_of(folder, limit) > limit or nearly_full(folder) for folder in self._folders)
            or nameless(family) > limit
        )

    def _family(self, child: psutil.Process) -> list[psutil.Process]:
        if self._uid is not None:
            return [process for process in psutil.process_iter() if self._uid in _users(process)]
        try:
            return [child, *child.children(recursive=True)]
        except psutil.Error:
            return [child]


def size_of(folder: Path, enough: int) -> int:
    """Bytes of all that is below a folder, links not followed; more than ``enough`` where it cannot be told.

    So it is with more entries than an export has: empty files take no bytes, and a disk has only so many.
    """
    total, count, left = 0, 0, [(str(folder), 0)]
    while left and total <= enough:
        name, level = left.pop()
        try:
            with os.scandir(name) as entries:
                for entry in entries:
                    total += _bytes_of(entry)
                    count += 1
                    if count > MOST_ENTRIES:
                        return enough + 1
                    if entry.is_dir(follow_symlinks=False):
                        left.append((entry.path, level + 1))
                    if total > enough:
                        return total
        except FileNotFoundError:
            continue  # it was removed meanwhile
        except OSError:
            return enough + 1  # closed to us, or names without end: no export does that
        if level > MOST_LEVELS:
            return enough + 1
    return total


def nearly_full(folder: Path) -> bool:
    """Whether the disk below it has less left than everybody else on it needs."""
    try:
        disk = shutil.disk_usage(folder)
    except OSError:
        return False  # it is gone
    return disk.free < min(RESERVE_BYTES, disk.total // 50)


def nameless(family: Sequence[psutil.Process]) -> int:
    """Bytes of open files that have been removed: they take room for as long as somebody has them open."""
    found: dict[tuple[int, int], int] = {}
    for process in family:
        try:
            for entry in os.scandir(f"/proc/{process.pid}/fd"):
                with suppress(OSError):
                    status = entry.stat()
                    if stat.S_ISREG(status.st_mode) and status.st_nlink == 0:
                        found[status.st_dev, status.st_ino] = status.st_blocks * 512
        except OSError:
            continue  # ended, or no Linux
    return sum(found.values())


def _bytes_of(entry: os.DirEntry[str]) -> int:
    try:
        status = entry.stat(follow_symlinks=False)
    except FileNotFoundError:
        return 0  # it was removed meanwhile
    return max(status.st_size, status.st_blocks * 512, LEAST_ENTRY_BYTES)


def _threads(process: psutil.Process) -> int:
    try:
        return int(process.num_threads())
    except psutil.Error:
        return 0


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
