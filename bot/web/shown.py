"""What the page of a job shows of its reports and events: records in, rows out. Pure; nothing is escaped here.

Reports come from the store, but a sandbox wrote what is in them: one that cannot be read is told, never raised.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from markupsafe import Markup
from pydantic import ValidationError

from bot.publish import words as cell_words
from bot.server.records import Event
from bot.web import plots
from exporter import report as reports
from exporter.report import Cell, Report, Status

MOST_CELLS = 60
"""A table that is longer is no table any more; the job's JSON has every cell."""
MOST_TEXTS, MOST_ANSWERS = 8, 12
"""Rows of one file."""
VERIFIED = {
    Status.RAN: ("ran", "The written file ran on the ExecuTorch runtime and met every bound."),
    Status.SIMULATED: ("simulated", "A simulator of the device ran the delegate and met every bound."),
    Status.INTERPRETED: ("interpreted", "An independent interpreter ran what is in the file and met every bound."),
    Status.INSPECTED: ("inspected", "Only the file's structure was checked."),
    Status.SKIPPED: ("skipped", "It was not made."),
    Status.FAILED: ("failed", "No file is offered."),
}
TONES = {Status.SKIPPED: "calm", Status.FAILED: "bad", Status.INSPECTED: "warn"}
VERDICTS = {"faithful": ("small", "good"), "degraded": ("noticeable", "warn"), "damaged": ("damaged", "bad")}
"""exporter/bounds.py's verdicts: what quantization cost, in a word, and its colour."""


@dataclass(frozen=True)
class TextRow:
    """A file's figures on one kind of text, in words."""

    kind: str
    perplexity: str
    kl: str
    tail: str
    agreement: str


@dataclass(frozen=True)
class AnswerRow:
    """A file's answer beside the original's."""

    prompt: str
    original: str
    file: str
    same: bool
    repeats: bool


@dataclass(frozen=True)
class CellRow:
    """One backend at one precision, for the matrix."""

    backend: str
    precision: str
    title: str
    word: str
    meaning: str
    tone: str
    size: str
    delegation: str
    parity: str
    verdict: str
    verdict_tone: str
    quality: str
    seconds: float | None
    file: str
    texts: list[TextRow]
    """What quantization costs on each kind of text."""
    answers: list[AnswerRow]
    alike: str
    """How many answers are the original's; '' where none were asked for."""
    reason: str
    stage: str
    plot: plots.Plot | None


@dataclass(frozen=True)
class Matrix:
    """All that a job's reports say."""

    rows: list[CellRow]
    more: int
    unreadable: list[str]
    """Parts whose report is none."""
    facts: list[tuple[str, str]]
    shared_seconds: list[tuple[str, float]]
    """Stages that cells share."""
    costs: Markup | None
    """The plot of size against KL."""


@dataclass(frozen=True)
class Step:
    """One stage of a job, in the order in which they began."""

    words: str
    message: str
    started_at: float
    seconds: float
    running: bool
    x: float
    width: float
    """Its bar, in hundredths of the whole time."""


FIRST_STAGE = "plan"
"""What every try of a job begins with (``bot.workflow``)."""


@dataclass(frozen=True)
class Try:
    """One go at a job that was begun anew later."""

    began_at: float
    seconds: float
    last: str
    """The stage that it came to."""
    message: str


def matrix(parts: Mapping[str, str]) -> Matrix | None:
    """The rows of a job's reports, by part as the store keeps them; None where there is none yet."""
    wanted = {"": parts[""]} if "" in parts else dict(parts)
    found: list[Report] = []
    unreadable = []
    for part, text in sorted(wanted.items()):
        try:
            found.append(reports.loads(text))
        except (ValidationError, ValueError, RecursionError):
            unreadable.append(part or "the whole job")
    if not wanted:
        return None
    cells = [cell for report in found for cell in report.cells]
    return Matrix(
        rows=[_row(cell) for cell in cells[:MOST_CELLS]],
        more=max(len(cells) - MOST_CELLS, 0),
        unreadable=unreadable,
        facts=_facts(found[0]) if found else [],
        shared_seconds=[(name, value) for one in found for name, value in one.seconds.items()][:MOST_CELLS],
        costs=plots.costs(cells, found[0].model if found else None),
    )


