"""Failures as annotations: each with its remedy, never more than GitHub shows."""

from __future__ import annotations

import io
from collections import Counter

from bot.action.annotations import MOST, annotate, bounded, of_step
from bot.action.commands import Log
from bot.action.status import broken, ignored, judge
from exporter.errors import NotACausalLM
from exporter.report import Report, Status
from tests.bot.action.runner_syntax import commands
from tests.bot.reports import cell, failed, report


def said(one: Report | None, fail_on: str = "any", error: BaseException | None = None) -> list[tuple[str, str, str]]:
    stream = io.StringIO()
    ended = broken(error) if error else judge(one, fail_on)  # type: ignore[arg-type]
    annotate(Log(stream, on_github=True), ended, one, error)
    return [(each.name, each.properties["title"], each.data) for each in commands(stream.getvalue())]


def test_a_failed_cell_has_its_reason_and_its_remedy() -> None:
    step, one = said(report([cell(), failed("xnnpack", "8da4w")]))
    assert step[:2] == ("error", "Not every file passed") and "What to do:" in step[2]
    assert one == (
        "error",
        "xnnpack 8da4w failed at lower",
        "the compiler gave up\nWhat to do: Leave this backend out (`backends`), or report the reason with the log: "
        "the others are not affected.",
    )


def test_what_does_not_fail_the_step_is_a_warning() -> None:
    assert [level for level, _, _ in said(report([cell(), failed()]), "all")] == ["warning"]
    ((level, title, _),) = said(report([cell("xnnpack", "8da4w", verdict="damaged")]))
    assert (level, title) == ("warning", "xnnpack 8da4w lost much of the model")


def test_nothing_where_nothing_went_wrong() -> None:
    skipped = failed(status=Status.SKIPPED)
    assert said(report([cell(), skipped])) == [] == said(None)
    assert of_step(ignored()) == []


def test_an_early_end() -> None:
    assert said(None, error=NotACausalLM("It says BertModel.")) == [
        ("error", "Not a causal language model", f"It says BertModel.\nWhat to do: {NotACausalLM.remedy}")
    ]
    ((level, title, message),) = said(None, error=ValueError("x"))
    assert (level, title) == ("error", "Unexpected failure") and message.startswith("ValueError: x\n")


def test_no_more_than_github_shows() -> None:
    cells = [cell("xnnpack", f"p{number}", verdict="damaged") for number in range(30)]
    cells += [failed("openvino", f"p{number}") for number in range(30)]
    found = of_step(judge(report(cells), "any"), report(cells))
    assert len(found) == 61
    kept = bounded(found)
    assert Counter(one.level for one in kept) == {"error": MOST, "warning": MOST}
    assert kept[MOST - 1].message == "22 more are in the job summary."
    assert kept[0].title == "Not every file passed"
    assert bounded(found[:9]) == sorted(found[:9], key=lambda one: one.level)


def test_hostile_reasons_stay_in_their_annotation() -> None:
    evil = "x\n::error::y\r\n##[error]z%0A::warning::w"
    for level, title, _ in said(report([failed(evil, evil, reason=evil, failed_stage=evil)])):
        assert level == "error" and "\n" not in title
