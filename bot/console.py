"""What a person or a machine sees of a command: progress, words, one JSON document, errors.

In: progress, text and data from the commands. Out: for a person, words and tables on stdout, progress on
stderr (a bar on a terminal, plain lines with elapsed seconds otherwise); with ``--json``, exactly one JSON
document on stdout and everything else on stderr. Text from a model is cleaned of control characters, so
that a model's name cannot steer the terminal.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from rich.console import Console as RichConsole
from rich.console import RenderableType
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn
from rich.progress import Progress as RichProgress
from rich.table import Column
from rich.text import Text

from bot.export_process import Progress
from exporter.errors import PtebotError

PLAIN_WIDTH = 150
"""Columns of a table where no terminal says how wide it is."""
SIGN_OF_LIFE_SECONDS = 10.0
"""Between two plain lines of one stage that counts."""
SILENCE_SECONDS = 60.0
"""Lowering a real model says nothing for minutes; a log that stands still looks like a hang."""


def clean(text: str) -> str:
    """The text without control, escape and bidi characters; newlines stay."""
    return "".join(
        character if character.isprintable() or character == "\n" else "\N{REPLACEMENT CHARACTER}" for character in text
    )


def _console(*, stderr: bool) -> RichConsole:
    stream = sys.stderr if stderr else sys.stdout
    return RichConsole(
        stderr=stderr, width=None if stream.isatty() else PLAIN_WIDTH, highlight=False, markup=False, emoji=False
    )


@dataclass
class Console:
    """One command's output."""

    json_mode: bool = False
    debug: bool = False
    verbose: bool = False
    out: RichConsole = field(default_factory=lambda: _console(stderr=False))
    err: RichConsole = field(default_factory=lambda: _console(stderr=True))
    _document: dict[str, Any] = field(default_factory=dict)

    def say(self, text: RenderableType = "") -> None:
        """Words or a table for a person; on stderr when a machine reads stdout."""
        target = self.err if self.json_mode else self.out
        target.print(Text(clean(text)) if isinstance(text, str) else text, soft_wrap=isinstance(text, str))

    def log(self, line: str) -> None:
        """A line of the exporter's log; shown with ``--verbose`` only."""
        if self.verbose:
            self.err.print(Text(clean(line), style="dim"), soft_wrap=True)

    def document(self, **parts: Any) -> None:
        """Add to the one JSON document of this command; ``finish`` prints it."""
        self._document.update(parts)

    def finish(self) -> None:
        """Print the JSON document, where one is wanted; once, as the last thing."""
        if self.json_mode:
            print(json.dumps(self._document, indent=2, ensure_ascii=False), flush=True)

    def error(self, error: PtebotError) -> None:
        """A failure that we can explain."""
        self.document(error=describe(error))
        self._complain(error.title, f"{error.what}\n  What to do: {error.advice}" if error.advice else error.what)

    def ended(self, name: str, exit_code: int, text: str, remedy: str = "") -> None:
        """An end that is no PtebotError: wrong usage, Ctrl-C, SIGTERM."""
        self.document(error=_error(name, exit_code, name, text, remedy))

    def unexpected(self, error: BaseException) -> None:
        """A failure that is a defect of ours."""
        what = f"{type(error).__name__}: {error}"
        self.document(error=_error(type(error).__name__, 1, PtebotError.title, what, PtebotError.remedy))
        self._complain(
            PtebotError.title, f"{what}\n  What to do: {PtebotError.remedy} --debug shows where it happened."
        )
        if self.debug:
            self.err.print_exception()

    def _complain(self, title: str, text: str) -> None:
        self.err.print(Text.assemble(("Error: ", "bold red"), (clean(title), "bold")), soft_wrap=True)
        self.err.print(Text(f"  {clean(text)}"), soft_wrap=True)

    @contextmanager
    def progress(self) -> Iterator[Callable[[Progress], None]]:
        """A function that shows each progress line, for the time of a ``with`` block."""
        way = _bar if self.err.is_terminal and not self.json_mode else _plain_lines
        with way(self.err) as show:
            yield show


def describe(error: PtebotError) -> dict[str, Any]:
    """An error as JSON data."""
    return _error(type(error).__name__, error.exit_code, error.title, error.what, error.advice)


def _error(name: str, exit_code: int, title: str, what: str, remedy: str) -> dict[str, Any]:
    return {"class": name, "exit_code": exit_code, "title": title, "what": what, "remedy": remedy}


def _label(item: Progress) -> str:
    cell = " ".join(part for part in (item.backend, item.precision) if part)
    return clean("  ".join(part for part in (item.stage, cell, item.message) if part))


@contextmanager
def _plain_lines(console: RichConsole) -> Iterator[Callable[[Progress], None]]:
    """One line for each new stage of each cell, and a sign of life in a long one: a log, not a film."""
    started = time.monotonic()
    stage, last, shown = "", "", started
    ended = threading.Event()

    def line(label: str, fraction: float | None = None) -> None:
        nonlocal shown
        shown = time.monotonic()
        percent = "     " if fraction is None else f"{fraction:4.0%} "
        console.print(Text(f"[{shown - started:7.1f} s] {percent}{label}"), soft_wrap=True)

    def show(item: Progress) -> None:
        nonlocal stage, last
        label, key = _label(item), f"{item.stage} {item.backend} {item.precision}"
        counting = key == stage and item.fraction is not None
        if label != last and not (counting and time.monotonic() - shown < SIGN_OF_LIFE_SECONDS):
            stage, last = key, label
            line(label, item.fraction)

    def live() -> None:
        while not ended.wait(1.0):
            if time.monotonic() - shown >= SILENCE_SECONDS:
                line(f"still at it: {last}" if last else "still at it")

    threading.Thread(target=live, name="sign of life", daemon=True).start()
    try:
        yield show
    finally:
        ended.set()


@contextmanager
def _bar(console: RichConsole) -> Iterator[Callable[[Progress], None]]:
    columns = (
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False, table_column=Column(no_wrap=True, overflow="ellipsis")),
    )
    with RichProgress(*columns, console=console, transient=True) as bar:
        task = bar.add_task("starting", total=1.0)

        def show(item: Progress) -> None:
            bar.update(task, description=_label(item).replace("\n", " "), completed=item.fraction)

        yield show
