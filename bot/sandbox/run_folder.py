"""One container's folder on this machine: what it reads, what it writes, and who holds it.

Stage 3 of the way of one request, on the parent's side of the wall. In: paths to read, a user that will write. Out:
two folders to mount (``in``, read-only, and ``out``), and how much lies in the second, counted without following a
link. The folder bears a lock of the process that uses it, which the kernel opens when that process ends in any way: so
the next one knows whether a container that it finds is anybody's.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bot.errors import SandboxUnavailable
from bot.sandbox import places, privileges
from bot.sandbox.privileges import User
from exporter.errors import DiskFull
from exporter.staging import disk_is_full

PREFIX = "ptebot-run-"
ENDLESS = 1 << 62
"""More bytes than any limit: what is written cannot be counted any more."""
RESERVE_BYTES = 1 << 30
"""A disk with less than this, or than a fiftieth of it, is full: what is hidden from counting ends there."""
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Held(Exception):
    """Another living process has the folder. Never shown."""


class RunFolder:
    """A folder of ours with a lock on it; made by ``make`` or found by ``find``."""

    def __init__(self, path: Path, lock: int) -> None:
        self.path = path
        self.inputs, self.outputs = path / "in", path / "out"
        self._lock = lock
        self._staged = 0

    @classmethod
    def make(cls, base: Path, user: User) -> RunFolder:
        """A new one below ``base``, with an ``out`` that ``user`` may write.

        Raises:
            SandboxUnavailable: it cannot be made there.
        """
        try:
            path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=base))
            folder = cls(path, _locked(path))
            folder.inputs.mkdir()
            folder.inputs.chmod(0o755)
            folder.outputs.mkdir(mode=0o700)
            if os.geteuid() == 0:
                os.chown(folder.outputs, user.uid, user.gid)
        except OSError as error:
            raise SandboxUnavailable(f"{base} takes no folder for a container: {error.strerror}.") from None
        return folder

    @classmethod
    def find(cls, path: Path) -> RunFolder | None:
        """One that an earlier process of ours made; None where there is none any more.

        Raises:
            Held: that process lives.
        """
        try:
            status = path.lstat()
            ours = stat.S_ISDIR(status.st_mode) and status.st_uid == os.geteuid() and path.name.startswith(PREFIX)
            return cls(path, _locked(path)) if ours and (path / "out").is_dir() else None
        except OSError:
            return None

    def stage(self, path: Path, texts: Sequence[str] = ()) -> str:
        """Put a file or a model directory within the container's reach; its place below ``in``.

        What does not exist is not there in the container either, and the module says so.

        Raises:
            InvalidModelDirectory: as ``exporter.source.files_of`` says.
            DiskFull: there is no room for a copy.
        """
        self._staged += 1
        place = f"{self._staged}/{path.name}"
        target = self.inputs / place
        target.parent.mkdir()
        target.parent.chmod(0o755)
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return place
        try:
            places.stage(real, target, texts)
        except OSError as error:
            if disk_is_full(error):
                raise DiskFull(f"{path} cannot be copied for the container: {error.strerror}.") from None
            raise
        return place

    def written_bytes(self) -> int:
        """Of everything in ``out``; ``ENDLESS`` where it has more entries or levels than any output, or hides them."""
        try:
            descriptor = os.open(self.outputs, _OPEN_DIRECTORY)
            try:
                return _Count().below(descriptor, 0)
            finally:
                os.close(descriptor)
        except (_Uncountable, PermissionError):
            return ENDLESS

    def is_nearly_full(self) -> bool:
        """Whether its disk has next to nothing left."""
        usage = shutil.disk_usage(self.path)
        return usage.free < min(RESERVE_BYTES, usage.total // 50)

    def release(self) -> None:
        """Let the next process have it, as if this one had ended."""
        os.close(self._lock)

    def remove(self) -> None:
        """Everything in it goes. Only to be called when no process of the container is left."""
        _open_up(self.path)
        shutil.rmtree(self.path, ignore_errors=True)
        self.release()


class _Uncountable(Exception):
    """More than can be an output."""


class _Count:
    entries = 0

    def below(self, directory: int, level: int) -> int:
        total = 0
        for name in os.listdir(directory):
            self.entries += 1
            if self.entries > places.MOST_ENTRIES or level > places.MOST_LEVELS + 1:
                raise _Uncountable
            try:
                status = os.stat(name, dir_fd=directory, follow_symlinks=False)
                total += max(status.st_size, status.st_blocks * 512)  # a hole counts: a copy would fill it
                if stat.S_ISDIR(status.st_mode):
                    descriptor = os.open(name, _OPEN_DIRECTORY, dir_fd=directory)
                    try:
                        total += self.below(descriptor, level + 1)
                    finally:
                        os.close(descriptor)
            except PermissionError:
                raise _Uncountable from None
            except OSError:
                continue  # it went, or became something else, since it was listed
        return total


def _open_up(folder: Path) -> None:
    """Directories that were closed to their own user, who is us where ptebot is not root, could not be removed."""
    if os.geteuid() == 0:
        return
    for root, directories, _ in os.walk(folder):
        for name in directories:
            path = Path(root, name)
            if not path.is_symlink():
                with suppress(OSError):
                    path.chmod(0o700)


def _locked(path: Path) -> int:
    descriptor = os.open(path, _OPEN_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        raise Held from None
    return descriptor


def near(disk_of: Path | None) -> Path:
    """A usual place for temporary folders, on the disk of a path where there is one."""
    named = os.environ.get("TMPDIR")
    usual = [Path(place).resolve() for place in (named, "/var/tmp", "/tmp") if place]  # noqa: S108 - mkdtemp makes the name
    fitting = [place for place in usual if place.is_dir() and os.access(place, os.W_OK)]
    if not fitting:
        raise SandboxUnavailable(f"Nothing can be written to any of {', '.join(map(str, usual))}.")
    if disk_of is None:
        return fitting[0]
    disk = next(above for above in (disk_of, *disk_of.parents) if above.exists()).stat().st_dev
    return next((place for place in fitting if place.stat().st_dev == disk), fitting[0])


def container_user() -> User:
    """Who the container's processes are: a number of nobody's, or ptebot's own where only that lets it take files.

    On root's machines other rungs end every process of their user's numbers, so a container gets none of those.
    """
    if os.geteuid() != 0:
        return User(uid=os.getuid(), gid=os.getgid())
    planned = privileges.plan().user
    taken = range(planned.uid, planned.uid + privileges.SLOTS) if planned else range(0)
    uid = next(number for number in (10001, 10101) if number not in taken)
    return User(uid=uid, gid=uid)


def sweep(base: Path, older_than: float, *, but: set[Path]) -> None:
    """Remove folders below ``base`` that nobody holds and that were made longer ago than so many seconds."""
    for path in base.glob(f"{PREFIX}*"):
        with suppress(OSError, Held):
            old = time.time() - path.lstat().st_mtime > older_than
            if old and path not in but and (folder := RunFolder.find(path)) is not None:
                folder.remove()
