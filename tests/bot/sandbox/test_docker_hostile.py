"""The hostile exporter of all walls in a container: nothing seen, nothing reached, everything bounded."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.bot.sandbox import docker_runs, executors
from tests.bot.sandbox.as_root import SECRET, UID, needs_root
from tests.bot.sandbox.executors import Behind
from tests.engine import DockerEngine

MIB = 1 << 20
BOUNDED = {"memory_bytes": 256 * MIB, "output_bytes": 4 * MIB, "processes": 64, "seconds": 60.0}
ACTS: dict[str, dict[str, Any]] = {
    "look": {"limits": BOUNDED},
    "thread_bomb": {"limits": BOUNDED | {"seconds": 2.0}},
    "memory_without_a_process": {"limits": BOUNDED},
    "fill_home": {"limits": BOUNDED},
    "fill_with_small_files": {"limits": BOUNDED},
    "fill_without_a_name": {"limits": BOUNDED},
    "outlive": {"limits": BOUNDED},
    "kill_everybody": {"limits": BOUNDED},
    "kill_the_guard": {"limits": BOUNDED},
    "stay": {"limits": BOUNDED, "stop": True},
    "out_holds_a_hard_link": {"limits": BOUNDED},
    "out_holds_a_device": {"limits": BOUNDED},
    "report_lies": {"limits": BOUNDED, "load": True},
    "report_is_large": {"limits": BOUNDED | {"output_bytes": 4 << 30}, "load": True},
    "well": {"limits": BOUNDED},
}
"""What test_docker.py has not; its bombs are of the same kinds."""

pytestmark = needs_root


@pytest.fixture(scope="module")
def told(docker_engine: DockerEngine) -> dict[str, Any]:
    """What came of all acts, in one parent that is alive at the end."""
    behind = Behind(
        executor="bot.sandbox.docker:DockerExecutor",
        rung="docker",
        root=True,
        uid=UID + 128,
        options={"image": docker_engine.image, "base_url": docker_engine.host},
        facts={"own_root": True},
    )
    return executors.run(behind, ACTS)


def test_it_sees_and_reaches_nothing(told: dict[str, Any]) -> None:
    story = told["acts"]["look"]
    lines = [json.loads(line) for line in story["lines"]]
    assert {line.get("leaked") or line.get("broken") for line in lines} == {None}, lines
    assert len(lines) > 30
    assert story["exit"]["code"] == 0
    assert (told["rung"], told["heard"], told["untouched"]) == ("docker", [], True)
    assert SECRET not in json.dumps(told["acts"])


def test_nothing_of_it_is_left(told: dict[str, Any], docker_engine: DockerEngine) -> None:
    assert {name: story["left"] for name, story in told["acts"].items() if story["left"]} == {}
    assert docker_runs.containers(docker_engine) == []


@pytest.mark.parametrize("which", ["fill_home", "fill_with_small_files", "fill_without_a_name"])
def test_scratch_has_a_bound(told: dict[str, Any], which: str) -> None:
    """It lies in memory, and the kernel says when it is full."""
    story = told["acts"][which]
    assert story["exit"]["code"] == 1
    assert "No space left on device" in story["exit"]["log_tail"]
    assert story["out"] == []


def test_processes_and_memory_have_bounds(told: dict[str, Any]) -> None:
    threads = told["acts"]["thread_bomb"]
    assert threads["exit"]["too_long"]
    assert all(json.loads(line)["bounded"] <= 64 for line in threads["lines"])
    hidden = told["acts"]["memory_without_a_process"]
    assert hidden["lines"] == [] or hidden["exit"]["too_much_memory"]


@pytest.mark.parametrize("which", ["outlive", "kill_everybody", "kill_the_guard", "stay"])
def test_it_ends_itself_and_nobody_else(told: dict[str, Any], which: str) -> None:
    story = told["acts"][which]
    assert story["exit"]["stopped"] == (which == "stay")
    assert story["exit"]["too_long"] is False


def test_what_it_leaves_is_plain_and_checked(told: dict[str, Any]) -> None:
    for which in ("out_holds_a_hard_link", "out_holds_a_device"):
        assert (told["acts"][which]["exit"]["code"], told["acts"][which]["out"]) == (1, ["out"])
    for which in ("report_lies", "report_is_large"):
        assert told["acts"][which]["error"].startswith("OutputNotTrusted")
    assert told["acts"]["well"]["out"] == ["file", "out"]
