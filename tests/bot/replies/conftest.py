"""One local GitHub per module, no pauses, and a repository with people in it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from itertools import count

import pytest

from bot import githubapi
from bot.githubapi import Client, connect
from bot.triggers.request import Origin
from tests.localgithub.conftest import github, module_github
from tests.localgithub.testing import LocalRepo, RunningGitHub

__all__ = ["github", "module_github"]
_NUMBERS = count(1)


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(githubapi, "RETRY_SECONDS", 0.005)
    monkeypatch.setattr(githubapi, "PAUSE_SECONDS", None)
    monkeypatch.setattr(githubapi, "WRITE_PAUSE_SECONDS", None)


@dataclass
class Place:
    """A repository, an issue with a command of somebody, and a job's client."""

    github: RunningGitHub
    repo: LocalRepo
    issue: int
    command: int
    client: Client

    def origin(self, **fields: object) -> Origin:
        """Of the command."""
        known: dict[str, object] = {
            "event": "issue_comment",
            "repository": self.repo.full_name,
            "actor": "mona",
            "number": self.issue,
            "comment_id": self.command,
        }
        return Origin(**{**known, **fields})  # type: ignore[arg-type]

    def pushed(self, **fields: object) -> Origin:
        """Of a push to the default branch."""
        known: dict[str, object] = {
            "event": "push",
            "repository": self.repo.full_name,
            "actor": "acme",
            "sha": self.repo.head(),
            "ref": "refs/heads/main",
        }
        return Origin(**{**known, **fields})  # type: ignore[arg-type]

    def bodies(self) -> list[str]:
        """Of the comments after the command."""
        return [one.body for one in self.repo.comments(self.issue) if one.id > self.command]

    def reactions(self) -> set[tuple[str, str]]:
        return set(self.repo.reactions("comment", self.command))


@pytest.fixture
def place(github: RunningGitHub) -> Place:
    github.create_user("acme")
    repo = github.create_repo("acme", f"tiny-{next(_NUMBERS)}")
    github.create_user("mona")
    issue = repo.open_issue("mona")
    command = repo.add_comment(issue, "mona", "/ptebot export")
    client = connect(github.installation_token(repo), api_url=github.api_url)
    return Place(github, repo, issue, command, client)


Warnings = list[str]


@pytest.fixture
def warnings() -> Warnings:
    return []


@pytest.fixture
def limited(place: Place) -> Callable[..., Client]:
    """A client whose token has only these permissions."""

    def make(**permissions: str) -> Client:
        token = place.github.installation_token(place.repo, permissions)
        return connect(token, api_url=place.github.api_url)

    return make
