"""Where a job's pull request goes: what a door builds from its inputs, and all that a job knows of publishing.

In: a repository and what is needed to write to it. Out: the answers that a job asks for: whether there is anything
to do (stage 2), and the pull request (stage 5). Doors that publish nowhere have no target.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from bot import unchanged
from bot.errors import GitHubNotAuthorized, InvalidInput, NotAuthorized, SourceMoved
from bot.export_process import OnProgress
from bot.githubapi import Client
from bot.hubapi import TreeFile, connect
from bot.publish import hub, loop
from bot.publish.github.host import REPOSITORY, GitHubHost, refuse_pointers
from bot.publish.github.names import check_folder
from bot.publish.github.store import Storing
from bot.publish.loop import Host, Published
from exporter.report import Report
from exporter.spec import ExportSpec

Token = str | Callable[[], str | None] | None
"""A token, or what gives one when it is needed: one that lives for minutes is not to be had before the export."""


class Target(Protocol):
    """A repository that gets a pull request. To add one, implement this over a ``bot.publish.loop.Host``."""

    @property
    def repo_id(self) -> str:
        """``owner/name``."""

    @property
    def place(self) -> str:
        """The repository in words, with the address of its service."""

    def host(self) -> Host:
        """The repository, for looking at it."""

    def check(self, *, dry_run: bool) -> None:
        """Refuse before any work what could not be published after it; raises NotAuthorized and the like."""

    def ask(self, tree: Mapping[str, TreeFile], spec: ExportSpec, toolchain: Mapping[str, str]) -> Published | None:
        """As ``bot.unchanged.ask``."""

    def ready(self) -> None:
        """Try, right before an export, whether the token may do what comes after it: an hour later would be late.

        Raises:
            NotAuthorized, GitHubNotAuthorized, RepositoryReadOnly: it may not. Any other trouble is left to publishing.
        """

    def publish(self, report: Report, out_dir: Path, *, command: str, dry_run: bool, progress: OnProgress) -> Published:
        """As ``bot.publish.loop.publish``."""


@dataclass(frozen=True, kw_only=True)
class HubTarget:
    """A repository on a Hub."""

    repo_id: str
    endpoint: str
    token: Token = field(repr=False)
    """A callable is asked right before publishing."""
    read_token: str | None = field(default=None, repr=False)
    """For looking before the export, where ``token`` is a callable; without one, hidden repositories and our own
    pull requests are seen when it comes to publishing only."""
    may_write: Callable[[], None] = field(default=lambda: None, repr=False)
    """As ``bot.publish.hub.publish``."""

    @property
    def place(self) -> str:
        return f"{self.repo_id} on {self.endpoint}"

    def host(self) -> Host:
        token = self.read_token if callable(self.token) else self.token
        return hub.HubHost(connect(self.endpoint, token), self.repo_id)

    def check(self, *, dry_run: bool) -> None:
        if self.token is None and not dry_run:
            raise NotAuthorized("A pull request cannot be opened without a token.")

    def ask(self, tree: Mapping[str, TreeFile], spec: ExportSpec, toolchain: Mapping[str, str]) -> Published | None:
        return unchanged.ask(tree, spec, toolchain, self.host())

    def ready(self) -> None:
        if isinstance(self.token, str):
            hub.HubHost(connect(self.endpoint, self.token), self.repo_id).try_rights()

    def publish(self, report: Report, out_dir: Path, *, command: str, dry_run: bool, progress: OnProgress) -> Published:
        token = self.read_token if dry_run and callable(self.token) else self.token
        return hub.publish(
            report,
            out_dir,
            repo_id=self.repo_id,
            endpoint=self.endpoint,
            token=token() if callable(token) else token,
            command=command,
            dry_run=dry_run,
            progress=progress,
            may_write=self.may_write,
        )


@dataclass(frozen=True, kw_only=True)
class GitHubTarget:
    """A folder of a repository on GitHub that holds the model."""

    client: Client
    repository: str
    folder: str = "."
    """From the repository's root."""
    storage: Storing = "lfs"
    base: str | None = None
    """The branch that holds the model and gets the pull request; None: the default branch."""

    def __post_init__(self) -> None:
        if not REPOSITORY.fullmatch(self.repository):
            raise InvalidInput(f"{self.repository[:200]!r} is no OWNER/NAME of a repository on GitHub.")
        object.__setattr__(self, "folder", check_folder(self.folder))

    @property
    def repo_id(self) -> str:
        return self.repository

    @property
    def place(self) -> str:
        folder = "" if self.folder == "." else f", folder {self.folder}"
        return f"{self.repository}{folder} on GitHub"

    def host(self) -> Host:
        return self._host(lambda _: None)

    def check(self, *, dry_run: bool) -> None:
        if self.client.token is None and not dry_run:
            raise GitHubNotAuthorized(
                "A pull request cannot be opened without a token.",
                remedy="Give github-token a token with `contents: write` and `pull-requests: write`.",
            )

    def ask(self, tree: Mapping[str, TreeFile], spec: ExportSpec, toolchain: Mapping[str, str]) -> Published | None:
        host = self._host(lambda _: None)
        try:
            return unchanged.ask(tree, spec, toolchain, host)
        except SourceMoved:
            refuse_pointers(tree, host.look(None, ()).source)
            raise

    def ready(self) -> None:
        self._host(lambda _: None).try_rights()

    def publish(self, report: Report, out_dir: Path, *, command: str, dry_run: bool, progress: OnProgress) -> Published:
        self.check(dry_run=dry_run)
        host = self._host(progress)
        return loop.publish(host, report, out_dir, command=command, dry_run=dry_run, progress=progress)

    def _host(self, progress: OnProgress) -> GitHubHost:
        return GitHubHost(
            self.client,
            self.repository,
            folder=self.folder,
            base=self.base,
            storage=self.storage,
            progress=progress,
        )
