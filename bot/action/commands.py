"""What the Action prints: a log that can carry GitHub's workflow commands, and text that never can. Stage 6.

In: words of ours, and text from models, events, exporters and libraries. Out: lines on one stream. GitHub's runner
reads commands from every line of a step's output: ``::name key=value::data`` at a line's start, and the older
``##[name]data`` anywhere in it. So commands leave through ``Log``'s own methods only; every other line goes through
``inert``, and a line that tried something is printed between ``::stop-commands::`` and its random token as well.

Syntax: docs.github.com, "Workflow commands for GitHub Actions"; how lines are cut and matched: ActionCommand.cs and
OutputManager.cs of actions/runner (lines end at CR too, white space before ``::`` is skipped, and the comparison
may skip characters that have no width).
"""

from __future__ import annotations

import base64
import io
import re
import secrets
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal, TextIO, cast
from urllib.parse import quote, quote_plus

from rich.console import Console as RichConsole

from bot.console import PLAIN_WIDTH, Console
from bot.publish.markdown import one_line

MAX_LINE = 4000
"""Characters of a printed line; a longer one is cut."""
MAX_HELD = 64 * 1024
"""Characters of a line that has not ended yet; the rest of such a line is dropped."""
MAX_MESSAGE = 4000
MAX_TITLE = 250
"""Characters of a title, a group's heading and a path."""
LEAST_LINE = 4
"""Characters of a line of a secret that is worth hiding: the brace of a JSON key is not."""
LEAST_SECRET = 8
"""Characters of what is hidden outside of the log too."""
HIDDEN = "***"
Level = Literal["notice", "warning", "error"]

