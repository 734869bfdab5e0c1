"""Small plots for a job summary: a report in, Mermaid in fenced blocks out. Pure; stage 6.

GitHub strips inline SVG and data addresses from summaries but draws Mermaid, so the plots are ``xychart-beta``
(mermaid.js.org, XY Chart). Labels are cut down to letters that need no escaping there; numbers are plain decimals.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence

from bot.action import matrix
from bot.publish import words
from exporter.report import Cell, Figure, Report

MOST_BARS = 16
MOST_DECADES = 6.0
"""Where the parity plot ends: a figure of zero would be endlessly far below its bound."""
MOST_KL = 1e4
"""Where a bar ends at the latest."""
WIDTH, BAR_HEIGHT, FRAME_HEIGHT = 720, 34, 84
"""Pixels; a summary's column on GitHub is about 740 wide."""
COLOUR = "#8b5cf6"
"""Seen on white and on black."""
LEAST_LABELLED = 0.1
"""Of the longest bar: the number at a shorter one would lie over its name, so then no bar has one."""
_UNSAFE = re.compile(r"[^A-Za-z0-9 ._+-]")


def sizes(report: Report) -> str:
    """File sizes in decimal megabytes; '' where there is nothing to compare."""
    cells = [cell for cell in report.good_cells if cell.size_bytes]
    small = max((cell.size_bytes or 0 for cell in cells), default=0) < 1e6
    unit, divisor = ("kB", 1e3) if small else ("MB", 1e6)
    return _chart(f"Size of the file in {unit}", [(cell, (cell.size_bytes or 0) / divisor) for cell in cells])


def parity(report: Report) -> str:
    """How far each file stays below its bound: powers of ten, 0 at the bound, of the figure that the table shows."""
    found = [(cell, room) for cell in report.cells if (room := headroom(cell)) is not None]
    return _chart("Parity: powers of ten below the bound (longer is better)", found)


def costs(report: Report) -> str:
    """KL of each file from the original, the smallest file first, so that the bars fall where bytes buy quality."""
    cells = [cell for cell in report.good_cells if cell.size_bytes and cell.quality is not None]
    found = [(cell, kl) for cell in cells if cell.quality is not None and math.isfinite(kl := cell.quality.kl_mean)]
    found.sort(key=lambda one: one[0].size_bytes or 0)
    small = max((kl for _, kl in found), default=0.0) < 1
    unit, factor = ("thousandths of a nat", 1e3) if small else ("nats", 1.0)
    title = f"KL from the original in {unit}, smallest file first (shorter is better)"
    return _chart(title, [(cell, min(max(kl, 0.0) * factor, MOST_KL)) for cell, kl in found])


def headroom(cell: Cell) -> float | None:
    """Powers of ten between a cell's telling figure and its bound, 0 to ``MOST_DECADES``; None without one."""
    _, figure = matrix.telling(cell)
    return None if figure is None or figure.bound is None else _decades(figure)


def _decades(figure: Figure) -> float:
    """For ``>=``, figures are shares, and what counts is their distance from 1."""
    assert figure.bound is not None  # noqa: S101 - by the caller
    value, bound = figure.value, figure.bound
    if figure.relation == ">=":
        value, bound = 1 - value, 1 - bound
    if not figure.passed or math.isnan(value) or bound <= 0:
        return 0.0
    return min(max(math.log10(bound / value), 0.0), MOST_DECADES) if value > 0 else MOST_DECADES


def _chart(title: str, bars: Sequence[tuple[Cell, float]]) -> str:
    shown = bars[:MOST_BARS]
    if len(shown) < 2:
        return ""
    labels = _labels([cell for cell, _ in shown])
    top = max(max(value for _, value in shown) * 1.05, 0.01)
    height = FRAME_HEIGHT + BAR_HEIGHT * len(shown)
    return "\n".join(
        [
            "```mermaid",
            "---",
            "config:",
            "  xyChart:",
            f"    width: {WIDTH}",
            f"    height: {height}",
            "    titleFontSize: 14",
            f"    showDataLabel: {str(min(value for _, value in shown) > LEAST_LABELLED * top).lower()}",
            "    xAxis:",
            "      labelFontSize: 12",
            "    yAxis:",
            "      labelFontSize: 11",
            "  themeVariables:",
            "    xyChart:",
            f'      plotColorPalette: "{COLOUR}"',
            "---",
            "xychart-beta horizontal",
            f'    title "{title}"',
            f"    x-axis [{', '.join(labels)}]",
            f"    y-axis 0 --> {_number(top)}",
            f"    bar [{', '.join(_number(value) for _, value in shown)}]",
            "```",
        ]
    )


def _labels(cells: list[Cell]) -> list[str]:
    """Quoted names that are all different: equal ones would share a bar."""
    labels: list[str] = []
    for number, cell in enumerate(cells, 1):
        label = " ".join(_UNSAFE.sub(" ", words.name(cell))[:28].split())
        labels.append(label if label and label not in labels else f"{label[:20]} {number}".strip())
    return [f'"{label}"' for label in labels]


def _number(value: float) -> str:
    """A plain decimal of some three digits."""
    return f"{value:.{0 if value >= 100 else 1 if value >= 10 else 2}f}"
