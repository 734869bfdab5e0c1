"""The files of a child that shares this process's user: what it may reach, and what it wrote put in its place.

Stage 3 of the way of one request, on the parent's side of the wall, where there is no other user to be had
(``bot.sandbox.places`` is for where there is). In: paths that the child shall read, and one that it shall write. Out:
the paths to hand to it and what Landlock or a mount has to open for them. Files are read where they are; what is
written lands in a folder of its own first, for nothing else beside it may be written.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from bot.sandbox import places
from bot.sandbox.privileges import User
from exporter.errors import DiskFull, OutputNotWritable
from exporter.staging import disk_is_full


class SharedRoom:
    """One child's folders; everything in them goes with ``close``. The same face as ``places.Room``."""

    def __init__(self) -> None:
        self._folders: list[Path] = []
        self.home = Path(tempfile.mkdtemp(prefix="ptebot-home-"))
        self._folders.append(self.home)

    def close(self) -> None:
        """Remove what is left. Only to be called when no process of the child's is left."""
        for folder in self._folders:
            remove(folder)

    def reading(self, path: Path, texts: Sequence[str] = ()) -> Path:
        """Where the child reads ``path``, a file or a directory: there."""
        return path.absolute()

    def writing(self, path: Path) -> Path:
        """Where the child writes what shall appear at ``path``.

        Raises:
            OutputNotWritable, DiskFull: nothing can be made beside it.
        """
        parent = path.absolute().parent
        try:
            folder = Path(tempfile.mkdtemp(prefix=".ptebot-", dir=parent))
        except OSError as error:
            if disk_is_full(error):
                raise DiskFull(f"{parent} cannot take the output: {error.strerror}.") from None
            raise OutputNotWritable(f"{parent} cannot take the output: {error.strerror}.") from None
        self._folders.append(folder)
        return folder / path.name

    def take(self, written: Path, path: Path) -> None:
        """As ``places.take``."""
        places.take(User(uid=os.geteuid(), gid=os.getegid()), written, path)


def opened(path: Path) -> list[str]:
    """What has to be open for a child to read ``path``: the file or directory itself, under its real name.

    In the Hugging Face cache files are links from ``snapshots/<revision>`` into ``blobs`` (``exporter.source``).
    """
    try:
        real = path.resolve(strict=True)
    except (OSError, RuntimeError):
        return []  # the child says that there is no such file
    holder = real if real.is_dir() else path.absolute().parent
    blobs = holder.parent.parent / "blobs"
    if holder.parent.name == "snapshots" and real.is_dir() and blobs.is_dir() and not blobs.is_symlink():
        return [str(real), str(blobs)]
    return [str(real)]


def remove(folder: Path) -> None:
    """Remove a folder in which somebody may have closed directories."""

    def open_it(act: Callable[..., object], name: str, _why: object) -> None:
        for one in (Path(name).parent, Path(name)):
            with suppress(OSError):
                if stat.S_ISDIR(one.lstat().st_mode) and one.is_relative_to(folder):
                    one.chmod(0o700)
        with suppress(OSError):
            act(name) if act is not os.open else shutil.rmtree(name, ignore_errors=True)

    shutil.rmtree(folder, onerror=open_it)
