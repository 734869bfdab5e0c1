"""One word and one exit code for every way that a step can end."""

from __future__ import annotations

import pytest

from bot.action.status import FailOn, broken, ignored, judge
from bot.errors import CellsFailed, GitHubNotAuthorized
from exporter.errors import NoGoodCell
from exporter.report import Cell, Status
from tests.bot.reports import cell, failed, report

SKIPPED = failed("openvino", "8da4w", status=Status.SKIPPED, failed_stage=None, reason="takes fp32 only")


@pytest.mark.parametrize(
    ("cells", "fail_on", "status", "exit_code"),
    [
        ([cell()], "any", "passed", 0),
        ([cell(), SKIPPED], "any", "passed", 0),
        ([cell(), failed()], "any", "partial", CellsFailed.exit_code),
        ([cell(), failed()], "all", "partial", 0),
        ([cell(), failed()], "never", "partial", 0),
        ([failed(), SKIPPED], "any", "failed", CellsFailed.exit_code),
        ([failed(), SKIPPED], "all", "failed", NoGoodCell.exit_code),
        ([failed(), SKIPPED], "never", "failed", 0),
        ([SKIPPED], "any", "failed", NoGoodCell.exit_code),
        ([SKIPPED], "all", "failed", NoGoodCell.exit_code),
        ([cell(status=Status.INSPECTED)], "all", "passed", 0),
    ],
)
def test_what_fails_a_step(cells: list[Cell], fail_on: FailOn, status: str, exit_code: int) -> None:
    ended = judge(report(cells), fail_on)
    assert (ended.status, ended.exit_code) == (status, exit_code)
    assert (ended.failure is None) == (exit_code == 0)


def test_ends_without_a_report() -> None:
    assert (judge(None, "any").status, judge(None, "any").exit_code) == ("unchanged", 0)
    assert (ignored().status, ignored().exit_code) == ("ignored", 0)
    assert (broken(GitHubNotAuthorized("x")).status, broken(GitHubNotAuthorized("x")).exit_code) == ("error", 72)
    assert (broken(ValueError("x")).status, broken(ValueError("x")).exit_code) == ("error", 1)


def test_a_failure_names_its_cells() -> None:
    failure = judge(report([cell(), failed("openvino"), failed("xnnpack", "8da4w")]), "any").failure
    assert failure is not None and failure.what == "2 of 3 failed: openvino fp32, xnnpack 8da4w."
