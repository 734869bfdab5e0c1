"""One local Hub for all tests of the engine; an engine of its own for each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dbos
import pytest
from huggingface_hub import HfApi

from bot.localhub.testing import RunningHub, running_hub
from bot.server import running
from bot.workflow import engine
from tests.bot.workflow import doing
from tests.bot.workflow.doing import Place


@pytest.fixture(scope="module")
def hub() -> Iterator[tuple[RunningHub, HfApi, str]]:
    with running_hub() as made:
        owner = HfApi(endpoint=made.endpoint, token=made.create_user("acme"))
        yield made, owner, made.create_user("ptebot")


@pytest.fixture
def start(
    hub: tuple[RunningHub, HfApi, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Callable[..., Place]]:
    """Starts an engine, with settings; it ends with the test."""
    monkeypatch.setattr(engine, "FIRST_PAUSE_SECONDS", 0.05)
    monkeypatch.setattr(engine, "POLL_SECONDS", 0.05)
    monkeypatch.setattr(running, "WATCH_SECONDS", 0.05)
    # When it ends, dbos looks once a second for what still runs, the first time after a second.
    often = SimpleNamespace(time=time.time, sleep=lambda seconds: time.sleep(min(seconds, 0.02)))
    monkeypatch.setattr(dbos._dbos, "time", often)
    with ExitStack() as stack:

        def begin(url: str = f"sqlite:///{tmp_path / 'ptebot.sqlite'}", **given: Any) -> Place:
            return stack.enter_context(doing.place(*hub, tmp_path / "data", url, **given))

        yield begin
