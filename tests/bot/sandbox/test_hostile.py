"""A hostile exporter behind every wall of this machine: stopped, told, nothing leaked, the parent alive.

One parent runs all of its acts behind one wall; a signal that reaches it, or an end of it, fails them all.
"""

from __future__ import annotations

import functools
import json
from typing import Any

import pytest

from tests.bot.sandbox import executors
from tests.bot.sandbox.as_root import SECRET, needs_root
from tests.bot.sandbox.executors import EXECUTORS, OPEN

MIB = 1 << 20
BOUNDED = {"memory_bytes": 200 * MIB, "output_bytes": 4 * MIB, "processes": 64, "seconds": 30.0}
"""What every run is given; an act names what it is about, or how little time it gets."""


def given(**limits: Any) -> dict[str, Any]:
    return {"limits": BOUNDED | limits}


EVERYWHERE: dict[str, dict[str, Any]] = {
    "look": given(),
    "fork_bomb": given(seconds=1.0),
    "memory_bomb": given(),
    "memory_without_a_process": given(),
    "fill_home": given(),
    "fill_with_small_files": given(),
    "fill_without_a_name": given(),
    "outlive": given(),
    "outlive_with_stdout": given(),
    "kill_everybody": given(),
    "kill_the_guard": given(),
    "stay": given() | {"stop": True},
    "out_is_a_link": given(),
    "out_holds_a_link": given(),
    "out_holds_a_hard_link": given(),
    "out_holds_a_fifo": given(),
    "out_holds_a_device": given(),
    "well": given(),
}
ONCE: dict[str, dict[str, Any]] = {
    "thread_bomb": given(seconds=1.0),
    "memory_bomb_in_pieces": given(),
    "fill_out": given(),
    "endless_lines": given(seconds=0.6),
    "endless_line": given(seconds=0.6),
    "endless_log": given(seconds=0.6),
    "report_lies": given() | {"load": True},
    "report_is_large": given(output_bytes=None) | {"load": True},
}
"""What is decided on the parent's half of the wall."""

pytestmark = needs_root


class Story(dict[str, Any]):
    """What came of one act; shown whole where a test fails."""

    @property
    def exit(self) -> dict[str, Any]:
        found: dict[str, Any] = self["exit"]
        return found


@functools.cache
def _told(wall: str) -> dict[str, Any]:
    behind = EXECUTORS[wall]
    found = executors.run(behind, EVERYWHERE | (ONCE if behind.whole else {}))
    return found | {"acts": {name: Story(act) for name, act in found["acts"].items()}, "behind": behind}


@pytest.fixture(params=EXECUTORS)
def told(request: pytest.FixtureRequest) -> dict[str, Any]:
    """What came of all acts behind one wall."""
    return _told(request.param)


@pytest.fixture(params=[name for name, behind in EXECUTORS.items() if behind.whole])
def told_whole(request: pytest.FixtureRequest) -> dict[str, Any]:
    """As ``told``, where ``ONCE`` is among them."""
    return _told(request.param)


def act(told: dict[str, Any], name: str) -> Story:
    story: Story = told["acts"][name]
    return story


def test_the_hostile_exporter_is_one() -> None:
    """Without a wall its deeds succeed, but for those that ask for root or that the system itself forbids."""
    found = executors.run(OPEN, {"look": {}})
    lines = [json.loads(line) for line in found["acts"]["look"]["lines"]]
    assert [line for line in lines if "broken" in line] == []
    refused = {line["refused"].removeprefix("look_") for line in lines if "refused" in line}
    asks_for_root = {"device", "mount", "root", "shadow", "write_system", "write_input", "times_of_data"}
    systems_own = {"ptrace", "namespace", "root_of_parent", "attributes_of_data", "memory_of_parent"}
    heard_by_the_parent = {"signal_by_a_pipe"}
    assert refused <= asks_for_root | systems_own | heard_by_the_parent
    assert set(found["heard"]) == {"tcp", "udp", "unix", "datagram", "abstract", "fifo", "signal"}
    assert not found["untouched"]


def test_it_is_the_wall_that_was_asked_for(told: dict[str, Any]) -> None:
    assert told["rung"] == told["behind"].rung


