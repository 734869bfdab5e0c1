"""The files of a child that is another user: what it reads put within its reach, what it wrote taken from it.

Stage 3 of the way of one request, on the parent's side of the wall. In: paths that the child shall read, and one that
it shall write. Out: paths to hand to the child, and afterwards the output under its own name, owned by this process's
user. What every user may read already is read where it is. Anything else is linked (no bytes are copied) or copied
into a folder of root's that the child may look into. The child writes into a folder of its own; nobody looks there
before all of its processes have ended (``privileges.held``), and then without following a link.
"""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from collections.abc import Sequence
from pathlib import Path

from bot.errors import OutputNotTrusted, SandboxUnavailable
from bot.sandbox import privileges
from bot.sandbox.privileges import User
from exporter import calibration_files
from exporter.errors import DiskFull, OutputNotWritable
from exporter.staging import disk_is_full

MOST_ENTRIES = 10_000
"""Of an output; one export makes some dozens."""
MOST_LEVELS = 8
_OPEN_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_OPEN_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Room:
    """One child's folders; everything in them goes with ``close``."""

    def __init__(self, user: User) -> None:
        self._user = user
        self._folders: list[Path] = []
        self.home = self._folder(Path("/"), "home", theirs=True)

    def close(self) -> None:
        """Remove what is left. Only to be called when no process of the user is left."""
        for folder in self._folders:
            shutil.rmtree(folder, ignore_errors=True)

    def reading(self, path: Path, texts: Sequence[str] = ()) -> Path:
        """Where the child reads ``path``, a file or a directory; of a directory, ``texts`` below its top too.

        Raises:
            InvalidModelDirectory: as ``exporter.source.files_of`` says; a link that leads out of it, for one.
            DiskFull: there is no room for a copy.
        """
        path = path.absolute()
        try:
            real = path.resolve(strict=True)
        except (OSError, RuntimeError):
            return path  # the child says that there is no such file
        if _in_reach(self._user, real, texts):
            return real if real.name == path.name else path
        try:
            target = self._folder(real, "in") / path.name
            stage(real, target, texts)
        except OSError as error:
            if disk_is_full(error):
                raise DiskFull(
                    f"{path} cannot be copied to where the exporter may read it: {error.strerror}."
                ) from None
            raise
        return target

    def writing(self, path: Path) -> Path:
        """Where the child writes what shall appear at ``path``."""
        return self._folder(path.absolute().parent, "out", theirs=True) / path.name

    def take(self, written: Path, path: Path) -> None:
        """As the function ``take``."""
        take(self._user, written, path)

    def _folder(self, near: Path, name: str, *, theirs: bool = False) -> Path:
        """A new folder that the child can reach, on the disk of ``near`` where one of the usual places is on it."""
        base = _base(self._user, near)
        outer = Path(tempfile.mkdtemp(prefix="ptebot-", dir=base))
        self._folders.append(outer)
        outer.chmod(0o711)
        folder = outer / name
        folder.mkdir(mode=0o700 if theirs else 0o755)
        if theirs:
            os.chown(folder, self._user.uid, self._user.gid)
        else:
            folder.chmod(0o755)
        return folder


def take(user: User, written: Path, path: Path) -> None:
    """Make this process's user the owner of what ``user`` has ``written``, and move it to ``path``.

    Only to be called when no process of the user can reach it any more. Nothing happens where nothing was written.

    Raises:
        OutputNotTrusted: it holds anything else than plain files and directories of the user's own.
        OutputNotWritable, DiskFull: it cannot be put there.
    """
    if not os.path.lexists(written):
        return
    seen = _Count()
    try:
        parent = os.open(written.parent, _OPEN_DIRECTORY)
        try:
            _take(parent, written.name, user, seen, 0)
        finally:
            os.close(parent)
        shutil.move(written, path)
    except OSError as error:
        if disk_is_full(error):
            raise DiskFull(f"{path} cannot take the output: {error.strerror}.") from None
        raise OutputNotWritable(f"{path} cannot take the output: {error.strerror}.") from None


