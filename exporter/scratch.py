"""Rows of numbers too many for memory, in a file that nobody else sees and that is gone with its process."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import torch

from exporter import staging


class Rows:
    """Rows [width] of float32, written once and read again in any order.

    They are read and not mapped: a mapped file counts as the process's memory, page by page as it is looked at.

    Args:
        directory: where the file lies; default: the usual place for temporary files or the working directory, whichever
            has more room. In a sandbox the former may be a few megabytes of memory.

    Raises:
        DiskFull: the file cannot be made for want of room.
    """

    def __init__(self, width: int, directory: Path | None = None) -> None:
        self._width, self._rows = width, 0
        self.directory = directory or max(_places(), key=_free)
        with staging.disk_full_is_typed(self.directory):
            self._file = tempfile.TemporaryFile(dir=self.directory)  # noqa: SIM115 (it lives as long as this)

    @property
    def free_bytes(self) -> int:
        """Of the file's disk."""
        return _free(self.directory)

    def append(self, rows: torch.Tensor) -> int:
        """Add ``rows`` [N, width]; gives the number of the first one. Raises DiskFull."""
        first = self._rows
        with staging.disk_full_is_typed(self.directory):
            self._file.seek(0, os.SEEK_END)
            self._file.write(rows.contiguous().numpy().data)
            self._file.flush()
        self._rows += len(rows)
        return first

    def read(self, first: int, count: int) -> torch.Tensor:
        """Rows ``first`` to ``first + count``, [count, width]."""
        if not 0 <= first <= first + count <= self._rows:
            raise IndexError(f"rows {first} to {first + count} of {self._rows}")
        found = torch.empty(count, self._width)
        if count:
            self._file.seek(4 * self._width * first)
            self._file.readinto(found.numpy().data.cast("B"))
        return found


def _places() -> list[Path]:
    usual = Path(tempfile.gettempdir())
    here = Path.cwd()
    return [usual, here] if os.access(here, os.W_OK) else [usual]


def _free(directory: Path) -> int:
    return shutil.disk_usage(directory).free
