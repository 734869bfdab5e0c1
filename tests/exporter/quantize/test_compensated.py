"""Error-compensated rounding: against plain rounding, against its own definition, and where it cannot be done."""

from __future__ import annotations

import pytest
import torch

from exporter.quantize import compensated
from exporter.quantize.compensated import INT4, INT8, NotInvertible, Rounded

GENERATOR = torch.Generator().manual_seed(4)
MIX = torch.randn(96, 96, generator=GENERATOR) * torch.logspace(-1, 1, 96)
X = torch.randn(600, 96, generator=GENERATOR) @ MIX
"""Inputs that depend on each other, some ten times as large as others."""
H = X.T @ X / len(X)
W = torch.randn(40, 96, generator=GENERATOR) / 10


def _lost(rounded: Rounded, weight: torch.Tensor = W) -> float:
    """Mean squared change of the outputs."""
    return float((X @ (weight - rounded.dequantized()).T).square().mean())


def _compensated(weight: torch.Tensor = W, limits: tuple[int, int] = INT4) -> Rounded:
    scales = compensated.int4_scales(weight, H.diagonal()) if limits == INT4 else compensated.int8_scales(weight)
    return compensated.compensated(weight, scales, limits, compensated.order(H))


@pytest.mark.parametrize("limits", [INT4, INT8])
def test_outputs_change_far_less_than_by_rounding_to_the_nearest(limits: tuple[int, int]) -> None:
    done = _compensated(limits=limits)
    plain = compensated.nearest(W, done.scales, limits)
    assert _lost(done) < 0.5 * _lost(plain)  # 0.43 and 0.36
    assert done.values.dtype == torch.int8
    assert limits[0] <= int(done.values.min()) and int(done.values.max()) <= limits[1]


def test_blocks_and_rows_are_ways_to_compute_and_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = _compensated()
    monkeypatch.setattr(compensated, "_BLOCK", 96)
    monkeypatch.setattr(compensated, "ROWS", 7)
    other = _compensated()
    # Sums in another order flip a rounding that is nearly a tie.
    assert float((whole.values != other.values).float().mean()) < 0.01


def test_it_is_the_greedy_solution_column_by_column() -> None:
    """Each column rounded, then all later ones moved by least squares to make good what it lost."""
    scales = compensated.int4_scales(W, H.diagonal())
    prepared = compensated.order(H)
    done = compensated.compensated(W, scales, INT4, prepared)
    damped = H + compensated.DAMPING * H.diagonal().mean() * torch.eye(96)
    left, spread = W.clone().double(), scales.repeat_interleave(32, 1).double()
    values = torch.zeros_like(left)
    order = prepared.permutation.tolist()
    for place, column in enumerate(order):
        values[:, column] = (left[:, column] / spread[:, column]).round().clamp(*INT4)
        error = left[:, column] - values[:, column] * spread[:, column]
        rest = order[place + 1 :]
        if rest:
            inner = damped[rest][:, rest].double()
            left[:, rest] += error[:, None] * torch.linalg.solve(inner, damped[rest, column].double())[None]
        left[:, column] = values[:, column] * spread[:, column]
    assert float((values != done.values).float().mean()) < 0.01


def test_int4_scales_are_what_the_kernels_keep() -> None:
    scales = compensated.int4_scales(W)
    assert torch.equal(scales, scales.to(torch.bfloat16).float())
    assert scales.shape == (40, 3)


def test_searched_scales_beat_the_largest_weight() -> None:
    searched = compensated.nearest(W, compensated.int4_scales(W), INT4)
    largest = W.reshape(40, 3, 32).abs().amax(-1) / 7.5
    plain = compensated.nearest(W, largest, INT4)
    assert float((searched.dequantized() - W).square().mean()) < float((plain.dequantized() - W).square().mean())


