"""One local GitHub for all tests of a module; every test gets what it makes on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from github.Repository import Repository

from tests.localgithub.clients import client
from tests.localgithub.testing import LocalRepo, RunningGitHub, running_github


@pytest.fixture(scope="module")
def module_github() -> Iterator[RunningGitHub]:
    with running_github() as github:
        yield github


@pytest.fixture
def github(module_github: RunningGitHub) -> Iterator[RunningGitHub]:
    """The module's local GitHub, without faults and records of other tests."""
    module_github.clear()
    yield module_github
    module_github.clear()


@pytest.fixture
def local(github: RunningGitHub, request: pytest.FixtureRequest) -> LocalRepo:
    """A new repository of acme's that is called as the test."""
    return github.create_repo("acme", request.node.name.replace("[", "-").rstrip("]"))


@pytest.fixture
def repo(github: RunningGitHub, local: LocalRepo) -> Repository:
    """``local`` as a job with every right sees it."""
    return client(github, github.installation_token(local)).get_repo(local.full_name)
