"""One local GitHub for all tests of a module; every test gets what it makes on it."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.localgithub.testing import RunningGitHub, running_github


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
