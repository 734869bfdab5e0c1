"""For the sandboxes' tests: an executor whose runs are all gone behind the test."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.sandbox import run_folder
from bot.sandbox.docker import DockerExecutor
from tests.bot.sandbox import docker_runs
from tests.engine import DockerEngine


@pytest.fixture
def executor(docker_engine: DockerEngine) -> Iterator[DockerExecutor]:
    """None of a test's runs outlives it, and none leaves a folder."""
    before = _folders()
    yield DockerExecutor(docker_engine.image, base_url=docker_engine.host)
    assert docker_runs.containers(docker_engine) == []
    assert _folders() == before


def _folders() -> set[Path]:
    return set(run_folder.near(None).glob(f"{run_folder.PREFIX}*"))
