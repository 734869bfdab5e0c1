"""The table of bounds, and the grades that measured files of a real model get."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from exporter import bounds
from exporter.errors import InvalidSpec
from exporter.report import Status
from tests.exporter.conftest import ModelCopy, run_exporter


@pytest.mark.parametrize("bound", bounds.BOUNDS, ids=lambda b: f"{b.kind}-{b.name}")
def test_a_figure_passes_up_to_its_bound_and_not_beyond(bound: bounds.Bound) -> None:
    beyond = bound.value * (1.001 if bound.relation == "<=" else 0.999)
    at = bounds.figure(bound.kind, bound.against, bound.name, bound.value)
    assert (at.passed, at.bound, at.relation, at.reason) == (True, bound.value, bound.relation, bound.reason)
    assert not bounds.figure(bound.kind, bound.against, bound.name, beyond).passed
    for nothing in (math.nan, math.inf if bound.relation == "<=" else -math.inf):
        assert not bounds.figure(bound.kind, bound.against, bound.name, nothing).passed
    assert bounds.value(bound.kind, bound.against, bound.name) == bound.value


def test_every_bound_is_there_once_and_says_why() -> None:
    keys = [(b.kind, b.against, b.name) for b in bounds.BOUNDS]
    assert len(keys) == len(set(keys))
    for bound in bounds.BOUNDS:
        assert bound.kind in ("exact", "quantized")
        assert bound.against in (bounds.FULL, bounds.QUANTIZED)
        assert bound.relation in ("<=", ">=")
        assert len(bound.reason) > 40
    # Never against its own kind only: a file that lost its cache can agree with its own reference.
    assert {b.against for b in bounds.BOUNDS if b.kind == "quantized"} == {bounds.FULL, bounds.QUANTIZED}


def test_a_figure_without_a_bound_is_for_information() -> None:
    figure = bounds.figure("exact", bounds.FULL, "perplexity", 1e9)
    assert (figure.passed, figure.bound) == (True, None)
    with pytest.raises(KeyError):
        bounds.value("exact", bounds.FULL, "perplexity")


# SmolLM2-135M-Instruct against float32 on held-out text, measured eagerly: mean KL in nats, top-1 agreement.
MEASURED = [
    ("8da8w body", 0.018, 0.917, "faithful"),
    ("8da4w body, round to nearest", 0.39, 0.693, "damaged"),
    ("8da4w with 4-bit head and 8w embedding", 0.55, 0.651, "damaged"),
    ("8da4w, scale by squared-error search", 0.36, 0.703, "damaged"),
    ("8da4w, HQQ scales", 0.39, 0.693, "damaged"),
    ("8da4w, bf16 scales", 0.42, 0.677, "damaged"),
    ("GPTQ", 0.108, 0.831, "degraded"),
    ("GPTQ, v_proj in 8 bits", 0.080, 0.857, "degraded"),
    ("GPTQ, v and down in 8 bits", 0.057, 0.893, "degraded"),
    ("GPTQ, v, o and down in 8 bits", 0.052, 0.898, "degraded"),
    ("llama.cpp Q4_0", 0.308, 0.719, "damaged"),
    ("llama.cpp Q4_K_S", 0.067, 0.885, "degraded"),
    ("llama.cpp Q8_0", 0.005, 0.956, "faithful"),
]


@pytest.mark.parametrize(("name", "kl", "agreement", "verdict"), MEASURED, ids=[row[0] for row in MEASURED])
def test_measured_files_get_the_grade_that_their_answers_deserve(
    name: str, kl: float, agreement: float, verdict: str
) -> None:
    assert bounds.grade(kl, agreement).verdict == verdict


@pytest.mark.parametrize(
    ("kl", "agreement", "verdict"),
    [
        (0.0, 1.0, "faithful"),
        (0.05, 0.9, "faithful"),
        (0.0501, 0.99, "degraded"),
        (0.01, 0.899, "degraded"),
        (0.2, 0.75, "degraded"),
        (0.2001, 0.9, "damaged"),
        (0.01, 0.7499, "damaged"),
        (math.inf, 0.0, "damaged"),
        (math.nan, 0.95, "damaged"),
        (0.01, math.nan, "damaged"),
    ],
)
def test_both_limits_must_be_met(kl: float, agreement: float, verdict: str) -> None:
    assert bounds.grade(kl, agreement).verdict == verdict


def test_grades_go_from_strict_to_lax() -> None:
    limits = [(grade.kl_at_most, -grade.agreement_at_least) for grade in bounds.GRADES]
    assert limits == sorted(limits)
    assert bounds.GRADES[-1].kl_at_most == math.inf
    assert len({grade.words for grade in bounds.GRADES}) == len(bounds.GRADES)
    assert "do not ship" in bounds.GRADES[-1].words


@pytest.mark.parametrize("bound", bounds.BOUNDS, ids=lambda b: f"{b.kind}-{b.name}")
def test_a_bound_can_be_tightened_and_not_loosened(bound: bounds.Bound) -> None:
    less, looser = (0.5, 1.01) if bound.relation == "<=" else (1.005, 0.99)
    tight = bound.value * less
    for fine in (tight, bound.value):
        bounds.check({bound.name: fine})
    for wrong in (bound.value * looser, -1.0, math.inf, math.nan):
        with pytest.raises(InvalidSpec, match=f"{bound.name} can be tightened only"):
            bounds.check({bound.name: wrong})
    between = (tight + bound.value) / 2
    found = bounds.figure(bound.kind, bound.against, bound.name, between, {bound.name: tight})
    assert (found.passed, found.bound) == (False, tight), "the figure shows the bound that it was held to"
    assert found.reason.startswith(f"asked for; {bound.value:g} otherwise: ")
    assert bounds.figure(bound.kind, bound.against, bound.name, between).passed
    assert bounds.value(bound.kind, bound.against, bound.name, {bound.name: tight}) == tight


def test_a_bound_that_there_is_not() -> None:
    with pytest.raises(InvalidSpec, match="There is no bound 'kl'; there are: max_difference_over_std, top1_agreement"):
        bounds.check({"kl": 0.1})
    assert len({bound.name for bound in bounds.BOUNDS}) == len(bounds.BOUNDS), "a name means one bound"


def test_a_file_that_misses_a_tightened_bound_is_not_offered(model_copy: ModelCopy, tmp_path: Path) -> None:
    """And the report says which bound that was, and what was asked for."""
    spec = {"backends": ["portable"], "precisions": ["fp32"], "max_seq_len": 16, "rehearse": False}
    asked = {"max_difference_over_std": 1e-12}
    done = run_exporter({**spec, "bounds": asked}, model_copy(num_hidden_layers=1), tmp_path / "out")
    assert done.exit_code == 3, done.log[-2000:]
    assert done.report.spec.bounds == asked
    (cell,) = done.report.cells
    assert cell.status is Status.FAILED and cell.reason is not None and cell.parity is not None
    assert "max_difference_over_std is" in cell.reason and "where <= 1e-12 is wanted" in cell.reason
    missed = [one for comparison in cell.parity.comparisons for one in comparison.figures if not one.passed]
    assert [(one.name, one.bound) for one in missed] == [("max_difference_over_std", 1e-12)]
    assert cell.parity.first_difference is not None
    assert not cell.parity.first_difference.startswith("none"), "the stages are held to what the file is held to"
