"""Parity plots: a cell of a report in, the geometry of a small drawing out; the template writes the SVG. Pure.

What quantization costs is drawn by ``bot.publish.quality_svg``, as it is published. Of parity, each figure with a bound
becomes a row: how much of what the bound allows was used, on a logarithmic axis that ends a little right of the bound.
Figures that must be at least their bound are shares, and some others are ratios whose best is 1: there, what counts is
the distance from 1. A figure of zero uses nothing and sits at the axis' left end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bot.publish import quality_plot, quality_svg
from exporter.report import Cell, Figure, ModelInfo

BEST_AT_ONE = frozenset({"perplexity_ratio", "kl_over_quantized_eager"})
"""Ratios of exporter/bounds.py whose best is 1, so that what lies below uses nothing of what the bound allows."""
DECADES = 6
"""Left of the bound; what is further below sits at the end."""
BEYOND = 1.0
"""Decades right of the bound, for figures that miss it."""
WIDTH, LEFT, RIGHT = 320.0, 6.0, 314.0
ROW, TOP, BOTTOM = 40.0, 4.0, 22.0
MOST_ROWS = 12


@dataclass(frozen=True)
class Row:
    """One figure: where its mark is, and what stands beside it."""

    label: str
    against: str
    shown: str
    bound: str
    passed: bool
    x: float
    y: float
    """Of the track."""
    at_end: bool
    """Whether it lies further left or right than the axis goes."""


@dataclass(frozen=True)
class Plot:
    """One cell's drawing; lengths are units of its view box."""

    title: str
    description: str
    rows: list[Row]
    ticks: list[tuple[float, str]]
    bound_x: float
    width: float
    height: float


def used(figure: Figure) -> float | None:
    """What was used of what the bound allows: 1 at the bound, more where it is missed; None without a bound."""
    if figure.bound is None or not (math.isfinite(figure.value) and math.isfinite(figure.bound)):
        return None
    value, bound = figure.value, figure.bound
    if figure.relation == ">=":
        value, bound = 1 - value, 1 - bound
    elif figure.name in BEST_AT_ONE:
        value, bound = value - 1, bound - 1
    if bound <= 0:
        return 0.0 if figure.passed else math.inf
    return max(value, 0.0) / bound


def plot(cell: Cell) -> Plot | None:
    """The drawing of a cell's parity; None where nothing was compared with a bound."""
    found = [
        (comparison.against, figure, share)
        for comparison in (cell.parity.comparisons if cell.parity is not None else [])
        for figure in comparison.figures
        if (share := used(figure)) is not None
    ][:MOST_ROWS]
    if not found:
        return None
    rows = [_row(number, *one) for number, one in enumerate(found)]
    name = f"{cell.backend} {cell.precision}"
    told = "; ".join(
        f"{row.label} to {row.against}: {row.shown}, bound {row.bound}, {'met' if row.passed else 'missed'}"
        for row in rows
    )
    ticks = [(_x(10.0**-power), _tick(power)) for power in range(DECADES, -1, -2)]
    return Plot(
        title=f"Parity of {name}",
        description=f"{told}.",
        rows=rows,
        ticks=ticks,
        bound_x=_x(1.0),
        width=WIDTH,
        height=TOP + ROW * len(rows) + BOTTOM,
    )


def costs(cells: Sequence[Cell], model: ModelInfo | None) -> Markup | None:
    """Size against KL of a job's files as an element of its page; None where there are not two to compare."""
    drawing = quality_plot.of([cell for cell in cells if cell.status.good], model)
    # ElementTree wrote it, so every text of the report in it is escaped.
    return Markup(quality_svg.inline(drawing)) if drawing is not None else None  # noqa: S704


def number(value: float) -> str:
    """Three digits, as short as they get."""
    if not math.isfinite(value):
        return str(value)
    return f"{value:.3g}"


def _row(place: int, against: str, figure: Figure, share: float) -> Row:
    sign = {"<=": "≤", ">=": "≥"}.get(figure.relation, figure.relation)
    shown = f"{figure.value:.4g}" if figure.relation == ">=" else number(figure.value)
    return Row(
        label=figure.name.replace("_", " "),
        against=against,
        shown=shown,
        bound=f"{sign} {number(figure.bound or 0.0)}",
        passed=figure.passed,
        x=_x(share),
        y=TOP + ROW * place + 27,
        at_end=not 10.0**-DECADES < share < 10.0**BEYOND,
    )


def _x(share: float) -> float:
    power = -math.inf if share <= 0 else math.log10(share) if math.isfinite(share) else math.inf
    power = min(max(power, -DECADES), BEYOND)
    return round(LEFT + (RIGHT - LEFT) * (power + DECADES) / (DECADES + BEYOND), 1)


def _tick(power: int) -> str:
    return "bound" if power == 0 else "1 %" if power == 2 else f"10{str(-power).translate(_RAISED)}"


_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
