"""Runs a module for a ptebot on another machine: ``python -P -m bot.sandbox.errand_end CALL``.

Stage 3 of the way of one request, inside the wall. In: a call as ``bot.sandbox.errand`` packs it. Out: numbered lines
on standard output, the last of which is the verdict. The module runs as it does everywhere (``bot.child``): as an
unprivileged child without secrets and network, within its limits. What it wrote is copied to where the other side looks
for it only when all of it has ended: the places for that may be mounts over a network that know no renaming.
"""

from __future__ import annotations

import os
import shutil
import signal
import sys
import tempfile
import threading
from pathlib import Path
from types import FrameType

from bot import child
from bot.errors import OutputNotTrusted
from bot.sandbox import errand
from bot.sandbox.call import Argument, Call, Exit, Reads, Writes
from exporter.errors import DiskFull, OutputNotWritable, PtebotError
from exporter.staging import disk_is_full

TERMINATED = 143


class Lines:
    """Numbered lines on a stream that was standard output; nothing else of this process gets there."""

    def __init__(self) -> None:
        self._stream = os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8", errors="replace", newline="\n")
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        self._lock = threading.Lock()
        self._number = 0

    def say(self, kind: str, text: str) -> None:
        """One line; newlines of other kinds that readers of logs split at become spaces."""
        with self._lock:
            self._number += 1
            self._stream.write(f"{errand.MARK} {self._number} {kind} {' '.join(text.splitlines())}\n")
            self._stream.flush()


def run(packed: str, lines: Lines, stop: threading.Event) -> None:
    """Do the call, deliver what it wrote, say the verdict."""
    module, words, limits = errand.unpack(packed)
    with tempfile.TemporaryDirectory(prefix="ptebot-errand-") as scratch:
        args: list[Argument] = []
        delivered: list[tuple[Path, Path]] = []
        for number, word in enumerate(words):
            if word.kind == "text":
                args.append(word.value)
            elif word.kind == "read":
                args.append(Reads(Path(word.value), texts=word.texts))
            elif word.kind == "file":
                args.append(Reads(_written(Path(scratch, str(number)), word)))
            else:
                here = Path(scratch, str(number), Path(word.value).name) if word.deliver else Path(word.value)
                here.parent.mkdir(parents=True, exist_ok=True)
                args.append(Writes(here))
                delivered.append((here, Path(word.deliver or word.value)))
        ended = child.run_here(
            Call(module=module, args=args, limits=limits, stop=stop),
            on_line=lambda line: lines.say("o", line.decode("utf-8", "replace")),
            on_log=lambda text: lines.say("e", text),
            needed=True,
        )
        lines.say("v", errand.verdict_line(ended, _deliver(delivered, ended)))


def _written(folder: Path, word: errand.Word) -> Path:
    folder.mkdir()
    path = folder / Path(word.value).name
    path.write_bytes(errand.decoded(word))
    return path


def _deliver(places: list[tuple[Path, Path]], ended: Exit) -> list[tuple[str, int]]:
    """Copy files where they are looked for; names (``number/name``) and sizes of all of them.

    Raises:
        OutputNotTrusted: something in it is no plain file.
        DiskFull, OutputNotWritable: they cannot be put there.
    """
    listing: list[tuple[str, int]] = []
    for number, (here, there) in enumerate(places):
        for name, size in errand.listing_of(here.parent):
            source = here.parent / name
            if source.is_symlink() or not source.is_file():
                raise OutputNotTrusted(f"The exporter's output holds {name!r}, which is no plain file.")
            listing.append((f"{number}/{name}", size))
            if here != there and not ended.stopped:
                _copy(source, there.parent / name)
    return listing


def _copy(source: Path, target: Path) -> None:
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with source.open("rb") as reading, target.open("wb") as writing:
            shutil.copyfileobj(reading, writing, 1 << 20)
            writing.flush()
            os.fsync(writing.fileno())
    except OSError as error:
        if disk_is_full(error):
            raise DiskFull(f"{target} cannot take the output: {error.strerror}.") from None
        raise OutputNotWritable(f"{target} cannot take the output: {error.strerror}.") from None


def main() -> int:
    """The exit status: 0 once the verdict is said, whatever it says."""
    stop = threading.Event()

    def ended(number: int, frame: FrameType | None) -> None:
        stop.set()

    signal.signal(signal.SIGTERM, ended)
    lines = Lines()
    try:
        run(sys.argv[1], lines, stop)
    except PtebotError as error:
        lines.say("v", errand.failure_line(error))
    return TERMINATED if stop.is_set() else 0


if __name__ == "__main__":
    sys.exit(main())
