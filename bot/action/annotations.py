"""Failures as annotations of the run, each with its remedy. Stage 6.

In: the end of a step and its report. Out: ``::error`` and ``::warning`` commands through the log. GitHub shows ten of
each for a step, so what is over is counted in the tenth.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bot.action import remedies
from bot.action.commands import Level, Log
from bot.action.status import Ended
from bot.publish import words
from exporter.errors import PtebotError
from exporter.report import Report, Status

MOST = 10
"""Of one level for one step; docs.github.com, "Usage limits" of annotations."""


@dataclass(frozen=True, kw_only=True)
class Annotation:
    """One annotation."""

    level: Level
    title: str
    message: str
    file: str = ""
    line: int | None = None


def annotate(log: Log, ended: Ended, report: Report | None = None, error: BaseException | None = None) -> None:
    """Print what went wrong; nothing where nothing did."""
    for one in bounded(of_step(ended, report, error)):
        log.annotate(one.level, one.title, one.message, file=one.file, line=one.line)


def of_step(ended: Ended, report: Report | None = None, error: BaseException | None = None) -> list[Annotation]:
    """Every annotation of a step, however many."""
    found = []
    failure = error or ended.failure
    if failure is not None:
        found.append(_failure(failure))
    level: Level = "error" if ended.exit_code else "warning"
    for cell in report.cells if report is not None else []:
        if cell.status is Status.FAILED:
            stage = f" at {cell.failed_stage}" if cell.failed_stage else ""
            message = f"{cell.reason or 'no reason was given'}\nWhat to do: {remedies.of_cell(cell)}"
            found.append(Annotation(level=level, title=f"{words.name(cell)} failed{stage}", message=message))
        elif words.damaged(cell) and cell.quality is not None:
            message = f"{cell.quality.words}\nWhat to do: {remedies.DAMAGED}"
            found.append(
                Annotation(level="warning", title=f"{words.name(cell)} lost much of the model", message=message)
            )
    return found


def bounded(found: Iterable[Annotation]) -> list[Annotation]:
    """At most ``MOST`` of each level; the last one counts those that are not shown."""
    kept: list[Annotation] = []
    found = list(found)
    for level in ("error", "warning", "notice"):
        same = [one for one in found if one.level == level]
        kept += same[: MOST if len(same) <= MOST else MOST - 1]
        if len(same) > MOST:
            more = f"{len(same) - MOST + 1} more are in the job summary."
            kept.append(Annotation(level=level, title="More of this kind", message=more))
    return kept


def _failure(error: BaseException) -> Annotation:
    if isinstance(error, PtebotError):
        advice = f"\nWhat to do: {error.advice}" if error.advice else ""
        return Annotation(level="error", title=error.title, message=f"{error.what}{advice}")
    message = f"{type(error).__name__}: {error}\nWhat to do: {PtebotError.remedy}"
    return Annotation(level="error", title=PtebotError.title, message=message)
