"""How a step ended: a report, what was published and ``fail-on`` in; one word and an exit code out. Pure; stage 6."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from bot.errors import CellsFailed
from bot.export_process import nothing_good
from bot.publish.words import name
from exporter.errors import PtebotError
from exporter.report import Report, Status

StepStatus = Literal["passed", "partial", "failed", "unchanged", "ignored", "error"]
FailOn = Literal["any", "all", "never"]

MEANINGS: dict[StepStatus, str] = {
    "passed": "every file that could be made met its bounds",
    "partial": "some files met their bounds, others failed",
    "failed": "no file met its bounds; nothing was offered",
    "unchanged": "there was nothing to do",
    "ignored": "the event asks for nothing",
    "error": "the work could not be done; the log and the summary say why",
}
"""What each word means, for docs and for action.yml."""


@dataclass(frozen=True, kw_only=True)
class Ended:
    """A step's end."""

    status: StepStatus
    exit_code: int = 0
    failure: PtebotError | None = None
    """Why the step fails, where it does."""


def judge(report: Report | None, fail_on: FailOn) -> Ended:
    """How a job ended.

    Args:
        report: of the export; None where none was needed.
        fail_on: which failed cells fail the step. A cell that was skipped (its backend does not take the precision,
            or is not on this machine) is no failure; that not one file is left is one, unless ``never``.
    """
    if report is None:
        return Ended(status="unchanged")
    bad = [cell for cell in report.cells if cell.status is Status.FAILED]
    good = report.good_cells
    status: StepStatus = "failed" if not good else "partial" if bad else "passed"
    failure: PtebotError | None = None
    if bad and fail_on == "any":
        failure = CellsFailed(f"{len(bad)} of {len(report.cells)} failed: {', '.join(map(name, bad))}.")
    elif not good and fail_on != "never":
        failure = nothing_good(
            report, f"None of {len(report.cells)} cells has a file that passed; nothing was published."
        )
    return Ended(status=status, exit_code=failure.exit_code if failure else 0, failure=failure)


def ignored() -> Ended:
    """The event asks for nothing."""
    return Ended(status="ignored")


def broken(error: BaseException) -> Ended:
    """The work could not be done; a failure that we cannot explain is a defect, exit code 1."""
    if isinstance(error, PtebotError):
        return Ended(status="error", exit_code=error.exit_code, failure=error)
    return Ended(status="error", exit_code=PtebotError.exit_code)
