"""Everything that the local GitHub remembers beside git: accounts, tokens, repositories and what hangs on them.

Plain objects under one lock: tests read and change them directly.
"""

from __future__ import annotations

import fnmatch
import itertools
import secrets
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pygit2

Role = Literal["none", "read", "triage", "write", "maintain", "admin"]
ROLES: tuple[Role, ...] = ("none", "read", "triage", "write", "maintain", "admin")
TokenKind = Literal["classic", "fine-grained", "installation"]
LEVELS = ("none", "read", "write", "admin")
ACTIONS_BOT = "github-actions[bot]"


def now() -> str:
    """The time as GitHub writes it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass
class Account:
    id: int
    login: str
    type: Literal["User", "Organization", "Bot"] = "User"


@dataclass
class Token:
    """Who a token speaks for, and what it may do (``permissions`` None: all that the account may)."""

    value: str = field(repr=False)
    account: Account
    kind: TokenKind
    permissions: dict[str, str] | None = None
    repos: set[int] | None = None
    """Repositories of an installation token; None: all."""

    def allows(self, permission: str, level: str) -> bool:
        if self.permissions is None:
            return True
        return LEVELS.index(self.permissions.get(permission, "none")) >= LEVELS.index(level)


@dataclass
class Comment:
    """A comment on an issue (``issue``) or on a commit (``commit``)."""

    id: int
    author: Account
    body: str
    issue: int | None = None
    commit: str | None = None
    created_at: str = field(default_factory=now)
    updated_at: str = field(default_factory=now)
    app: bool = False


@dataclass
class Reaction:
    id: int
    author: Account
    content: str
    subject: tuple[str, int]
    """('issue', number), ('comment', id) or ('commit comment', id)."""
    created_at: str = field(default_factory=now)


@dataclass
class Pull:
    """What makes an issue a pull request; the commits are frozen when it is closed."""

    head_repo: int
    head: str
    base: str
    head_sha: str
    base_sha: str
    draft: bool = False
    maintainer_can_modify: bool = False
    merged_at: str | None = None
    merged_by: Account | None = None
    merge_commit: str | None = None
    looks: int = 0
    """At ``mergeable`` since a side moved."""


@dataclass
class Issue:
    id: int
    number: int
    author: Account
    title: str
    body: str | None
    state: Literal["open", "closed"] = "open"
    locked: bool = False
    lock_reason: str | None = None
    pull: Pull | None = None
    created_at: str = field(default_factory=now)
    updated_at: str = field(default_factory=now)
    closed_at: str | None = None
    closed_by: Account | None = None


@dataclass
class Status:
    id: int
    sha: str
    creator: Account
    state: str
    context: str
    description: str | None
    target_url: str | None
    created_at: str = field(default_factory=now)


@dataclass
class CheckRun:
    id: int
    name: str
    head_sha: str
    app: str
    status: str = "queued"
    conclusion: str | None = None
    started_at: str | None = None
    completed_at: str | None = None
    details_url: str | None = None
    external_id: str = ""
    output: dict[str, Any] = field(default_factory=dict)
    annotations: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class Asset:
    id: int
    name: str
    label: str | None
    content_type: str
    size: int
    digest: str
    uploader: Account
    path: Path
    state: str = "uploaded"
    """``starter``: its upload was broken off; the name is taken all the same."""
    created_at: str = field(default_factory=now)
    updated_at: str = field(default_factory=now)


@dataclass
class Release:
    id: int
    tag: str
    target: str
    name: str | None
    body: str | None
    author: Account
    draft: bool = False
    prerelease: bool = False
    assets: list[Asset] = field(default_factory=list)
    created_at: str = field(default_factory=now)
    published_at: str | None = None


@dataclass
class Rule:
    """What nobody may do to branches that match ``pattern`` (fnmatch; ``ptebot/**`` too), but for ``bypass``.

    ``tags``: a rule for tags. ``classic``: branch protection of the older kind, which says less when it refuses.
    """

    pattern: str
    forbids: frozenset[str] = frozenset({"creation", "update", "deletion", "force"})
    bypass: frozenset[str] = frozenset()
    tags: bool = False
    classic: bool = False

    def forbids_to(self, login: str, name: str, what: str, *, tag: bool = False) -> bool:
        """Whether an account may not do ``what`` (creation, update, deletion, force) to a branch or a tag."""
        meant = what in self.forbids and tag == self.tags and login not in self.bypass
        return meant and fnmatch.fnmatchcase(name, self.pattern)


@dataclass
class LfsSettings:
    """The plan's limits in bytes; None: no limit. ``quota_status`` is what a batch over the quota is answered."""

    max_file: int = 2 * 1024**3
    quota: int | None = None
    quota_status: int = 403
    enabled: bool = True


@dataclass
class Repo:
    id: int
    owner: Account
    name: str
    directory: Path
    private: bool = False
    archived: bool = False
    default_branch: str = "main"
    parent: int | None = None
    roles: dict[str, Role] = field(default_factory=dict)
    issues: dict[int, Issue] = field(default_factory=dict)
    comments: dict[int, Comment] = field(default_factory=dict)
    reactions: dict[int, Reaction] = field(default_factory=dict)
    statuses: list[Status] = field(default_factory=list)
    check_runs: dict[int, CheckRun] = field(default_factory=dict)
    releases: dict[int, Release] = field(default_factory=dict)
    dispatches: list[dict[str, Any]] = field(default_factory=list)
    rules: list[Rule] = field(default_factory=list)
    lfs: LfsSettings = field(default_factory=LfsSettings)
    actions_may_open_pulls: bool = True
    """The repository's setting 'Allow GitHub Actions to create and approve pull requests'."""
    delete_branch_on_merge: bool = False
    mergeable_after: int = 0
    """How often a pull request that moved is looked at before GitHub has worked out whether it can be merged."""
    created_at: str = field(default_factory=now)

    @property
    def full_name(self) -> str:
        return f"{self.owner.login}/{self.name}"

    @property
    def git(self) -> pygit2.Repository:
        """A fresh handle (libgit2's are not shared between threads)."""
        return pygit2.Repository(str(self.directory / "git"))

    def role_of(self, account: Account | None) -> Role:
        """What an account may do here; a stranger may read what is public."""
        if account is not None:
            if account.id == self.owner.id:
                return "admin"
            if account.login in self.roles:
                return self.roles[account.login]
        return "none" if self.private else "read"


@dataclass
class State:
    """All of one local GitHub."""

    data: Path
    api_url: str = ""
    server_url: str = ""
    accounts: dict[str, Account] = field(default_factory=dict)
    tokens: dict[str, Token] = field(default_factory=dict, repr=False)
    repos: dict[int, Repo] = field(default_factory=dict)
    moved: dict[str, int] = field(default_factory=dict)
    """Former full names (lower case) of repositories."""
    ids: Iterator[int] = field(default_factory=lambda: itertools.count(1001))
    lock: threading.RLock = field(default_factory=threading.RLock)
    signing_key: bytes = field(default_factory=lambda: secrets.token_bytes(16), repr=False)

    @property
    def upload_url(self) -> str:
        return f"{self.api_url}/api/uploads"

    def account(self, login: str, kind: Literal["User", "Organization", "Bot"] = "User") -> Account:
        """The account of that name, made when new."""
        known = self.accounts.get(login.lower())
        if known is None:
            bot = "Bot" if login.endswith("[bot]") else kind
            known = self.accounts[login.lower()] = Account(next(self.ids), login, bot)
        return known

    def repo_named(self, full_name: str) -> Repo | None:
        wanted = full_name.lower()
        return next((repo for repo in self.repos.values() if repo.full_name.lower() == wanted), None)

    def fork_of(self, repo: Repo, owner: str) -> Repo | None:
        """The repository of ``owner`` that pull requests into ``repo`` may come from."""
        if repo.owner.login.lower() == owner.lower():
            return repo
        found = (one for one in self.repos.values() if one.parent == repo.id)
        return next((one for one in found if one.owner.login.lower() == owner.lower()), None)
