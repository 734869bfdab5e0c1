"""One local Hub, one local GitHub and one tiny model for all steps of a module."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from bot.localhub.testing import RunningHub, running_hub
from tests.exporter.models import tiny_model
from tests.localgithub.testing import RunningGitHub, running_github


@pytest.fixture(scope="module")
def github() -> Iterator[RunningGitHub]:
    with running_github() as found:
        yield found


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    with running_hub() as found:
        yield found


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model("llama", tmp_path_factory.mktemp("model") / "tiny")
