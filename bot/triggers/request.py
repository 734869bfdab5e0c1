"""What an event asks for: plain data between triggers, which read events, and doors, which act on them. Stage 1.

In: nothing; these are the types. A trigger gives a ``Request``, or ``Ignored`` with a reason that a log can show.
Everything in them that came from an event is as hostile as the event: escape it where it is shown.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

Verb = Literal["export", "status", "help"]


@dataclass(frozen=True, kw_only=True)
class Overrides:
    """What an event asks for instead of what inputs and configuration say; None leaves those in force."""

    model: str | None = None
    """An id on the Hub, or a folder of the repository."""
    backends: tuple[str, ...] | None = None
    precisions: tuple[str, ...] | None = None
    max_kl: float | None = None
    """Nats."""
    max_size: int | None = None
    """Bytes."""
    embedding: str | None = None
    cache: str | None = None
    calibration: tuple[str, ...] | None = None
    """Text files, by their paths below the model."""
    max_seq_len: int | None = None
    revision: str | None = None


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a request came from, and so where its results are told."""

    event: str
    """GitHub's name of the event, ``push`` for example."""
    repository: str
    """``owner/name``."""
    actor: str
    """The account that caused it; whether it may is asked of the API, never read from here."""
    sha: str | None = None
    """The commit that a status is put on (40 hex digits)."""
    ref: str | None = None
    """The full ref that moved, for events that have one."""
    number: int | None = None
    """The issue or pull request that gets the reply."""
    is_pull_request: bool = False
    comment_id: int | None = None
    """The comment with the command."""
    forked: bool = False
    """The code comes from another repository: no secrets, no publishing."""
    before: str | None = None
    """What the branch had before a push, or the base of a pull request: changed paths are those since then."""
    default_branch: str | None = None
    """The repository's, where the event tells it."""
    changed_files: tuple[str, ...] | None = None
    """Paths that a push added, changed or removed; None where the event does not tell all of them."""


@dataclass(frozen=True, kw_only=True)
class Request:
    """One thing to do."""

    verb: Verb
    origin: Origin
    overrides: Overrides = field(default_factory=Overrides)
    why: str = ""
    """In words, for log and summary: ``push to main``."""
    problem: str | None = None
    """The command was meant for us and is wrong: what is wrong with it; the verb is then ``help``."""


@dataclass(frozen=True, kw_only=True)
class Ignored:
    """An event that asks for nothing."""

    reason: str
    origin: Origin | None = None
