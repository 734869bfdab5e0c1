"""What passes between ptebot and a module that runs on another machine: a call as one argument, a log of its lines.

Stage 3 of the way of one request, on both sides of the wall. A container's log mixes standard output with standard
error, may be read twice and lose its end; so what runs there (``bot.sandbox.errand_end``) numbers every line, says
which stream it is of, and ends with a verdict that tells what it wrote. Everything that is read here is hostile: lines
without a number are somebody's words, numbers only grow, and sizes are bounded.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
import stat
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from bot.child import LOG_LINE_CHARACTERS, LOG_LINES, MAX_LINE_BYTES
from bot.errors import RemoteJobFailed
from bot.sandbox.call import Argument, Exit, Limits, Reads
from bot.sandbox.places import MOST_ENTRIES
from exporter.errors import PtebotError, all_errors

MARK = "ptebot"
MOST_INLINE_BYTES = 16 * 1024
"""Of a file that goes inside the argument."""
MOST_ARGUMENT_BYTES = 96 * 1024
"""Linux takes at most 128 KiB in one argument (execve(2), MAX_ARG_STRLEN)."""

Kind = Literal["read", "write", "file", "text"]


@dataclass(frozen=True, kw_only=True)
class Word:
    """One argument of the module, as the other side understands it."""

    kind: Kind
    value: str
    """The text, the path over there, or the name of an inline file."""
    content: str = ""
    """Of an inline file, in base64."""
    deliver: str = ""
    """Where what was written is copied to when the run has ended; '': it is written in its place."""
    texts: tuple[str, ...] = ()
    """As ``Reads.texts``."""


def inline(path: Path) -> Word | None:
    """A small file to go along; None for anything else."""
    try:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MOST_INLINE_BYTES:
            return None
        return Word(kind="file", value=path.name, content=base64.b64encode(path.read_bytes()).decode())
    except OSError:
        return None


def pack(module: str, words: Sequence[Word], limits: Limits) -> str:
    """The argument; raises RemoteJobFailed where it is longer than an argument can be."""
    text = json.dumps(
        {"module": module, "words": [asdict(word) for word in words], "limits": asdict(limits)}, sort_keys=True
    )
    if len(text) > MOST_ARGUMENT_BYTES:
        raise RemoteJobFailed(f"The arguments of {module} have {len(text):,} bytes, more than a remote job takes.")
    return text


def unpack(text: str) -> tuple[str, list[Word], Limits]:
    """The other side of ``pack``; it is our own text, so what is wrong with it is a defect."""
    data = json.loads(text)
    words = [Word(**{**word, "texts": tuple(word["texts"])}) for word in data["words"]]
    return data["module"], words, Limits(**data["limits"])


def decoded(word: Word) -> bytes:
    """An inline file's content."""
    try:
        return base64.b64decode(word.content, validate=True)
    except binascii.Error as error:
        raise ValueError(f"{word.value} is not base64") from error


def key_of(*parts: object) -> str:
    """A name for what a run is about: equal for equal parts (32 hex digits)."""
    return hashlib.sha256(json.dumps([repr(part) for part in parts]).encode()).hexdigest()[:32]


def facts_of(args: Sequence[Argument]) -> list[object]:
    """What tells the same inputs from others: hashes of small files, names, sizes and times of large ones."""
    return [_facts(arg.path) for arg in args if isinstance(arg, Reads)]


def _facts(path: Path) -> object:
    try:
        if path.is_dir():
            files = [(one.name, one.stat()) for one in sorted(path.iterdir()) if one.is_file()]
            return [(name, status.st_size, status.st_mtime_ns) for name, status in files]
        if path.stat().st_size <= MOST_INLINE_BYTES:
            return hashlib.sha256(path.read_bytes()).hexdigest()
        return [path.stat().st_size, path.stat().st_mtime_ns]
    except OSError:
        return None


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """The last line of a run that ended by itself."""

    exit: Exit | None
    """None: it failed before the module, or what it wrote was refused."""
    failure: PtebotError | None = None
    files: int = 0
    total_bytes: int = 0
    digest: str = ""
    """Of names and sizes of what was written."""


def verdict_line(ended: Exit, listing: Sequence[tuple[str, int]]) -> str:
    """Its text, without number and kind. The log's tail was told line by line and is left out."""
    data = {key: value for key, value in asdict(ended).items() if key != "log_tail"}
    return json.dumps({"exit": data, **_told(listing)})


def failure_line(error: PtebotError) -> str:
    """As ``verdict_line``, where there is no exit to tell of."""
    return json.dumps({"error": type(error).__name__, "what": error.what[:4000], "remedy": error.advice[:1000]})


def _told(listing: Sequence[tuple[str, int]]) -> dict[str, Any]:
    return {"files": len(listing), "bytes": sum(size for _, size in listing), "digest": digest(listing)}