def test_it_sees_and_reaches_nothing(told: dict[str, Any]) -> None:
    lines = [json.loads(line) for line in act(told, "look")["lines"]]
    assert {line.get("leaked") or line.get("broken") for line in lines} == {None}, lines
    assert len(lines) > 30
    assert act(told, "look").exit["code"] == 0
    assert told["heard"] == []
    assert told["untouched"]
    assert SECRET not in json.dumps(told["acts"])


def test_nothing_of_it_is_left(told: dict[str, Any]) -> None:
    assert {name: story["left"] for name, story in told["acts"].items() if story["left"]} == {}
    assert max(story["seconds"] for story in told["acts"].values()) < 25


def test_processes_have_a_bound(told: dict[str, Any]) -> None:
    story = act(told, "fork_bomb")
    assert story.exit["code"] != 0
    assert story.exit["too_long"] or story.exit["too_many_processes"], story


def test_threads_have_the_same_bound(told_whole: dict[str, Any]) -> None:
    story = act(told_whole, "thread_bomb")
    assert story.exit["too_long"] or story.exit["too_many_processes"], story
    assert all(json.loads(line)["bounded"] <= 64 for line in story["lines"])


def test_memory_has_a_bound(told: dict[str, Any]) -> None:
    assert act(told, "memory_bomb").exit["too_much_memory"], act(told, "memory_bomb")


def test_memory_of_many_has_the_same_bound(told_whole: dict[str, Any]) -> None:
    assert act(told_whole, "memory_bomb_in_pieces").exit["too_much_memory"], act(told_whole, "memory_bomb_in_pieces")


def test_no_memory_is_hidden_from_the_bound(told: dict[str, Any]) -> None:
    story = act(told, "memory_without_a_process")
    assert story["lines"] == [] or story.exit["too_much_memory"], story


@pytest.mark.parametrize("which", ["fill_home", "fill_with_small_files", "fill_without_a_name"])
def test_the_disk_has_a_bound(told: dict[str, Any], which: str) -> None:
    story = act(told, which)
    assert story.exit["too_much_output"], story
    assert story["out"] == [], "nothing of it is taken"


def test_an_output_has_the_same_bound(told_whole: dict[str, Any]) -> None:
    story = act(told_whole, "fill_out")
    assert story.exit["too_much_output"], story
    assert story["out"] == []


@pytest.mark.parametrize("which", ["endless_lines", "endless_line", "endless_log"])
def test_endless_output_ends(told_whole: dict[str, Any], which: str) -> None:
    story = act(told_whole, which)
    assert story.exit["too_long"], story
    assert (story["count"] > 0) == (which == "endless_lines")
    assert len(story.exit["log_tail"]) <= 400 * 4096


def test_who_asked_for_it_can_stop_it(told: dict[str, Any]) -> None:
    story = act(told, "stay")
    assert story.exit["stopped"] and story.exit["code"] < 0, story
    assert story["seconds"] < 10


@pytest.mark.parametrize("which", ["outlive", "outlive_with_stdout"])
def test_who_leaves_the_family_does_not_hold_the_parent_up(told: dict[str, Any], which: str) -> None:
    story = act(told, which)
    assert story.exit["code"] == 0, story
    assert story["lines"] == ['{"started": true}']
    assert story["seconds"] < 10


@pytest.mark.parametrize("which", ["kill_everybody", "kill_the_guard"])
def test_it_ends_nobody(told: dict[str, Any], which: str) -> None:
    story = act(told, which)
    assert story.exit["code"] in (0, -9), story


@pytest.mark.parametrize(
    "which", ["out_is_a_link", "out_holds_a_link", "out_holds_a_hard_link", "out_holds_a_fifo", "out_holds_a_device"]
)
def test_out_holds_plain_files_or_nothing(told: dict[str, Any], which: str) -> None:
    story = act(told, which)
    assert story.get("error", "").startswith("OutputNotTrusted") or story.exit["code"] == 1, story
    assert story["out"] in ([], ["out"]) and not story["link"], story


@pytest.mark.parametrize("which", ["report_lies", "report_is_large"])
def test_a_report_is_not_believed(told_whole: dict[str, Any], which: str) -> None:
    assert act(told_whole, which)["error"].startswith("OutputNotTrusted"), act(told_whole, which)


def test_an_exporter_that_behaves_gets_through(told: dict[str, Any]) -> None:
    story = act(told, "well")
    assert story.exit["code"] == 0, story
    assert story["out"] == ["file", "out"]
    assert not any(value for name, value in story.exit.items() if name.startswith("too_") or name == "stopped")