def stage(real: Path, target: Path, texts: Sequence[str] = ()) -> None:
    """Put a file, or the files at the top of a model directory, at ``target``, where every user may read them.

    Raises:
        InvalidModelDirectory: as ``exporter.source.files_of`` says.
        InvalidCalibration: as ``exporter.calibration_files.find`` says of one of ``texts``.
        OSError: there is no room, or something cannot be read.
    """
    if not real.is_dir():
        _stage_file(real, target)
        return
    target.mkdir(mode=0o755)
    target.chmod(0o755)
    # What no export reads stays out of sight: a directory in somebody's workspace may hold anything.
    for name, file in _files_of(real).items():
        if not name.startswith("."):
            _stage_file(file.resolve(), target / name)
    for name in texts:
        file = target
        for part in name.split("/")[:-1]:
            file /= part
            file.mkdir(mode=0o755, exist_ok=True)
            file.chmod(0o755)
        if not (target / name).exists():
            _stage_file(calibration_files.find(real, name), target / name)


def _stage_file(real: Path, target: Path) -> None:
    status = real.stat()
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o004 and not status.st_mode & 0o022:
        try:
            os.link(real, target)
            return
        except OSError:
            pass  # another disk, or one without links
    shutil.copyfile(real, target)
    target.chmod(0o644)


class _Count:
    entries = 0


def _take(parent: int, name: str, user: User, seen: _Count, level: int) -> None:
    """Give one entry and all below it to this process's user; whatever it is, nothing outside is touched."""
    seen.entries += 1
    if seen.entries > MOST_ENTRIES or level > MOST_LEVELS:
        raise OutputNotTrusted(f"The exporter's output has more than {MOST_ENTRIES:,} entries, or is too deep.")
    status = os.stat(name, dir_fd=parent, follow_symlinks=False)
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        raise OutputNotTrusted(f"The exporter's output holds {name!r}, which is neither a file nor a directory.")
    is_directory = stat.S_ISDIR(status.st_mode)
    descriptor = os.open(name, _OPEN_DIRECTORY if is_directory else _OPEN_FILE, dir_fd=parent)
    try:
        status = os.fstat(descriptor)
        if status.st_uid != user.uid or (not is_directory and status.st_nlink != 1):
            raise OutputNotTrusted(f"The exporter's output holds {name!r}, which is a file from elsewhere.")
        privileges.own(descriptor, None)
        if is_directory:
            for entry in os.listdir(descriptor):  # noqa: PTH208 - pathlib knows no descriptors
                _take(descriptor, entry, user, seen, level + 1)
    finally:
        os.close(descriptor)


def _base(user: User, near: Path) -> Path:
    """A temporary directory that the user can reach, on the disk of ``near`` if there is one.

    Raises:
        SandboxUnavailable: there is none.
    """
    named = os.environ.get("TMPDIR")
    places = [Path(place).resolve() for place in (named, "/var/tmp", "/tmp") if place]  # noqa: S108 - mkdtemp makes the name
    fitting = [place for place in places if place.is_dir() and _may_enter(user, place)]
    if not fitting:
        raise SandboxUnavailable(f"User {user.uid} may enter none of {', '.join(map(str, places))}.")
    disk = next(above for above in (near, *near.parents) if above.exists()).stat().st_dev
    return next((place for place in fitting if place.stat().st_dev == disk), fitting[0])


def _may_enter(user: User, folder: Path) -> bool:
    return all(privileges.allowed(user, above.stat(), 1) for above in (folder, *folder.parents))


def _in_reach(user: User, real: Path, texts: Sequence[str] = ()) -> bool:
    """Whether the user can read a file, or what an export reads of a model directory, and change none of it."""
    if not _may_enter(user, real.parent):
        return False
    if not real.is_dir():
        return real.is_file() and _readable(user, real)
    files = [path.resolve() for path in _files_of(real).values()]
    files += [calibration_files.find(real, name) for name in texts]
    return _readable(user, real) and all(_may_enter(user, path.parent) and _readable(user, path) for path in files)


def _files_of(directory: Path) -> dict[str, Path]:
    from exporter import source  # imports transformers, which takes seconds

    return source.files_of(directory)


def _readable(user: User, path: Path) -> bool:
    status = path.stat()
    wanted = 5 if stat.S_ISDIR(status.st_mode) else 4
    return privileges.allowed(user, status, wanted) and not privileges.allowed(user, status, 2)