_LINE_END = re.compile(r"\r\n|[\n\r\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
_UNCERTAIN = re.compile(r"[^!-~]")
"""Everything that a comparison by culture might skip, spaces included: only what is left is looked at."""
_LEGACY = re.compile(r"#(?=[^!-~]*#[^!-~]*\[)")
_TAB = str.maketrans({"\t": "    "})


def inert(line: str) -> str:
    """One line as text that is no command and steers no terminal; it stays legible."""
    seen = "".join(c if c.isprintable() else "\N{REPLACEMENT CHARACTER}" for c in line.translate(_TAB))
    if len(seen) > MAX_LINE:
        seen = f"{seen[:MAX_LINE]}… ({len(seen) - MAX_LINE:,} more characters)"
    seen = _LEGACY.sub("# ", seen)
    return f"> {seen}" if _UNCERTAIN.sub("", seen).startswith("::") else seen


def data(text: str) -> str:
    """A command's data, escaped as the toolkit does it."""
    return text.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")


def value(text: str) -> str:
    """A command's property, escaped as the toolkit does it."""
    return data(text).replace(":", "%3A").replace(",", "%2C")


def forms(secret: str) -> list[str]:
    """How a secret may appear: its lines, quoted for addresses, and in a Basic header; longest first."""
    lines = [line.strip() for line in _LINE_END.split(secret) if line.strip()]
    found = [secret.strip()]
    for line in lines if len(lines) == 1 else [line for line in lines if len(line) >= LEAST_LINE]:
        found.append(line)
        found += [quote(line), quote(line, safe=""), quote_plus(line)]
        for before in ("", "x-access-token:", "hf_user:"):
            found.append(base64.b64encode(f"{before}{line}".encode()).decode())
    return sorted({*found} - {""}, key=len, reverse=True)


class Log:
    """The step's log.

    Args:
        stream: where lines go.
        on_github: whether a runner reads them; else nothing is a command, and everything is printed plainly.
        debug: whether ``detail`` prints (``RUNNER_DEBUG``).
    """

    def __init__(self, stream: TextIO, *, on_github: bool, debug: bool = False) -> None:
        self._stream, self.on_github, self.debug = stream, on_github, debug
        self._lock = threading.RLock()
        self._hidden: list[str] = []
        self._stopped: str | None = None
        self._quiet = 0
        self._grouped = False

    @contextmanager
    def writing_to(self, stream: TextIO) -> Iterator[None]:
        """Another stream for the time of a ``with`` block."""
        with self._lock:
            before, self._stream = self._stream, stream
        try:
            yield
        finally:
            with self._lock:
                self._stream = before

    def say(self, text: str = "") -> None:
        """Print text of any origin, line by line."""
        lines = [self._without_secrets(line) for line in _LINE_END.split(text)]
        with self._lock:
            if self.on_github and not self._quiet and any(_suspicious(line) for line in lines):
                with self.quiet():
                    self._lines(inert(line) for line in lines)
            else:
                self._lines(inert(line) for line in lines)

    def detail(self, text: str) -> None:
        """The same, where the run was started with debug logging."""
        if self.debug:
            self.say(text)

    def mask(self, secret: str | None) -> None:
        """Never show this again, here and in every later step."""
        for form in forms(secret or ""):
            self._hidden = sorted({*self._hidden, form}, key=len, reverse=True)
            if self.on_github:
                self._command("add-mask", form)

    def notice(self, title: str, message: str, *, file: str = "", line: int | None = None) -> None:
        self.annotate("notice", title, message, file=file, line=line)

    def warning(self, title: str, message: str, *, file: str = "", line: int | None = None) -> None:
        self.annotate("warning", title, message, file=file, line=line)

    def error(self, title: str, message: str, *, file: str = "", line: int | None = None) -> None:
        self.annotate("error", title, message, file=file, line=line)

    def annotate(self, level: Level, title: str, message: str, *, file: str = "", line: int | None = None) -> None:
        """An annotation of the run, at a place of a file where there is one; its text may be of any origin."""
        title = self._title(title)
        message = self._message(message)
        if not self.on_github:
            self.say(f"{level.capitalize()}: {title}{f' ({file})' if file else ''}\n  " + message.replace("\n", "\n  "))
            return
        place = {"file": self._title(file), "line": str(line) if file and line else ""}
        self._command(level, message, {**place, "title": title})

    @contextmanager
    def group(self, title: str) -> Iterator[None]:
        """A part of the log that folds; nothing in it is read as a command. One in another is a line of it."""
        self.open_group(title)
        try:
            yield
        finally:
            self.close_group()

    def open_group(self, title: str) -> None:
        """Begin a group, after the end of the one that is open."""
        shown = self._title(title)
        with self._lock:
            self.close_group()
            if self.on_github:
                self._command("group", shown)
            else:
                self.say(f"== {shown}")
            self._grouped = True
            self._hush()

    def close_group(self) -> None:
        """End the group, where one is open."""
        with self._lock:
            if self._grouped:
                self._grouped = False
                self._unhush()
                if self.on_github:
                    self._command("endgroup", "")

    @contextmanager
    def quiet(self) -> Iterator[None]:
        """The runner reads no commands for the time of a ``with`` block, but ours."""
        self._hush()
        try:
            yield
        finally:
            self._unhush()

    def stream(self, descriptor: int | None = None) -> Lines:
        """A text stream whose lines go through ``say``; ``descriptor`` is one whose output does so too."""
        return Lines(self, descriptor)

    def console(self) -> Console:
        """The commands' console on this log: tables and words look as they do on a machine of one's own."""
        rich = RichConsole(
            file=cast(TextIO, self.stream()), width=PLAIN_WIDTH, highlight=False, markup=False, emoji=False
        )
        return Console(out=rich, err=rich)

    def _command(self, name: str, text: str, properties: dict[str, str] | None = None) -> None:
        given = ",".join(f"{key}={value(one)}" for key, one in (properties or {}).items() if one)
        with self._lock:
            stopped = self._stopped is not None
            if stopped:
                self._resume()
            self._lines([f"::{name}{' ' if given else ''}{given}::{data(text)}"])
            if stopped:
                self._stop()

    def _hush(self) -> None:
        with self._lock:
            self._quiet += 1
            if self._quiet == 1 and self.on_github:
                self._stop()

    def _unhush(self) -> None:
        with self._lock:
            self._quiet -= 1
            if self._quiet == 0 and self._stopped is not None:
                self._resume()

    def _stop(self) -> None:
        """A token is used once: whoever saw one in a log must not end a later block with it."""
        self._stopped = secrets.token_hex(16)
        self._lines([f"::stop-commands::{self._stopped}"])

    def _resume(self) -> None:
        self._lines([f"::{self._stopped}::"])
        self._stopped = None

    def _lines(self, lines: Iterable[str]) -> None:
        self._stream.write("".join(f"{line}\n" for line in lines))
        self._stream.flush()

    def _title(self, title: str) -> str:
        return _LEGACY.sub("# ", one_line(self._without_secrets(title), MAX_TITLE))

    def _message(self, message: str) -> str:
        lines = [
            _LEGACY.sub("# ", one_line(line, MAX_LINE)) for line in _LINE_END.split(self._without_secrets(message))
        ]
        whole = "\n".join(lines)
        return whole if len(whole) <= MAX_MESSAGE else whole[: MAX_MESSAGE - 1] + "…"

    def hide(self, text: str) -> str:
        """Text for elsewhere than the log without what is masked; a secret too short to be one would garble it."""
        for secret in self._hidden:
            text = text.replace(secret, HIDDEN) if len(secret) >= LEAST_SECRET else text
        return text

    def _without_secrets(self, text: str) -> str:
        for secret in self._hidden:
            text = text.replace(secret, HIDDEN)
        return text


def _suspicious(line: str) -> bool:
    bare = _UNCERTAIN.sub("", line)
    return bare.startswith("::") or "##[" in bare


class Lines(io.TextIOBase):
    """Collects writes into lines: half a line is no line yet, however it is cut."""

    encoding = "utf-8"

    def __init__(self, log: Log, descriptor: int | None = None) -> None:
        self._descriptor = descriptor
        self._log, self._rest, self._guard = log, "", threading.RLock()

    def writable(self) -> bool:
        return True

    def isatty(self) -> bool:
        return False

    def fileno(self) -> int:
        """For what writes past Python; io.UnsupportedOperation where there is no descriptor that is safe."""
        return super().fileno() if self._descriptor is None else self._descriptor

    def write(self, text: str) -> int:
        with self._guard:
            *lines, rest = (self._rest + text).split("\n")
            for line in lines:
                self._log.say(_last_picture(line))
            self._rest = rest if len(rest) <= MAX_HELD else rest[:MAX_HELD]
        return len(text)

    def drain(self) -> None:
        """Print the line that was begun."""
        with self._guard:
            if self._rest:
                self.write("\n")


def _last_picture(line: str) -> str:
    """What carriage returns leave of a line that was painted over and over, as progress bars are."""
    return line.rstrip("\r").rsplit("\r", 1)[-1]
