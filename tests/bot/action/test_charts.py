"""The plots as Mermaid itself draws them."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from bot.action import charts
from exporter.report import Cell, Comparison, Figure, Parity, Report
from tests.bot.action.mermaid import diagrams, drawn
from tests.bot.reports import cell, failed, parity, quality, report


def sized(backend: str, precision: str, size: int) -> Cell:
    return dataclasses.replace(cell(backend, precision), size_bytes=size)


def held(value: float, bound: float, relation: str = "<=", *, passed: bool = True) -> Cell:
    """A cell with one figure."""
    figure = Figure(name="f", value=value, bound=bound, relation=relation, passed=passed, reason="")
    comparison = Comparison(against="full precision", figures=[figure])
    return cell(
        parity=Parity(passed=passed, positions=1, texts=[], schedules=[], comparisons=[comparison]), content=b"x"
    )


@pytest.mark.parametrize(
    ("value", "bound", "relation", "passed", "expected"),
    [
        (1e-5, 1e-3, "<=", True, 2.0),
        (1e-3, 1e-3, "<=", True, 0.0),
        (0.0, 1e-3, "<=", True, charts.MOST_DECADES),
        (3.5, 1e-3, "<=", False, 0.0),
        (float("nan"), 1e-3, "<=", False, 0.0),
        (float("inf"), 1e-3, "<=", False, 0.0),
        (0.999, 0.99, ">=", True, 1.0),
        (1.0, 0.99, ">=", True, charts.MOST_DECADES),
        (0.5, 0.99, ">=", False, 0.0),
    ],
)
def test_headroom(value: float, bound: float, relation: str, passed: bool, expected: float) -> None:
    assert charts.headroom(held(value, bound, relation, passed=passed)) == pytest.approx(expected)


def test_headroom_is_that_of_the_figure_in_the_table() -> None:
    assert charts.headroom(failed()) is None
    assert charts.headroom(cell(precision="8da4w")) == pytest.approx(1.69897)


def test_one_bar_is_no_comparison() -> None:
    assert charts.sizes(report([cell(), failed()])) == ""
    assert charts.parity(report([failed()])) == ""


def lost(precision: str, size: int, kl_mean: float) -> Cell:
    return cell("xnnpack", precision, size_bytes=size, quality=dataclasses.replace(quality(), kl_mean=kl_mean))


def test_costs_are_in_the_order_of_sizes() -> None:
    source = charts.costs(report([lost("8da8w", 139, 0.018), cell(), lost("8da4w", 95, 0.108), lost("4w", 90, 0.5)]))
    assert 'x-axis ["xnnpack 4w", "xnnpack 8da4w", "xnnpack 8da8w"]' in source
    assert "bar [500, 108, 18.0]" in source and "thousandths of a nat" in source
    assert "bar [2.50, 0.10]" in charts.costs(report([lost("4w", 90, 2.5), lost("8da4w", 95, 0.1)]))
    assert charts.costs(report([lost("8da8w", 139, 0.018), cell()])) == "", "one bar is no comparison"
    odd = [lost("a", 1, float("nan")), lost("b", 2, float("inf")), lost("c", 3, -1e-9), lost("d", 4, 1e300)]
    assert "bar [0.00, 10000]" in charts.costs(report(odd))


HOSTILE = [
    '"]',
    "a\n```\n# x",
    "%%{init: {}}%%",
    "<b>&quot;</b>",
    "]\nbar [1, 2]",
    "'; drop",
    "",
    "ü 模型",
    "end",
    "x" * 90,
]


def hostile(names: list[str]) -> Report:
    cells = [cell(name, name, content=name.encode() * 3 + b"xy") for name in names]
    return report(cells)


def test_mermaid_draws_every_plot(tmp_path: Path) -> None:
    plain = report(
        [
            sized("portable", "fp32", 538_000_000),
            sized("xnnpack", "fp32", 269_000_000),
            sized("xnnpack", "8da4w", 91_234_567),
            failed(parity=parity("fp32", passed=False)),
        ]
    )
    sources = [
        charts.sizes(plain),
        charts.parity(plain),
        charts.sizes(hostile(HOSTILE)),
        charts.parity(hostile(HOSTILE)),
        charts.sizes(report([sized(f"b{number}", "fp32", number + 1) for number in range(40)])),
        charts.parity(report([held(1e-3, 1e-3), held(5.0, 1e-3, passed=False)])),
        charts.costs(report([lost("8da4w", 95, 0.108), lost("8da8w", 139, 0.018)])),
    ]
    assert all(source.count("\n```") == 1 and source.endswith("\n```") for source in sources)
    found = drawn([*(diagrams(source)[0] for source in sources), "xychart-beta\n  bar ["], tmp_path)
    assert "error" in found.pop(), "a diagram that is wrong is told as wrong"
    assert [one.get("error") for one in found] == [None] * 7
    size, room, odd, odd_room, many, zeros, costs = found
    none = min(zeros["bars"])  # how wide Mermaid draws a bar of zero
    low, high = (bar - none for bar in sorted(costs["bars"]))
    assert high / low == pytest.approx(6.0, rel=0.05) and "xnnpack 8da8w" in costs["texts"]
    assert {"portable fp32", "xnnpack 8da4w", "Size of the file in MB"} <= {*size["texts"]}
    assert "openvino fp32" not in size["texts"] and len(size["bars"]) == 3
    first, second, third = size["bars"]
    assert first / second == pytest.approx(2.0, rel=0.05) and third < second
    assert len(room["bars"]) == 4 and "openvino fp32" in room["texts"]
    assert room["bars"][3] < room["bars"][2] < room["bars"][0]
    assert len(odd["bars"]) == len(odd_room["bars"]) == len(HOSTILE)
    assert len(many["bars"]) == charts.MOST_BARS
    assert len(zeros["bars"]) == 2 and zeros["texts"].count("0") == 1, "on the axis only"
    assert "91.2" in size["texts"] and "1.96" not in room["texts"], "a number never lies over a name"
    assert all(one["width"] <= 760 for one in found)
