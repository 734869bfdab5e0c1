"""Write a directory as a whole or not at all.

Everything is written into a hidden sibling of the output directory and moved into place by one rename, so a
kill at any moment leaves either nothing under the output's name or all of it.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from exporter.errors import DiskFull, OutputNotEmpty, OutputNotWritable


def check_empty(out_dir: Path) -> None:
    """Refuse an output directory that holds anything.

    Raises:
        OutputNotEmpty: it exists and is a file or a directory with entries.
        OutputNotWritable: it cannot be looked into, or is where a disk is mounted, which nothing can replace.
    """
    with _not_writable_is_typed(out_dir):
        _check_empty(out_dir)


def _check_empty(out_dir: Path) -> None:
    if out_dir.is_symlink() or out_dir.is_file():
        raise OutputNotEmpty(f"{out_dir} is a file or a link, not a directory.")
    if out_dir.is_dir() and (found := next(iter(sorted(out_dir.iterdir())), None)) is not None:
        raise OutputNotEmpty(f"{out_dir} is not empty: it holds {found.name}.")
    if out_dir.is_mount():
        raise OutputNotWritable(
            f"{out_dir} is where a disk is mounted: it cannot appear as a whole.", remedy="Name a directory below it."
        )


@contextmanager
def _not_writable_is_typed(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if disk_is_full(error):
            raise
        raise OutputNotWritable(f"{path} cannot be written: {error.strerror}.") from None


def check_space(out_dir: Path, needed_bytes: int) -> None:
    """Refuse when the disk of ``out_dir`` has less than ``needed_bytes`` free.

    Raises:
        DiskFull: with both figures.
    """
    parent, free = _existing(out_dir), free_bytes(out_dir)
    if free < needed_bytes:
        raise DiskFull(
            f"The export may need {needed_bytes / 1e6:,.0f} MB below {parent}, where {free / 1e6:,.0f} MB are free."
        )


def free_bytes(out_dir: Path) -> int:
    """Of the disk that ``out_dir`` is on, or will be."""
    return shutil.disk_usage(_existing(out_dir)).free


def _existing(path: Path) -> Path:
    return next(one for one in (path.absolute(), *path.absolute().parents) if one.is_dir())


@contextmanager
def staged(out_dir: Path) -> Iterator[Path]:
    """A directory to write into; moved to ``out_dir`` when the block ends well, removed when it does not.

    Raises:
        DiskFull: the disk ran full while writing.
        OutputNotWritable: nothing can be written beside ``out_dir``.
        OutputNotEmpty: something appeared in ``out_dir`` meanwhile.
    """
    out_dir = Path(os.path.abspath(out_dir))  # noqa: PTH100 (the name of "." and "..", links left as they are)
    check_empty(out_dir)
    with disk_full_is_typed(out_dir), _not_writable_is_typed(out_dir):
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{out_dir.name}.", suffix=".partial", dir=out_dir.parent))
    try:
        with disk_full_is_typed(out_dir):
            yield work
            _open_to_all(work)
            check_empty(out_dir)
            os.replace(work, out_dir)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _open_to_all(directory: Path) -> None:
    """Let everybody read it. Through a descriptor: in a sandbox no file's mode may be set by its name."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fchmod(descriptor, 0o755)
    finally:
        os.close(descriptor)


def disk_is_full(error: BaseException) -> bool:
    """Whether an error says that the disk, a quota or the largest allowed file is full."""
    return isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


@contextmanager
def disk_full_is_typed(out_dir: Path) -> Iterator[None]:
    """Turn "no space left" into ``DiskFull``; every other error passes."""
    try:
        yield
    except OSError as error:
        if disk_is_full(error):
            raise DiskFull(f"The disk of {out_dir} ran full ({error.strerror}); nothing was left behind.") from None
        raise
