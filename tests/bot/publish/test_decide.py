"""The next step, for every state that a repository can be in: pure, no Hub."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import Any

from bot.hubapi import TreeFile
from bot.publish import message, quality
from bot.publish.card import section
from bot.publish.decide import Close, Create, Describe, Finish, Update, decide
from bot.publish.marker import CLOSED, MISSING
from bot.publish.places import OnTheHub
from bot.publish.splice import splice
from bot.publish.state import Branch, Pull, State
from exporter.report import Report
from tests.bot import reports

REPORT = reports.report()
EMPTY = Branch(commit="0" * 40, manifest=None, files={}, card=b"# Tiny\n")


def branch(report: Report, **fields: Any) -> Branch:
    """A branch that has everything of ``report``."""
    files = {
        f"executorch/{cell.file}": TreeFile(
            path=f"executorch/{cell.file}", size_bytes=cell.size_bytes or 0, oid="", sha256=cell.sha256
        )
        for cell in report.good_cells
    }
    if quality.plot(report):
        files[quality.PLOT] = TreeFile(path=quality.PLOT, size_bytes=1, oid="", sha256=None)
    card = splice(b"# Tiny\n", section(report, command="ptebot run acme/tiny", place=OnTheHub("acme/tiny")))
    return replace(Branch(commit="b" * 40, manifest=report, files=files, card=card), **fields)


def pull(num: int = 1, report: Report = REPORT, **fields: Any) -> Pull:
    base = Pull(
        num=num,
        status="open",
        url=f"http://hub/acme/tiny/discussions/{num}",
        title=message.pr_title(report),
        marker=message.marker_of(report),
        comment_id="c",
        closed_by_us=False,
        conflicts=False,
    )
    return replace(base, **fields)


def state(*pulls: Pull) -> State:
    return State(repo_id="acme/tiny", head="0" * 40, source={}, pulls=list(pulls))


def test_nothing_there_opens_a_pull_request() -> None:
    assert decide(REPORT, state(), EMPTY, None) == Create()


def test_the_same_export_again_is_left_alone() -> None:
    again = reports.report(seconds=77.0, revision="2" * 40)
    step = decide(again, state(pull()), EMPTY, branch(REPORT))
    assert isinstance(step, Finish) and step.operation == "unchanged" and step.pull == pull()


def test_other_files_refresh_it() -> None:
    for other in (
        reports.report([reports.cell(content=b"other")]),
        reports.report(files={**reports.MODEL_FILES, "config.json": b"{}"}),
        reports.report(toolchain={**reports.TOOLCHAIN, "torch": "2.14.0"}),
        reports.report([*REPORT.cells, reports.failed()]),
    ):
        there = branch(REPORT)
        assert decide(other, state(pull()), EMPTY, there) == Update(pull=pull(), branch=there)


def test_a_branch_that_lost_something_is_refreshed() -> None:
    whole = branch(REPORT)
    one = next(iter(whole.files))
    broken = [
        replace(whole, files={path: file for path, file in whole.files.items() if path != one}),
        replace(whole, files={**whole.files, one: replace(whole.files[one], sha256=hashlib.sha256().hexdigest())}),
        replace(whole, files={path: file for path, file in whole.files.items() if path != quality.PLOT}),
        replace(whole, card=b"# Tiny\n"),
        replace(whole, card=None),
        replace(whole, manifest=None),
    ]
    for there in broken:
        assert isinstance(decide(REPORT, state(pull()), EMPTY, there), Update)


def test_a_description_that_lags_behind_is_brought_up() -> None:
    for stale in (pull(marker=MISSING), pull(report=reports.report([reports.cell()]))):
        assert decide(REPORT, state(stale), EMPTY, branch(REPORT)) == Describe(pull=stale, published=REPORT)


def test_of_several_the_oldest_stays() -> None:
    step = decide(REPORT, state(pull(3), pull(5), pull(8)), EMPTY, branch(REPORT))
    assert isinstance(step, Close) and step.pull.num == 8 and step.comment.startswith(CLOSED)
    step = decide(REPORT, state(pull(3), pull(5)), EMPTY, branch(REPORT))
    assert isinstance(step, Close) and step.pull.num == 5 and "pull request 3" in step.comment


def test_files_on_the_main_branch_need_no_pull_request() -> None:
    for now in (state(), state(pull(status="closed"))):
        step = decide(REPORT, now, branch(REPORT), None)
        assert isinstance(step, Finish) and step.operation == "unchanged" and step.pull is None


def test_a_closed_one_is_not_opened_again_for_the_same_weights() -> None:
    closed = pull(4, status="closed")
    for again in (REPORT, reports.report([reports.cell()]), reports.report(toolchain={"executorch": "9"})):
        step = decide(again, state(closed), EMPTY, None)
        assert isinstance(step, Finish) and step.operation == "none" and step.pull == closed and "4" in step.reason
    moved = reports.report(files={**reports.MODEL_FILES, "model.safetensors": b"new"})
    assert decide(moved, state(closed), EMPTY, None) == Create()


def test_one_that_we_closed_ourselves_counts_for_nothing() -> None:
    assert decide(REPORT, state(pull(status="closed", closed_by_us=True)), EMPTY, None) == Create()


def test_one_that_cannot_be_merged_is_replaced() -> None:
    step = decide(REPORT, state(pull(conflicts=True)), EMPTY, branch(REPORT))
    assert isinstance(step, Close) and step.comment.startswith(CLOSED)


def test_only_our_own_files_are_ever_stale() -> None:
    cells = [
        reports.cell(file=name) for name in ("../README.md", "x/../../a.pte", "xnnpack/a.pte", "/etc/a.pte", "b.txt")
    ]
    names = ["executorch/xnnpack/a.pte", "executorch/b.txt", "executorch/theirs.pte", "README.md"]
    files = {name: TreeFile(path=name, size_bytes=1, oid="", sha256=None) for name in names}
    assert branch(REPORT, manifest=reports.report(cells), files=files).our_files() == {"executorch/xnnpack/a.pte"}
