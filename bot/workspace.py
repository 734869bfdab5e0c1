"""Where ``ptebot run`` keeps what a kill must not cost: finished exports whole, half-written ones never seen.

Stage 3 of the way of one request. In: a repository's name and a key for one export of it. Out: a finished
export from an earlier run that still proves itself, or a fresh directory to export into. A finished export
appears under its key by one rename; everything else in the repository's folder is somebody's half-written
attempt and goes as soon as the folder's lock is ours. The lock dies with its process, and an exporter dies
with its parent (``bot.leash``), so whoever holds the lock is alone.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from bot import export_process
from bot.errors import OutputNotTrusted
from exporter.report import Report

LOCK = "lock"
KEPT_SECONDS = 14 * 24 * 3600
"""A finished export that nobody published for so long is of a model that moved on."""
_ATTEMPT = ".attempt-"
_UNSAFE = re.compile(r"[^A-Za-z0-9._-]+")


def default_root() -> Path:
    """``$PTEBOT_STATE``, or ``ptebot`` in the user's cache directory."""
    named = os.environ.get("PTEBOT_STATE")
    if named:
        return Path(named)
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "ptebot"


class Workspace:
    """The folder of one repository; used inside ``open_workspace``, which holds its lock."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def finished(self, key: str) -> tuple[Path, Report] | None:
        """The export of that key from an earlier run, if it is whole; one that is not is removed."""
        path = self._folder / key
        if not path.is_dir():
            return None
        try:
            return path, export_process.load_output(path)
        except OutputNotTrusted:
            shutil.rmtree(path)
            return None

    def make(self, key: str, export: Callable[[Path], Report]) -> tuple[Path, Report]:
        """Let ``export`` write into a fresh directory, then put it in its place by one rename.

        What an ``export`` that raises has written goes at once.
        """
        attempt = Path(tempfile.mkdtemp(prefix=_ATTEMPT, dir=self._folder))
        try:
            report = export(attempt / "out")
            path = self._folder / key
            (attempt / "out").replace(path)
        finally:
            shutil.rmtree(attempt, ignore_errors=True)
        return path, report

    def scratch(self, name: str) -> Path:
        """A path of that name that is free now, and goes with the other half-written attempts after a kill."""
        path = self._folder / f"{_ATTEMPT}{name}"
        shutil.rmtree(path, ignore_errors=True)
        return path

    def discard(self, key: str) -> None:
        """Remove the export of that key: it is published, or of no use."""
        shutil.rmtree(self._folder / key, ignore_errors=True)


@contextmanager
def open_workspace(root: Path, repository: str, *, waiting: Callable[[], None] = lambda: None) -> Iterator[Workspace]:
    """The repository's workspace under ``root``, for one process at a time.

    ``waiting`` is called once when another process has it.
    """
    digest = hashlib.sha256(repository.encode()).hexdigest()[:12]
    folder = root / "work" / f"{_UNSAFE.sub('--', repository)[-80:]}-{digest}"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    lock = FileLock(folder / LOCK)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        waiting()
        lock.acquire()
    try:
        for left in folder.iterdir():
            if left.name.startswith(_ATTEMPT) or (left.is_dir() and time.time() - left.stat().st_mtime > KEPT_SECONDS):
                shutil.rmtree(left)
        yield Workspace(folder)
    finally:
        lock.release()