def steps(events: Sequence[Event], now: float, ended_at: float | None) -> list[Step]:
    """The stages with their times, from the events of kind ``stage`` in order."""
    if not events:
        return []
    ends = [event.at for event in events[1:]] + [ended_at if ended_at is not None else now]
    first, whole = events[0].at, max(ends[-1] - events[0].at, 1e-3)
    return [
        Step(
            words=where(event),
            message=event.message,
            started_at=event.at,
            seconds=max(end - event.at, 0.0),
            running=ended_at is None and place == len(events) - 1,
            x=round(min(max(100 * (event.at - first) / whole, 0), 100), 2),
            width=round(max(100 * (end - event.at) / whole, 0.4), 2),
        )
        for place, (event, end) in enumerate(zip(events, ends, strict=True))
    ]


def tries(events: Sequence[Event], *, begun: bool = True) -> tuple[list[Try], Sequence[Event]]:
    """Earlier goes at a job, and the stages of the one that counts, from the events of kind ``stage`` in order.

    ``begun``: whether the one that counts has; else all are of earlier ones.
    """
    starts = [place for place, event in enumerate(events) if event.stage == FIRST_STAGE and place] or [0]
    bounds = [0, *starts] if starts[0] else starts
    if not begun and events:
        bounds.append(len(events))
    earlier = [
        Try(
            began_at=events[begin].at,
            seconds=max(events[end - 1].at - events[begin].at, 0.0),
            last=where(events[end - 1]),
            message=events[end - 1].message,
        )
        for begin, end in pairwise(bounds)
    ]
    return earlier, events[bounds[-1] :]


def where(event: Event) -> str:
    """``lower xnnpack 8da4w``."""
    return " ".join(part for part in (event.stage, event.backend, event.precision) if part)


def _row(cell: Cell) -> CellRow:
    word, meaning = VERIFIED[cell.status]
    verdict, verdict_tone = "", ""
    if cell.quality is not None:
        verdict, verdict_tone = VERDICTS.get(cell.quality.verdict, (cell.quality.verdict, "warn"))
    return CellRow(
        backend=cell.backend,
        precision=cell.precision,
        title=cell.title or "",
        word=word,
        meaning=meaning,
        tone=TONES.get(cell.status, "good"),
        size=cell_words.size(cell.size_bytes),
        delegation=cell_words.delegation(cell),
        parity=cell_words.parity(cell),
        verdict=verdict,
        verdict_tone=verdict_tone,
        quality=cell_words.quality(cell),
        seconds=sum(cell.seconds.values()) if cell.seconds else None,
        file=cell.file or "",
        texts=_texts(cell),
        answers=_answers(cell),
        alike=cell_words.answers_alike(cell),
        reason=cell.reason or "",
        stage=cell.failed_stage or "",
        plot=plots.plot(cell),
    )


def _texts(cell: Cell) -> list[TextRow]:
    return [
        TextRow(
            kind=cell_words.TEXTS.get(one.name, one.name),
            perplexity=f"{cell_words.perplexity(one.perplexity_full)} → {cell_words.perplexity(one.perplexity)}",
            kl=cell_words.nats(one.kl_mean),
            tail=cell_words.nats(one.kl_p99),
            agreement=cell_words.share(one.top1_agreement),
        )
        for one in (cell.quality.texts[:MOST_TEXTS] if cell.quality is not None else [])
    ]


def _answers(cell: Cell) -> list[AnswerRow]:
    return [
        AnswerRow(prompt=one.prompt, original=one.original, file=one.file, same=one.same, repeats=one.repeats)
        for one in (cell.quality.answers[:MOST_ANSWERS] if cell.quality is not None else [])
    ]


def _facts(report: Report) -> list[tuple[str, str]]:
    model, host = report.model, report.host
    return [
        ("Architecture", model.architecture),
        ("Parameters", f"{model.parameters:,}"),
        ("Checkpoint", model.dtype),
        ("Context", f"{report.max_seq_len:,} tokens"),
        ("Made on", f"{host.system} {host.machine}, {host.cpu}"),
        ("Peak memory", cell_words.size(report.peak_rss_bytes)),
        ("Toolchain", ", ".join(f"{name} {version}" for name, version in list(report.toolchain.items())[:12])),
    ]
