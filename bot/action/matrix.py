"""The matrix of a report for a job summary: one row for each backend at each precision. Pure; stage 6.

In: a report, and speeds where they were measured. Out: Markdown in which every word of the report is inert.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping

from bot.action import remedies
from bot.publish import markdown, quality, words
from bot.publish.markdown import code, text
from bot.speed import Speed
from exporter.report import Cell, Comparison, Figure, Report, Status

MOST_ROWS = 60
"""A table that is longer is no table any more; the report has every cell."""
SIGNS = {"<=": "≤", ">=": "≥"}
MARKS = {Status.FAILED: "❌", Status.SKIPPED: "➖"}
REFERENCES = {"quantized eager": "the quantized model"}
"""What a comparison is against, where the report's own word says little."""
VERDICTS = {"faithful": "small", "degraded": "⚠️ noticeable", "damaged": "🛑 damaged"}
"""exporter/bounds.py's verdicts in a word; any other is shown as it is."""

_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")

Speeds = Mapping[tuple[str, str], Speed]
"""By backend and precision."""


def prose(value: object, limit: int = 400) -> str:
    """As ``text``, but what stands between backticks is code where it is a plain name."""
    parts = re.split(r"`([^`]{1,80})`", markdown.one_line(value, limit))
    shown = "".join(_between(part) if number % 2 == 0 else code(part) for number, part in enumerate(parts))
    # Two pieces of code that touch would be read as one fence.
    return shown.replace("``", "`&#8203;`")


def _between(part: str) -> str:
    """Text beside code; its outer spaces count."""
    before, after = " " * part.startswith(" "), " " * (part.endswith(" ") and part.strip() != "")
    return f"{before}{text(part, len(part) + 1)}{after}"


def table(report: Report, speeds: Speeds | None = None) -> str:
    """Every cell with its figures, good or not."""
    header = ["backend", "status", "size, delegation", "parity", "quantization costs", "time"]
    header += ["prefill<br>tokens/s", "decode<br>tokens/s"] if speeds else []
    rows = [_row(cell, speeds) for cell in report.cells[:MOST_ROWS]]
    more = len(report.cells) - MOST_ROWS
    return markdown.table(header, rows) + (f"\n\n{more} more in `report.json`." if more > 0 else "")


def problems(report: Report) -> str:
    """Why each file that is missing is missing, and what to do; '' where none is."""
    bad = [cell for cell in report.cells if not cell.status.good]
    lines = [_problem(cell) for cell in bad[:MOST_ROWS]]
    if len(bad) > MOST_ROWS:
        lines.append(f"- {len(bad) - MOST_ROWS} more in `report.json`.")
    return "\n".join(lines)


def cautions(report: Report) -> str:
    """Files that run as they should and have lost much of the model; '' where there are none."""
    lost = [cell for cell in report.good_cells if cell.quality is not None and cell.quality.verdict != "faithful"]
    lines = [f"- {code(words.name(cell))}: {prose(cell.quality.words)}" for cell in lost if cell.quality is not None]
    lines += quality.repeating(report)
    if any(words.damaged(cell) for cell in lost):
        lines.append(f"\n{remedies.DAMAGED}")
    return "\n".join(lines)


def notes(report: Report) -> str:
    """What else a person should know of the files; '' where there is nothing."""
    lines = [
        f"- {code(words.name(cell))}: {'; '.join(prose(note) for note in cell.notes[:10])}"
        for cell in report.cells[:MOST_ROWS]
        if cell.notes
    ]
    return "\n".join(lines)


def duration(seconds: float) -> str:
    """``4.2 s`` or ``3 min 07 s``."""
    if seconds < 99.95:
        return f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s"


