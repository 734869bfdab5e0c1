"""What a job's state, trigger, times and sizes are called on the pages: records in, words out. Pure.

Nothing here is escaped: the templates do that.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from bot.server.records import Asked, Asker, JobRecord, State


@dataclass(frozen=True)
class StateWords:
    """A state for a person: its name, a sentence, its colour's class and a sign that does without colour."""

    name: str
    sentence: str
    tone: str
    sign: str


# To add a state: its name in bot/server/records.py, and its line here.
STATES: Mapping[State, StateWords] = {
    "queued": StateWords("Waiting", "It waits for its turn.", "calm", "◷"),
    "running": StateWords("Running", "It is being worked on.", "busy", "▶"),
    "passed": StateWords("Passed", "Every file was proven and is offered.", "good", "✓"),
    "partial": StateWords(
        "Partly passed", "Some files were proven and are offered; the others say why not.", "warn", "◐"
    ),
    "failed": StateWords("Failed", "No file passed, so nothing is offered.", "bad", "✕"),
    "unchanged": StateWords("Nothing to do", "What is published covers this commit already.", "calm", "="),
    "superseded": StateWords("Replaced", "A newer commit took its place.", "calm", "↷"),
    "cancelled": StateWords("Cancelled", "Somebody ended it.", "calm", "⊘"),
    "error": StateWords("Error", "It could not be done.", "bad", "!"),
}
TRIGGERS = {
    "webhook": "a push",
    "comment": "a comment",
    "sweep": "the regular look",
    "form": "the form",
    "cli": "the command line",
}
OPERATIONS = {
    "created": "opened",
    "updated": "refreshed",
    "unchanged": "was up to date",
    "none": "not needed",
}
"""What publishing did with the pull request."""


def asker(one: Asker) -> str:
    """``a comment · acme``."""
    return f"{TRIGGERS.get(one.trigger, one.trigger)}{f' · {one.name}' if one.name else ''}"


def options(asked: Asked) -> list[tuple[str, str]]:
    """What was asked for beside the repository, as names and values."""
    return [
        (name.replace("_", " "), ", ".join(map(str, value)) if isinstance(value, list | tuple) else str(value))
        for name, value in sorted(asked.options.items())
    ]


def seconds(record: JobRecord, now: float | None = None) -> float | None:
    """How long it ran, or runs so far; None before its start."""
    if record.started_at is None:
        return None
    return max((record.ended_at or now or time.time()) - record.started_at, 0.0)


def duration(value: float | None) -> str:
    """``4.2 s``, ``3 min 07 s``, ``2 h 05 min``."""
    if value is None:
        return "–"
    if value < 9.95:
        return f"{value:.1f} s"
    minutes, rest = divmod(round(value), 60)
    if minutes == 0:
        return f"{rest} s"
    if minutes < 60:
        return f"{minutes} min {rest:02d} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes:02d} min"


def ago(stamp: float | None, now: float | None = None) -> str:
    """``just now``, ``4 min ago``, ``2 days ago``; ``–`` for None."""
    if stamp is None:
        return "–"
    passed = (now or time.time()) - stamp
    if passed < 5:
        return "just now"
    if passed < 60:
        return f"{passed:.0f} s ago"
    for unit, size, limit in (("min", 60, 3600), ("h", 3600, 86400)):
        if passed < limit:
            return f"{passed // size:.0f} {unit} ago"
    days = int(passed // 86400)
    return f"{days} day{'' if days == 1 else 's'} ago"


def moment(stamp: float | None) -> str:
    """``23 Nov 2026, 11:26:50 UTC``."""
    if stamp is None:
        return "–"
    return datetime.fromtimestamp(stamp, UTC).strftime("%-d %b %Y, %H:%M:%S UTC")


def iso(stamp: float | None) -> str:
    """For the ``datetime`` attribute."""
    return "" if stamp is None else datetime.fromtimestamp(stamp, UTC).isoformat(timespec="seconds")


def clock(stamp: float) -> str:
    """``11:26:50``."""
    return datetime.fromtimestamp(stamp, UTC).strftime("%H:%M:%S")


def percent(fraction: float | None) -> str:
    """``42 %``; empty where it is not known."""
    return "" if fraction is None else f"{min(max(fraction, 0.0), 1.0):.0%}".replace("%", " %")