def test_scales_follow_what_inputs_matter() -> None:
    """One input a thousand times as strong as its group: its weight decides the scale."""
    importance = torch.ones(32)
    importance[5] = 1e6
    weight = torch.linspace(-1, 1, 32)[None]
    rounded = compensated.nearest(weight, compensated.int4_scales(weight, importance), INT4)
    plain = compensated.nearest(weight, compensated.int4_scales(weight), INT4)
    error, other = ((r.dequantized() - weight)[0, 5].abs() for r in (rounded, plain))
    assert error < other


def test_scales_are_fitted_to_the_integers() -> None:
    done = _compensated()
    again = compensated.refitted(done, W, H)
    assert _lost(Rounded(values=done.values, scales=again)) < _lost(done)
    assert torch.equal(again, compensated.bfloat16_exact(again))
    nothing = Rounded(values=torch.zeros_like(done.values), scales=done.scales)
    assert torch.allclose(compensated.refitted(nothing, W, H), done.scales), "integers of zero say nothing of scales"


def test_groups_between_two_values_beat_groups_around_zero() -> None:
    """Weights that are not spread around zero: an input embedding's rows."""
    weight = torch.rand(20, 64, generator=torch.Generator().manual_seed(1)) + 0.5
    around = compensated.nearest(weight, compensated.int4_scales(weight), INT4)
    found = compensated.between(weight)
    assert found.zero_points is not None
    assert float((found.dequantized() - weight).abs().max()) <= float(found.scales.max()) * 2
    assert float((found.dequantized() - weight).square().mean()) < 0.2 * float(
        (around.dequantized() - weight).square().mean()
    )
    same = compensated.between(torch.full((2, 32), 0.25))
    assert torch.allclose(same.dequantized(), torch.full((2, 32), 0.25), atol=1e-6)


def test_groups_of_zeros_stay_zero() -> None:
    weight = torch.zeros(3, 64)
    weight[:, 40] = 1.0
    done = compensated.nearest(weight, compensated.int4_scales(weight), INT4)
    assert torch.isfinite(done.scales).all()
    assert torch.equal(done.dequantized()[:, :32], torch.zeros(3, 32))


@pytest.mark.parametrize(
    ("moments", "words"),
    [
        (torch.full((32, 32), float("nan")), "not finite"),
        (torch.full((32, 32), float("inf")), "not finite"),
        (torch.zeros(32, 32), "all zero"),
        (torch.eye(32) - 2 * torch.diag(torch.eye(32)[3]), "singular"),
    ],
)
def test_moments_that_cannot_be_inverted_are_told(moments: torch.Tensor, words: str) -> None:
    with pytest.raises(NotInvertible, match=words):
        compensated.order(moments)


def test_fewer_tokens_than_inputs_are_no_fault() -> None:
    """A singular matrix of few tokens is what damping is for."""
    few = X[:10]
    done = compensated.compensated(W, compensated.int4_scales(W), INT4, compensated.order(few.T @ few / 10))
    plain = compensated.nearest(W, done.scales, INT4)
    assert float((few @ (W - done.dequantized()).T).square().mean()) < float(
        (few @ (W - plain.dequantized()).T).square().mean()
    )


def test_weights_move_to_where_outputs_match_the_original() -> None:
    noisy = X + 0.3 * torch.randn(X.shape, generator=torch.Generator().manual_seed(9)) * X.std(0)
    moments, crossed = noisy.T @ noisy / len(X), X.T @ noisy / len(X)

    def apart(weight: torch.Tensor) -> float:
        return float((X @ W.T - noisy @ weight.T).square().mean())

    whole = compensated.moved(W, moments, crossed, 1.0)
    half = compensated.moved(W, moments, crossed, 0.5)
    assert apart(whole) < apart(half) < apart(W)
    assert torch.equal(compensated.moved(W, moments, crossed, 0.0), W)
    assert torch.allclose(compensated.moved(W, moments, moments, 1.0), W, atol=1e-5), "the same inputs: nothing to move"
    with pytest.raises(NotInvertible, match="not finite"):
        compensated.moved(W, moments, torch.full_like(crossed, torch.inf), 1.0)
