"""One local GitHub per module, and no pauses."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot import githubapi
from bot.publish import loop
from bot.publish.github import lfs, read, release
from tests.bot.publish.github.repositories import Repository, repository
from tests.localgithub.conftest import github, module_github
from tests.localgithub.testing import RunningGitHub

__all__ = ["github", "module_github"]


@pytest.fixture(autouse=True)
def no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    for module, name in (
        (loop, "PAUSE_SECONDS"),
        (lfs, "PAUSE_SECONDS"),
        (release, "PAUSE_SECONDS"),
        (read, "MERGEABLE_SECONDS"),
        (githubapi, "RETRY_SECONDS"),
    ):
        monkeypatch.setattr(module, name, 0.005)
    monkeypatch.setattr(githubapi, "PAUSE_SECONDS", None)
    monkeypatch.setattr(githubapi, "WRITE_PAUSE_SECONDS", None)


@pytest.fixture
def repo(github: RunningGitHub, tmp_path: Path) -> Repository:
    """A new repository with a tiny model in models/tiny, its weights in Git LFS, and a job's token."""
    return repository(github, tmp_path)
