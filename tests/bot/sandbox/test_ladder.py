"""The choice of a wall: the strongest that is there, a refusal below the minimum, and what a setting demands."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import get_args

import pytest

from bot import child
from bot.errors import InvalidSettings, SandboxTooWeak
from bot.sandbox import ladder
from bot.sandbox.call import RungName
from tests.bot.sandbox import executors

HERE = Path(__file__).resolve().parents[3]


@pytest.fixture(autouse=True)
def afresh(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Nothing is demanded, and every test asks the machine anew."""
    for name in (ladder.VARIABLE, ladder.IMAGE_VARIABLE):
        monkeypatch.delenv(name, raising=False)
    ladder._why_not.cache_clear()
    yield
    ladder._why_not.cache_clear()


@pytest.fixture
def no_bubblewrap(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))


def test_the_rungs_are_those_of_the_settings() -> None:
    assert get_args(RungName) == ladder.RUNGS == tuple(ladder._RUNGS)


def test_the_strongest_that_is_there_is_taken() -> None:
    executors.bubblewrap()
    assert ladder.chosen("none").rung == "bubblewrap"
    assert ladder.chosen("bubblewrap").rung == "bubblewrap"


@pytest.mark.usefixtures("no_bubblewrap")
def test_below_it_the_next_one_is() -> None:
    assert ladder.chosen("landlock").rung == "landlock"


@pytest.mark.usefixtures("no_bubblewrap")
def test_what_is_weaker_than_demanded_is_refused_by_name() -> None:
    with pytest.raises(SandboxTooWeak) as caught:
        ladder.chosen("bubblewrap")
    assert "bubblewrap: bwrap is not installed" in caught.value.what
    assert "docker: no image is named" in caught.value.what


def test_containers_need_an_image_and_an_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DOCKER_HOST", "unix:///nowhere/docker.sock")
    with pytest.raises(SandboxTooWeak):
        ladder.chosen("sibling", image="ptebot@sha256:" + "0" * 64)


def test_a_wall_that_leaves_something_open_is_none(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is tried: a bwrap that only starts what it is given keeps nothing from anybody."""
    open_ = executors.Open()
    assert ladder.probed(open_) == "a trial found open: network, files, processes"


def test_a_bwrap_that_cannot_make_namespaces_is_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bwrap").write_text("#!/bin/sh\necho 'bwrap: No permissions to create new namespace' >&2; exit 1\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    [rung] = [rung for rung in ladder.probe() if rung.name == "bubblewrap"]
    assert rung.why_not is not None and "No permissions to create new namespace" in rung.why_not


@pytest.mark.parametrize("value", ["", "  ", "none"])
def test_nothing_demanded_is_no_executor(value: str) -> None:
    assert ladder.demanded({"PTEBOT_SANDBOX": value}) is None


def test_what_is_demanded_is_had() -> None:
    executor = ladder.demanded({"PTEBOT_SANDBOX": "landlock"})
    assert executor is not None and executor.rung in ("landlock", "bubblewrap")


def test_a_name_that_is_no_rung_is_refused() -> None:
    with pytest.raises(InvalidSettings, match="docker, sibling, bubblewrap, landlock, none"):
        ladder.demanded({"PTEBOT_SANDBOX": "steel"})


def test_a_child_is_not_started_behind_less_than_is_demanded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTEBOT_SANDBOX", "docker")
    monkeypatch.setattr(child, "run_here", lambda *_, **__: pytest.fail("nothing may run"))
    with pytest.raises(SandboxTooWeak):
        child.run_module("bot.sandbox.probe", [], on_line=lambda line: None)


def test_a_command_refuses(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "bot.cli", "export", str(HERE / "tests"), "--out", str(tmp_path / "out")]
    env = {**os.environ, "PTEBOT_SANDBOX": "docker"}
    done = subprocess.run(command, capture_output=True, text=True, env=env, check=False)
    assert done.returncode == SandboxTooWeak.exit_code, done.stderr
    assert "docker: no image is named" in done.stderr
    assert not (tmp_path / "out").exists()


WITHOUT = """
import json, sys
from bot.sandbox import ladder, seccomp
from bot.sandbox.call import Call
seccomp._DENIED = {"landlock_create_ruleset": (444, 444)}
seccomp.apply()
def run(executor):
    lines = []
    ended = executor.run(Call(module="bot.sandbox.probe", args=[]), on_line=lines.append, on_log=lambda line: None)
    return ended.code, len(lines)
found = {rung.name: rung.why_not for rung in ladder.probe()}
print(json.dumps([found["landlock"], run(ladder.Local(needed=True)), run(ladder.Local(needed=False))]))
"""


def test_a_kernel_without_landlock_runs_nothing_that_needs_it() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == '["this kernel is older than 5.13, or made without it", [125, 0], [0, 1]]'
