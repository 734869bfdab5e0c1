"""Size against KL: the cells of a report in, the places of marks on a small drawing out. Pure; stage 5.

Both axes are logarithmic, for both ratios count: half the bytes, a tenth of the KL. What costs nothing (the original,
files whose weights are kept, a KL of 0) stands on a line of its own below the axis. Marks are named in a column at the
right, each at the end of a thin line from its mark, so that names never lie over each other. Nothing is escaped here,
but every text is one line of characters that can be seen; ``bot.publish.quality_svg`` draws it.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bot.publish import words
from bot.publish.markdown import one_line
from exporter.report import Cell, ModelInfo, Report

MOST_FILES = 24
"""More names would be a wall; the table has every file."""
MOST_TRIED = 200
MOST_BYTES = 1 << 62
LEAST_KL, MOST_KL = 1e-6, 1e2
"""Where the axis ends at the latest; what lies beyond stands at its end, what lies below on the line of no cost."""
WIDTH = 830.0
LEFT, RIGHT, NAMES = 62.0, 420.0, 452.0
"""The axis of sizes, and where names begin."""
TOP, DRAWN, ZERO, BOTTOM = 42.0, 190.0, 34.0, 52.0
"""Above the axis of KL, its least length, from its end to the line of no cost, and below that."""
NAME_HEIGHT = 18.0
MOST_NAME = 28
MARGIN = 14.0
_TONES = {"faithful": "good", "degraded": "warn", "damaged": "bad"}
_STEPS = (1, 2, 2.5, 5, 10)
_RAISED = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


@dataclass(frozen=True, kw_only=True)
class Mark:
    """One file, the original, or an assignment that was tried."""

    name: str
    told: str
    """Its size and KL in words."""
    tone: str
    """``good``, ``warn`` or ``bad`` by the verdict, ``exact`` where nothing was lost, ``plain`` otherwise."""
    size_bytes: int
    kl: float
    x: float = 0.0
    y: float = 0.0
    name_y: float = 0.0
    chosen: bool = False
    """Of a tried assignment: whether it became the file."""


@dataclass(frozen=True)
class Scatter:
    """The drawing; lengths are units of its view box."""

    title: str
    description: str
    """The same in words, for who cannot see it."""
    marks: list[Mark]
    tried: list[Mark]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    bottom: float
    """Where the axis of KL ends."""
    zero_y: float | None
    """The line of no cost; None where nothing stands on it."""
    left_out: int
    """Files that have no room."""
    width: float
    height: float


def scatter(report: Report) -> Scatter | None:
    """The drawing of a report; see ``of``."""
    return of(report.good_cells, report.model)


def of(cells: Sequence[Cell], model: ModelInfo | None) -> Scatter | None:
    """The drawing of files beside their original; None where there are not two to compare, one with a KL among them.

    Args:
        cells: files that are offered; those without a size or a finite KL are left out, exact ones have none.
        model: where the original's size comes from: its weights as they are published.
    """
    files = [mark for cell in cells if (mark := _file(cell)) is not None]
    marks = [*_original(model), *files[:MOST_FILES]]
    if len(marks) < 2 or all(mark.tone == "exact" for mark in marks):
        return None
    tried = _tried(cells)
    x_axis = _Sizes([mark.size_bytes for mark in [*marks, *tried]])
    y_axis = _Costs([mark.kl for mark in [*marks, *tried]], max(DRAWN, NAME_HEIGHT * len(marks) - ZERO))
    placed = [replace(one, x=x_axis.at(one.size_bytes), y=y_axis.at(one.kl)) for one in marks]
    zero = y_axis.zero if any(one.kl < LEAST_KL for one in [*marks, *tried]) else None
    end = zero if zero is not None else y_axis.bottom
    told = "; ".join(f"{one.name}: {one.told}" for one in marks)
    return Scatter(
        title="Size of each file against what quantization costs",
        description=f"{told}. Further left is smaller, further down is closer to the original.",
        marks=_named(placed, end),
        tried=[replace(one, x=x_axis.at(one.size_bytes), y=y_axis.at(one.kl)) for one in tried],
        x_ticks=x_axis.ticks(),
        y_ticks=y_axis.ticks(),
        bottom=y_axis.bottom,
        zero_y=zero,
        left_out=max(len(files) - MOST_FILES, 0),
        width=WIDTH,
        height=end + BOTTOM,
    )


def _file(cell: Cell) -> Mark | None:
    size_bytes = cell.size_bytes or 0
    kl = 0.0 if words.exact(cell) else cell.quality.kl_mean if cell.quality is not None else math.nan
    if not (cell.status.good and 0 < size_bytes <= MOST_BYTES and math.isfinite(kl)):
        return None
    tone = "exact" if cell.quality is None else _TONES.get(cell.quality.verdict, "plain")
    told = f"{words.size(size_bytes)}, " + ("exact" if tone == "exact" else f"KL {words.nats(kl)}")
    return Mark(
        name=one_line(words.name(cell) + ("" if cell.cache == "fp32" else f", KV {cell.cache}"), MOST_NAME),
        told=told,
        tone=tone,
        size_bytes=size_bytes,
        kl=max(kl, 0.0),
    )


def _original(model: ModelInfo | None) -> list[Mark]:
    size_bytes = words.weights(model) if model is not None else None
    if model is None or not size_bytes:
        return []
    told = f"{words.size(size_bytes)}, {one_line(model.dtype, 12)}"
    return [Mark(name="the original", told=told, tone="exact", size_bytes=size_bytes, kl=0.0)]


def _tried(cells: Iterable[Cell]) -> list[Mark]:
    """Assignments of all cells, each once; the chosen ones are never those that are left out."""
    found: dict[tuple[int, float], Mark] = {}
    for cell in cells:
        for one in cell.quantization.tried if cell.quantization is not None else []:
            if 0 < one.size_bytes <= MOST_BYTES and math.isfinite(one.kl_mean):
                key = (one.size_bytes, max(one.kl_mean, 0.0))
                chosen = one.chosen or (key in found and found[key].chosen)
                found[key] = Mark(name="", told="", tone="plain", size_bytes=key[0], kl=key[1], chosen=chosen)
    first = sorted(found.values(), key=lambda one: not one.chosen)[:MOST_TRIED]
    return sorted(first, key=lambda one: (one.size_bytes, one.kl))


def _named(marks: list[Mark], end: float) -> list[Mark]:
    """Marks with places for their names: as near to their height as there is room, in the order of their heights."""
    order = sorted(range(len(marks)), key=lambda place: (marks[place].y, marks[place].x))
    places: dict[int, float] = {}
    y = TOP - NAME_HEIGHT
    for place in order:
        y = places[place] = max(marks[place].y, y + NAME_HEIGHT)
    y = end + NAME_HEIGHT
    for place in reversed(order):
        y = places[place] = min(places[place], y - NAME_HEIGHT)
    return [replace(one, name_y=round(places[place], 1)) for place, one in enumerate(marks)]


class _Sizes:
    """The axis of bytes."""

    def __init__(self, sizes: list[int]) -> None:
        self._least, self._most = min(sizes), max(sizes)
        if self._most < 1.2 * self._least:
            self._least, self._most = max(round(self._least / 1.1), 1), round(self._most * 1.1) + 1
        self._from, self._decades = math.log10(self._least), math.log10(self._most) - math.log10(self._least)

    def at(self, size_bytes: float) -> float:
        share = (math.log10(size_bytes) - self._from) / self._decades
        return round(LEFT + MARGIN + (RIGHT - LEFT - 2 * MARGIN) * share, 1)

    def ticks(self) -> list[tuple[float, str]]:
        """Round sizes within the axis, as many as have room beside each other."""
        if self._decades > 1:
            rounds = [10.0**power for power in range(math.floor(self._from), math.ceil(self._from + self._decades) + 1)]
        else:
            rough = (self._most - self._least) / 5
            power = 10.0 ** math.floor(math.log10(rough)) if rough >= 1 else 1.0
            step = next(power * one for one in _STEPS if power * one >= rough)
            rounds = [step * number for number in range(math.ceil(self._least / step), int(self._most / step) + 1)]
        found: list[tuple[float, str]] = []
        for one in rounds:
            x = self.at(one) if one > 0 else -math.inf
            if LEFT <= x <= RIGHT and (not found or x - found[-1][0] >= 52):
                found.append((x, _bytes(one)))
        return found


class _Costs:
    """The axis of KL, whole decades from the largest at its top."""

    def __init__(self, costs: list[float], length: float) -> None:
        seen = [min(one, MOST_KL) for one in costs if one >= LEAST_KL] or [LEAST_KL * 10]
        self._least = math.floor(math.log10(min(seen)) + 1e-9)
        self._most = max(math.ceil(math.log10(max(seen)) - 1e-9), self._least + 1)
        self._length = length
        self.bottom = TOP + length
        self.zero = self.bottom + ZERO

    def at(self, kl: float) -> float:
        if kl < LEAST_KL:
            return self.zero
        share = (self._most - math.log10(min(kl, MOST_KL))) / (self._most - self._least)
        return round(TOP + self._length * share, 1)

    def ticks(self) -> list[tuple[float, str]]:
        return [(self.at(10.0**power), _power(power)) for power in range(self._least, self._most + 1)]


def _power(power: int) -> str:
    return f"{10.0**power:g}" if -4 < power < 3 else f"10{str(power).translate(_RAISED)}"


def _bytes(size_bytes: float) -> str:
    """A round size in the unit that keeps it short."""
    for unit, one in (("B", 1.0), ("kB", 1e3), ("MB", 1e6), ("GB", 1e9), ("TB", 1e12)):
        if size_bytes < one * 999.5:
            return f"{size_bytes / one:.4g} {unit}"
    return f"{size_bytes:.0e} B"