def _row(cell: Cell, speeds: Speeds | None) -> list[str]:
    speed = (speeds or {}).get((cell.backend, cell.precision))
    row = [
        f"{MARKS.get(cell.status, '✅')} {cell.status.value}",
        _file(cell),
        _parity(cell),
        _quality(cell),
        duration(sum(cell.seconds.values())) if cell.seconds else "–",
    ]
    if speeds:
        row += [f"{speed.prefill:,.1f}", f"{speed.decode:,.1f}"] if speed else ["–", "–"]
    name = f"**{text(cell.backend, 60)}**&nbsp;{code(cell.precision, 40)}"
    name += f"<br><sub>KV cache {code(cell.cache, 40)}</sub>" if cell.cache != "fp32" else ""
    return [name, *(_unbroken(one) for one in row)]


def _file(cell: Cell) -> str:
    delegation = words.delegation(cell).replace(", ", "<br>")
    return f"{words.size(cell.size_bytes) or '–'}{f'<br><sub>{delegation}</sub>' if delegation else ''}"


def _unbroken(shown: str) -> str:
    """A cell whose lines end where it says, not where a narrow column would have them end."""
    return shown.replace(" ", "&nbsp;") if len(shown) < 240 else shown


def _parity(cell: Cell) -> str:
    """The figure that says most about the file beside its bound."""
    if cell.parity is None:
        return "–"
    comparison, figure = telling(cell)
    if comparison is None or figure is None:
        return "passed" if cell.parity.passed else "failed"
    sign = SIGNS.get(figure.relation) or text(figure.relation, 10)
    bound = "" if figure.bound is None else f"{'' if figure.passed else ', bound'} {sign} {_short(figure.bound)}"
    name = text(figure.name.replace("_", " "), 60)
    against = REFERENCES.get(comparison.against) or text(comparison.against, 40)
    return f"**{_short(figure.value)}**{bound}<br><sub>{name}<br>to {against}</sub>"


def telling(cell: Cell) -> tuple[Comparison | None, Figure | None]:
    """The first figure that missed its bound; else the first with a bound, which is about the lowering."""
    comparisons = cell.parity.comparisons if cell.parity is not None else []
    pairs = [(item, figure) for item in comparisons for figure in item.figures]
    missed = [pair for pair in pairs if not pair[1].passed]
    bounded = [pair for pair in pairs if pair[1].bound is not None]
    return next(iter([*missed, *bounded, *pairs]), (None, None))


def _quality(cell: Cell) -> str:
    if cell.quality is None:
        return "none" if cell.parity is not None and cell.status.good else "–"
    cost = cell.quality
    verdict = VERDICTS.get(cost.verdict) or text(cost.verdict, 40)
    tail = "" if cost.kl_p99 is None else f", 99% below {words.nats(cost.kl_p99)}"
    perplexity = f"{words.perplexity(cost.perplexity_full)} → {words.perplexity(cost.perplexity)}"
    return (
        f"{verdict}<br><sub>perplexity {perplexity}<br>"
        f"same top token {words.share(cost.top1_agreement)}<br>KL {words.nats(cost.kl_mean)}{tail}</sub>"
    )


def _short(value: float) -> str:
    """Two digits; what is far from 1 as a power of ten, which no line break can cut."""
    if not math.isfinite(value):
        return text(value)
    mantissa, _, exponent = f"{value:.1e}".partition("e")
    if value == 0 or 1e-3 <= abs(value) < 1e6:
        return f"{value:.2g}" if abs(value) < 10 else f"{value:,.0f}"
    return f"{mantissa.removesuffix('.0')}×10{str(int(exponent)).translate(_RAISED)}"


def _problem(cell: Cell) -> str:
    stage = f" at *{text(cell.failed_stage, 60)}*" if cell.failed_stage else ""
    reason = f": {prose(cell.reason)}" if cell.reason else ""
    differs = cell.parity.first_difference if cell.parity is not None else None
    where = f" First difference: {text(differs)}." if differs and differs not in (cell.reason or "") else ""
    advice = remedies.of_cell(cell)
    what = f"<br>**What to do:** {advice}" if advice and cell.status is Status.FAILED else ""
    name = code(words.name(cell))
    return f"- {MARKS.get(cell.status, '')} {name} {cell.status.value}{stage}{reason}{where}{what}"
