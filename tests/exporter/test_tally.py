"""Sums over positions: the percentile is numpy's, and two tallies are one."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from exporter.tally import Tally, finite


def _filled(rows: int, seed: int = 0) -> tuple[Tally, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(seed)
    out, ref = (torch.randn(rows, 50, generator=generator) * 3 for _ in range(2))
    tally = Tally()
    tally.add(out, ref, torch.randint(50, (rows,), generator=generator))
    return tally, out, ref


@pytest.mark.parametrize("rows", [1, 2, 70, 101])
@pytest.mark.parametrize("share", [0.0, 0.5, 0.99, 1.0])
def test_a_percentile_is_linear_between_two_positions(rows: int, share: float) -> None:
    tally, out, ref = _filled(rows)
    kl = torch.nn.functional.kl_div(out.log_softmax(-1), ref.log_softmax(-1), reduction="none", log_target=True).sum(-1)
    assert tally.kl_quantile(share) == pytest.approx(np.percentile(kl.numpy(), 100 * share), rel=1e-5)


def test_one_position_of_no_number_is_the_largest() -> None:
    tally, _, ref = _filled(70)
    tally.add(torch.full((1, 50), math.nan), ref[:1], torch.tensor([0]))
    assert tally.kl_mean == math.inf
    assert tally.kl_quantile(1.0) == math.inf
    assert tally.kl_quantile(0.9) < 100
    assert finite(math.inf) == finite(math.nan) == np.finfo(np.float64).max
    assert finite(-2.5) == -2.5


def test_two_tallies_are_one() -> None:
    (one, *first), (other, *second) = _filled(40), _filled(33, seed=1)
    together, targets = Tally(), torch.zeros(73, dtype=torch.long)
    out, ref = (torch.cat(pair) for pair in zip(first, second, strict=True))
    one, other = Tally(), Tally()
    one.add(out[:40], ref[:40], targets[:40])
    other.add(out[40:], ref[40:], targets[40:])
    together.add(out, ref, targets)
    one.merge(other)
    for name in ("positions", "kl_mean", "agreement", "perplexity", "perplexity_reference", "std", "max_difference"):
        assert getattr(one, name) == pytest.approx(getattr(together, name), rel=1e-12), name
    assert one.kl_quantile(0.99) == pytest.approx(together.kl_quantile(0.99), rel=1e-12)
