"""A run's folder that another machine mounts too: what it reads put in, what it wrote taken out.

Stage 3 of the way of one request, on this side of the wall. In: paths of a call. Out: the same call in paths of the
other side, below ``in`` and ``out`` of a folder on storage that both have. What was written is the other side's word
until it lies here as plain files; whether all of it has arrived is told by its verdict.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

from bot.errors import OutputTooLarge, RemoteJobFailed
from bot.sandbox import errand, places, shared
from bot.sandbox.call import Argument, Writes
from bot.sandbox.errand import Verdict, Word
from bot.sandbox.privileges import User
from exporter.errors import DiskFull, OutputNotWritable
from exporter.staging import disk_is_full

CALLS = "calls"
ARRIVAL_SECONDS = 60.0
"""How long storage over a network may take to show what another machine wrote."""


class CallFolder:
    """``calls/NAME`` below the shared folder, with ``in`` and ``out``."""

    def __init__(self, root: Path, name: str) -> None:
        self.path = root / CALLS / name
        self.inputs, self.outputs = self.path / "in", self.path / "out"

    def renew(self, args: Sequence[Argument], uid: int) -> None:
        """Empty it, and put in what the other side reads; ``uid`` may write its ``out``.

        Raises:
            InvalidModelDirectory: as ``exporter.source.files_of`` says.
            DiskFull, OutputNotWritable: it cannot be made.
        """
        try:
            self.remove()
            self.inputs.mkdir(parents=True)
            self.outputs.mkdir()
            self.path.chmod(0o755)
            self.inputs.chmod(0o755)
            self.outputs.chmod(0o700)
            if os.geteuid() == 0:
                os.chown(self.outputs, uid, uid)
            for number, arg in enumerate(args):
                if not isinstance(arg, str | Writes):
                    folder = self.inputs / str(number)
                    folder.mkdir()
                    folder.chmod(0o755)
                    with suppress(FileNotFoundError):  # then it is not there either, and the module says so
                        places.stage(arg.path.resolve(strict=True), folder / arg.path.name, arg.texts)
        except OSError as error:
            if disk_is_full(error):
                raise DiskFull(f"{self.path} cannot take the input: {error.strerror}.") from None
            raise OutputNotWritable(f"{self.path} cannot be made: {error.strerror}.") from None

    @staticmethod
    def words(args: Sequence[Argument], inputs: str, outputs: str) -> list[Word]:
        """The arguments in paths of the other side."""
        words = []
        for number, arg in enumerate(args):
            if isinstance(arg, str):
                words.append(Word(kind="text", value=arg))
            elif isinstance(arg, Writes):
                words.append(Word(kind="write", value=f"{outputs}/{number}/{arg.path.name}"))
            else:
                words.append(Word(kind="read", value=f"{inputs}/{number}/{arg.path.name}", texts=arg.texts))
        return words

    def written(self) -> list[tuple[str, int]]:
        """Names (``number/name``) and sizes as the verdict counts them."""
        numbers = sorted((int(path.name), path) for path in self.outputs.glob("[0-9]*") if path.name.isdigit())
        return [entry for order, (_, path) in enumerate(numbers) for entry in errand.listing_of(path, f"{order}/")]

    def arrived(self, verdict: Verdict, pause: float) -> None:
        """Wait until everything that the verdict names is here.

        Raises:
            RemoteJobFailed: it does not come.
        """
        until = time.monotonic() + ARRIVAL_SECONDS
        while errand.digest(self.written()) != verdict.digest:
            if time.monotonic() > until:
                raise RemoteJobFailed(
                    f"The job wrote {verdict.files:,} files of {verdict.total_bytes:,} bytes, and others are in "
                    f"{self.outputs}: both machines have to mount the same storage.",
                )
            time.sleep(pause)

    def take(self, args: Sequence[Argument], most_bytes: int | None) -> None:
        """Put what was written in its place.

        Raises:
            OutputTooLarge: it is more than ``most_bytes``.
            OutputNotTrusted, OutputNotWritable, DiskFull: as ``bot.sandbox.places.take``.
        """
        if most_bytes is not None and sum(size for _, size in self.written()) > most_bytes:
            raise OutputTooLarge(f"The exporter wrote more than {most_bytes:,} bytes.")
        for number, arg in enumerate(args):
            if isinstance(arg, Writes):
                made = self.outputs / str(number) / arg.path.name
                with suppress(FileNotFoundError):
                    status = made.lstat()
                    places.take(User(uid=status.st_uid, gid=status.st_gid), made, arg.path)

    def remove(self) -> None:
        """It goes, with everything in it."""
        if self.path.is_symlink() or self.path.exists():
            shared.remove(self.path)


def sweep(root: Path, older_than: float, keep: frozenset[str] = frozenset()) -> list[str]:
    """Remove folders of calls that nobody came back for; their names.

    Args:
        older_than: seconds since they were made.
    """
    gone = []
    for path in (root / CALLS).glob("*"):
        with suppress(OSError):
            if path.name not in keep and time.time() - path.lstat().st_mtime > older_than:
                shutil.rmtree(path, ignore_errors=True)
                gone.append(path.name)
    return gone