def digest(listing: Sequence[tuple[str, int]]) -> str:
    """Of names and sizes in any order (64 hex digits)."""
    return hashlib.sha256(json.dumps(sorted(listing)).encode()).hexdigest()


def listing_of(folder: Path, prefix: str = "") -> list[tuple[str, int]]:
    """Names from ``folder`` and sizes in bytes of every file below it, links not followed; empty where it is none.

    Raises:
        RemoteJobFailed: it has more entries than an output can have.
    """
    found: list[tuple[str, int]] = []
    left = [(folder, prefix)]
    while left:
        directory, name = left.pop()
        try:
            entries = list(os.scandir(directory))
        except OSError:
            continue
        for entry in entries:
            status = entry.stat(follow_symlinks=False)
            if stat.S_ISDIR(status.st_mode):
                left.append((Path(entry.path), f"{name}{entry.name}/"))
            else:
                found.append((f"{name}{entry.name}", status.st_size))
        if len(found) + len(left) > MOST_ENTRIES:
            raise RemoteJobFailed(f"What was written has more than {MOST_ENTRIES:,} entries.")
    return found


@dataclass
class Reader:
    """Reads the log of one run, as often as it has to be read, and passes on what is new."""

    on_line: Callable[[bytes], None]
    on_log: Callable[[str], None]
    seen: int = 0
    """The number of the last line that was passed on."""
    verdict: Verdict | None = None
    tail: deque[str] = field(default_factory=lambda: deque(maxlen=LOG_LINES))
    strange: int = 0

    def line(self, text: str) -> None:
        """One line of the log, without its newline."""
        if len(text) > 2 * MAX_LINE_BYTES:
            return
        parts = text.split(" ", 3)
        if len(parts) != 4 or parts[0] != MARK or not (parts[1].isascii() and parts[1].isdigit()) or len(parts[1]) > 12:
            self._strange(text)
            return
        number = int(parts[1])
        if number <= self.seen:
            return
        self.seen = number
        kind, said = parts[2], parts[3]
        if kind == "o":
            if len(data := said.encode("utf-8", "replace")) <= MAX_LINE_BYTES:
                self.on_line(data)
        elif kind == "e":
            self._log(said)
        elif kind == "v" and self.verdict is None:
            self.verdict = _verdict(said)

    def exit(self) -> Exit:
        """How the run ended, by its verdict; raises what the other side raised, RemoteJobFailed where there is none."""
        if self.verdict is None:
            raise RemoteJobFailed(f"The job gave no verdict. The end of its log:\n{self.log_tail() or '(it is empty)'}")
        if self.verdict.failure is not None:
            raise self.verdict.failure
        assert self.verdict.exit is not None  # noqa: S101 - _verdict sets one of the two
        told = asdict(self.verdict.exit)
        return Exit(**{**told, "log_tail": self.log_tail()})

    def log_tail(self) -> str:
        return "\n".join(self.tail)

    def _strange(self, text: str) -> None:
        """The machine's own words, of a loader that fails or a kernel that kills: shown once, and not counted on."""
        self.strange += 1
        if text and self.strange <= LOG_LINES and text not in self.tail:
            self._log(text)

    def _log(self, text: str) -> None:
        text = text[:LOG_LINE_CHARACTERS]
        self.tail.append(text)
        self.on_log(text)


def _plain(value: object) -> str:
    """Without halves of surrogate pairs, which JSON may hold and no encoding takes."""
    return str(value).encode("utf-8", "replace").decode()


def _verdict(text: str) -> Verdict | None:
    """What a verdict says, as far as it has the right shape; None where it has not."""
    try:
        data = json.loads(text)
    except (ValueError, RecursionError):
        return None
    if not isinstance(data, dict):
        return None
    if isinstance(data.get("error"), str):
        classes = {cls.__name__: cls for cls in all_errors()}
        cls = classes.get(data["error"], RemoteJobFailed)
        what, remedy = _plain(data.get("what") or "It gave no reason.")[:4000], _plain(data.get("remedy") or "")[:1000]
        return Verdict(exit=None, failure=cls(what, remedy=remedy or None))
    told, files, total = data.get("exit"), data.get("files"), data.get("bytes")
    if not (isinstance(told, dict) and _count(files) and _count(total) and isinstance(data.get("digest"), str)):
        return None
    code, peak = told.get("code"), told.get("peak_bytes")
    if not isinstance(code, int) or isinstance(code, bool) or not -64 <= code <= 255:
        return None
    flags = [one.name for one in fields(Exit) if one.default is False]
    return Verdict(
        exit=Exit(
            code=code,
            log_tail="",
            peak_bytes=peak if _count(peak) else None,
            **{name: told.get(name) is True for name in flags},
        ),
        files=files or 0,
        total_bytes=total or 0,
        digest=data["digest"],
    )


def _count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 1 << 62
