"""One local Hub for all tests of a module that ask for it; every test gets a repository of its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bot import githubapi
from bot.localhub.testing import RunningHub, running_hub
from tests.bot.hubs import Repository, repository


@pytest.fixture(autouse=True)
def _no_pauses_at_github(monkeypatch: pytest.MonkeyPatch) -> None:
    """The real one wants a second between writes; ours does not."""
    monkeypatch.setattr(githubapi, "PAUSE_SECONDS", None)
    monkeypatch.setattr(githubapi, "WRITE_PAUSE_SECONDS", None)


@pytest.fixture(scope="module")
def module_hub() -> Iterator[RunningHub]:
    with running_hub() as hub:
        yield hub


@pytest.fixture
def hub(module_hub: RunningHub) -> Iterator[RunningHub]:
    """The module's Hub, without faults and records of other tests."""
    module_hub.clear_faults()
    module_hub.traffic.clear()
    yield module_hub
    module_hub.clear_faults()


@pytest.fixture
def repo(hub: RunningHub, tmp_path: Path) -> Repository:
    """A new repository with a tiny model."""
    return repository(hub, tmp_path)
