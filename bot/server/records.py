"""What the server keeps of a job: plain data between the store, the engine, the pages and the command line. Pure.

In: nothing; these are the types and the few rules about them. Times are seconds since the epoch, UTC. Texts that came
from a model, an event or a person are as hostile as their source: escape them where they are shown.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

State = Literal["queued", "running", "passed", "partial", "failed", "unchanged", "superseded", "cancelled", "error"]
"""``passed``: every file is good and offered; ``partial``: some are; ``failed``: none is. ``unchanged``: there was
nothing to do. ``superseded``: a newer commit took its place. ``error``: it could not be done, as its failure says."""
LIVE: tuple[State, ...] = ("queued", "running")
Trigger = Literal["webhook", "comment", "sweep", "form", "cli"]
PRIORITIES: Mapping[Trigger, int] = {"comment": 1, "form": 1, "cli": 1, "webhook": 5, "sweep": 9}
"""Lower goes first: whoever waits for an answer before what nobody watches."""


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What a job is to do, known before anything is looked up: equal for the same event delivered twice."""

    repo_id: str
    sha: str
    """The commit of the main branch that is exported (40 hex digits)."""
    options: dict[str, Any] = field(default_factory=dict)
    """Fields of ``ExportSpec`` that the event asks for; what it leaves out, the repository's ``.ptebot.yml`` at that
    commit and the server's settings say."""
    again: str = ""
    """Empty, or what makes a wanted repetition another job: a comment's id."""

    @property
    def id(self) -> str:
        """The job's id (32 hex digits): a hash of repository, commit and spec as far as it is asked for."""
        data = [self.repo_id.lower(), self.sha, self.options, self.again]
        return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:32]


@dataclass(frozen=True, kw_only=True)
class Asker:
    """Who wants it, and where the answer goes."""

    trigger: Trigger
    name: str | None = None
    """The Hub account's name, where it is known; from the Hub's API, never from a payload."""
    discussion: int | None = None
    """The discussion or pull request that gets the reply."""
    comment_id: str | None = None
    """The comment with the command."""
    own_token: bool = False
    """Whether it is done with the person's own token, and never with the bot's."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """Why a job is in state ``error``, without secrets."""

    name: str
    """The error's class."""
    exit_code: int
    title: str
    what: str
    advice: str


@dataclass(frozen=True, kw_only=True)
class JobRecord:
    """One job as it stands."""

    id: str
    asked: Asked
    asker: Asker
    state: State
    priority: int
    attempt: int = 1
    """Counts up with each retry."""
    stage: str = ""
    """Where a running job is, in words: ``export xnnpack``, ``lower xnnpack 8da4w``."""
    fraction: float | None = None
    """Of the stage, 0 to 1."""
    worker: str | None = None
    reason: str | None = None
    """Why it ended as it did, where that is no error: ``newer commit 1234abcd``, ``the files are there already``."""
    failure: Failure | None = None
    private: bool = True
    """Whether not everybody may see the repository; so until the Hub says otherwise."""
    operation: str | None = None
    """What publishing did: ``created``, ``updated``, ``unchanged`` or ``none``."""
    pr_url: str | None = None
    pr_num: int | None = None
    reply_id: str | None = None
    """The comment of ours that is edited as the work goes on."""
    created_at: float = 0.0
    started_at: float | None = None
    ended_at: float | None = None

    @property
    def live(self) -> bool:
        return self.state in LIVE


Kind = Literal["stage", "progress", "log"]


@dataclass(frozen=True, kw_only=True)
class Event:
    """One thing that happened in a job; what the page shows live."""

    job_id: str
    at: float
    kind: Kind
    stage: str = ""
    backend: str | None = None
    precision: str | None = None
    fraction: float | None = None
    message: str = ""
    number: int = 0
    """Given by the store; counts up over all jobs, and so within each."""


@dataclass(frozen=True, kw_only=True)
class Delivery:
    """One delivered webhook that asks for something, kept until it is handled."""

    key: str
    """Equal for the same event delivered twice: repository, ref and new commit, or the comment's id."""
    kind: Literal["push", "comment"]
    repo_id: str
    data: dict[str, Any] = field(default_factory=dict)
    """What handling needs: ``sha`` for a push; ``discussion``, ``comment_id`` and ``author_id`` for a comment."""
    received_at: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Worker:
    """One process that does jobs."""

    id: str
    host: str
    started_at: float
    beat_at: float
    version: str
