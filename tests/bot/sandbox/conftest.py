"""For the sandboxes' tests: a folder that is open, and an executor whose runs are all gone behind the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.sandbox import run_folder
from bot.sandbox.docker import DockerExecutor
from tests.bot.sandbox import docker_runs
from tests.bot.sandbox.as_root import open_folder
from tests.engine import DockerEngine


@pytest.fixture
def folder() -> Iterator[Path]:
    """One that every user may look into."""
    with open_folder() as name:
        yield Path(name)


@pytest.fixture
def executor(docker_engine: DockerEngine) -> Iterator[DockerExecutor]:
    """None of a test's runs outlives it, and none leaves a folder."""
    before = _folders()
    yield DockerExecutor(docker_engine.image, base_url=docker_engine.host)
    assert docker_runs.containers(docker_engine) == []
    assert _folders() == before


def _folders() -> set[Path]:
    return set(run_folder.near(None).glob(f"{run_folder.PREFIX}*"))
