"""Bytes against KL of every method, as an SVG file without any library.

Goes in: points of ours and of peers. Comes out: SVG text, KL on a logarithmic axis, the frontier (files that none
is both smaller and closer than) as a line.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from xml.sax.saxutils import escape

_WIDTH, _HEIGHT = 900, 540
_LEFT, _RIGHT, _TOP, _BOTTOM = 80, 240, 50, 60
_COLOURS = {"ours": "#1769aa", "peer": "#b3541e"}
_GAP = 15
"""Pixels between two labels at least."""


@dataclass(frozen=True, kw_only=True)
class Point:
    """One file."""

    name: str
    family: str
    """``ours`` or ``peer``"""
    size_bytes: int
    kl_mean: float


def frontier(points: list[Point]) -> list[Point]:
    """The points that no other one beats in bytes and KL, by bytes."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: (one.size_bytes, one.kl_mean)):
        if not found or point.kl_mean < found[-1].kl_mean:
            found.append(point)
    return found


def draw(title: str, points: list[Point]) -> str:
    """The SVG document.

    Raises:
        ValueError: there is no point with a KL above zero.
    """
    points = [point for point in points if point.kl_mean > 0]
    if not points:
        raise ValueError("nothing to plot")
    sizes = [point.size_bytes for point in points]
    spread = max(sizes) - min(sizes) or max(sizes) * 0.1
    low, high = min(sizes) - 0.06 * spread, max(sizes) + 0.06 * spread
    bottom = math.floor(math.log10(min(point.kl_mean for point in points)))
    top = math.ceil(math.log10(max(point.kl_mean for point in points)) + 1e-9)

    def x(size: float) -> float:
        return _LEFT + (size - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)

    def y(kl: float) -> float:
        return _TOP + (top - math.log10(kl)) / (top - bottom) * (_HEIGHT - _TOP - _BOTTOM)

    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" font-family="sans-serif" '
        f'font-size="12"><title>{escape(title)}</title><rect width="100%" height="100%" fill="white"/>',
        _text(_LEFT, 26, title, size=16),
        _text((_LEFT + _WIDTH - _RIGHT) / 2, _HEIGHT - 14, "size of the file, MB", anchor="middle"),
        f'<text transform="translate(18 {_HEIGHT / 2}) rotate(-90)" text-anchor="middle">mean KL, nats</text>',
    ]
    for power in range(bottom, top + 1):
        for digit in (1, 2, 5):
            value = digit * 10**power
            if value <= 10**top:
                at = y(value)
                parts.append(f'<line x1="{_LEFT}" x2="{_WIDTH - _RIGHT}" y1="{at:.1f}" y2="{at:.1f}" stroke="#ddd"/>')
                parts.append(_text(_LEFT - 8, at + 4, f"{value:g}", anchor="end"))
    for size in _ticks(low, high):
        parts.append(
            f'<line x1="{x(size):.1f}" x2="{x(size):.1f}" y1="{_TOP}" y2="{_HEIGHT - _BOTTOM}" stroke="#eee"/>'
        )
        parts.append(_text(x(size), _HEIGHT - _BOTTOM + 18, f"{size / 1e6:g}", anchor="middle"))
    line = " ".join(f"{x(one.size_bytes):.1f},{y(one.kl_mean):.1f}" for one in frontier(points))
    parts.append(f'<polyline points="{line}" fill="none" stroke="#888" stroke-dasharray="4 3"/>')
    label = -math.inf
    for point in sorted(points, key=lambda one: -one.kl_mean):
        colour, px, py = _COLOURS[point.family], x(point.size_bytes), y(point.kl_mean)
        label = max(label + _GAP, py)
        parts.append(
            f'<line x1="{px:.1f}" y1="{py:.1f}" x2="{_WIDTH - _RIGHT + 6}" y2="{label:.1f}" stroke="{colour}" '
            'stroke-width="0.5" stroke-opacity="0.5"/>'
        )
        parts.append(f'<circle cx="{px:.1f}" cy="{py:.1f}" r="4.5" fill="{colour}"/>')
        parts.append(_text(_WIDTH - _RIGHT + 10, label + 4, point.name, colour=colour))
    return "\n".join([*parts, "</svg>", ""])


def _ticks(low: float, high: float) -> list[float]:
    """Five to ten round sizes between two, in bytes."""
    step = 10 ** math.floor(math.log10((high - low) / 5))
    step *= next(factor for factor in (1, 2, 5, 10) if (high - low) / (step * factor) <= 10)
    return [step * number for number in range(math.ceil(low / step), math.floor(high / step) + 1)]


def _text(x: float, y: float, text: str, *, anchor: str = "start", size: int = 12, colour: str = "#222") -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{colour}">{escape(text)}</text>'
    )
