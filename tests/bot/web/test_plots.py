"""Where a figure's mark stands on its axis."""

from __future__ import annotations

import math

import pytest

from bot.web.plots import DECADES, LEFT, RIGHT, plot, used
from exporter import bounds
from tests.bot import reports as made
from tests.bot.web.jobs import figure, full_report, parity


@pytest.mark.parametrize(
    ("name", "value", "bound", "relation", "passed", "expected"),
    [
        ("max_difference_over_std", 1e-4, 1e-3, "<=", True, 0.1),
        ("max_difference_over_std", 2e-3, 1e-3, "<=", False, 2.0),
        ("kl_mean", 0.0, 1e-5, "<=", True, 0.0),
        ("kl_mean", -1e-9, 1e-5, "<=", True, 0.0),
        ("top1_agreement", 1.0, 0.99, ">=", True, 0.0),
        ("top1_agreement", 0.98, 0.99, ">=", False, 2.0),
        ("perplexity_ratio", 1.005, 1.05, "<=", True, 0.1),
        ("perplexity_ratio", 0.9, 1.05, "<=", True, 0.0),
        ("top1_agreement", 1.0, 1.0, ">=", True, 0.0),
        ("top1_agreement", 0.5, 1.0, ">=", False, math.inf),
    ],
)
def test_what_is_used_of_a_bound(
    name: str, value: float, bound: float, relation: str, passed: bool, expected: float
) -> None:
    assert used(figure(name, value, bound, relation, passed=passed)) == pytest.approx(expected)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_not_drawn(value: float) -> None:
    assert used(figure("kl_mean", value, 1.0)) is None
    assert used(figure("kl_mean", 1.0, value)) is None
    assert used(figure("kl_mean", 1.0, None)) is None


def test_marks_stand_in_order_and_within_the_drawing() -> None:
    values = [0.0, 1e-12, 1e-5, 1e-3, 0.5, 1.0, 3.0, 1e9]
    cell = made.cell(parity=parity(*(figure(f"f{place}", value, 1.0) for place, value in enumerate(values))))
    drawn = plot(cell)
    assert drawn is not None
    places = [row.x for row in drawn.rows]
    assert places == sorted(places) and places[0] == places[1] == LEFT and places[-1] == RIGHT
    assert places[5] == drawn.bound_x
    per_decade = (RIGHT - LEFT) / (DECADES + 1)
    assert places[3] == pytest.approx(drawn.bound_x - 3 * per_decade, abs=0.2)
    assert all(0 < row.y < drawn.height for row in drawn.rows)


def test_the_description_says_it_in_words() -> None:
    cell = made.cell("xnnpack", "8da4w", parity=parity(figure("kl_over_cost", 0.61, 0.25, passed=False)))
    drawn = plot(cell)
    assert drawn is not None and drawn.title == "Parity of xnnpack 8da4w"
    assert drawn.description == "kl over cost to full precision: 0.61, bound ≤ 0.25, missed."


def test_nothing_to_draw() -> None:
    assert plot(made.failed()) is None
    assert plot(made.cell(parity=parity(figure("kl_mean", 1.0, None)))) is None
    assert sum(plot(cell) is not None for cell in full_report().cells) == 5


def test_names_are_the_exporters() -> None:
    from bot.web.plots import BEST_AT_ONE

    assert {one.name for one in bounds.BOUNDS} >= BEST_AT_ONE
