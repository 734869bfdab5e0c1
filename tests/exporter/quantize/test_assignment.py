"""The path of assignments: every step buys the most that is left to buy, and bytes are counted as files have them."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from exporter.quantize import experts, formats
from exporter.quantize.assignment import EMBEDDING, Assignment, Ladder
from exporter.quantize.linears import unfold

LARGE = "model.layers.1.mlp.down_proj"


@pytest.fixture
def model(load: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    return unfold(load("llama-untied"))[0]


def _costs(model: nn.Module, **special: dict[str, float]) -> dict[str, dict[str, float]]:
    generator = torch.Generator().manual_seed(0)
    names = [name for name, m in model.named_modules() if isinstance(m, nn.Linear)]
    drawn = torch.rand(len(names), generator=generator).tolist()
    return {name: {"int4": cost, "int8": cost / 100} for name, cost in zip(names, drawn, strict=True)} | special


def test_the_path_goes_from_the_smallest_to_the_most_faithful(model: PreTrainedModel) -> None:
    ladder = Ladder(model, _costs(model), "8w")
    rungs = [ladder.rung(number) for number in range(len(ladder) + 1)]
    assert set(rungs[0].linears.values()) == {"int4"}
    assert set(rungs[-1].linears.values()) == {"int8"}
    sizes = [rung.size_bytes for rung in rungs]
    costs = [ladder.predicted(rung) for rung in rungs]
    assert sizes == sorted(sizes)
    assert costs == sorted(costs, reverse=True)
    rates = [(a - b) / (y - x) for a, b, x, y in zip(costs, costs[1:], sizes, sizes[1:], strict=False)]
    assert rates == sorted(rates, reverse=True), "each step buys more for its bytes than those after it"


def test_bytes_are_those_of_its_parts(model: PreTrainedModel) -> None:
    ladder = Ladder(model, _costs(model), "8w")
    first, second = ladder.rung(0), ladder.rung(1)
    (raised,) = second.in_int8
    out, width = model.get_submodule(raised).weight.shape  # type: ignore[union-attr, misc]
    grown = formats.linear_bytes(out, width, "int8") - formats.linear_bytes(out, width, "int4")
    assert second.size_bytes - first.size_bytes == grown


def test_the_experts_of_a_layer_are_raised_together(load: Callable[..., PreTrainedModel]) -> None:
    """They become one matrix in the file, of one format."""
    model = unfold(load("mixtral"))[0]
    ladder = Ladder(model, _costs(model), "8w")
    for number in range(len(ladder) + 1):
        by_unit: dict[str, set[str]] = {}
        for name, fmt in ladder.rung(number).linears.items():
            by_unit.setdefault(experts.units(model).get(name, name), set()).add(fmt)
        assert all(len(found) == 1 for found in by_unit.values())
    assert len(ladder) < len(ladder.rung(0).linears)


def test_what_matters_most_is_raised_first(model: PreTrainedModel) -> None:
    ladder = Ladder(model, _costs(model, **{LARGE: {"int4": 50.0, "int8": 0.0}}), "8w")
    assert ladder.rung(1).in_int8 == [LARGE]


def test_the_embedding_is_a_step_like_any_other(model: PreTrainedModel) -> None:
    tables = {"4w": 30.0, "4w-zp": 10.0, "8w": 0.0}
    ladder = Ladder(model, _costs(model, **{EMBEDDING: tables}), "8w")
    assert ladder.rung(0).embedding == "4w"
    assert ladder.rung(len(ladder)).embedding == "8w"
    # From 4w-zp to 8w there is more to gain for each byte than from 4w to 4w-zp: the step between is left out.
    steep = Ladder(model, _costs(model, **{EMBEDDING: {"4w": 30.0, "4w-zp": 29.9, "8w": 0.0}}), "8w")
    assert {steep.rung(number).embedding for number in range(len(steep) + 1)} == {"4w", "8w"}
    for fixed in ("fp32", "4w"):
        ladder = Ladder(model, _costs(model), fixed)
        assert {ladder.rung(number).embedding for number in range(len(ladder) + 1)} == {fixed}


def test_a_size_is_filled_and_never_exceeded(model: PreTrainedModel) -> None:
    ladder = Ladder(model, _costs(model, **{EMBEDDING: {"4w": 0.3, "8w": 0.0}}), "8w")
    smallest, largest = ladder.rung(0).size_bytes, ladder.rung(len(ladder)).size_bytes
    assert ladder.within(smallest - 1) is None
    assert ladder.within(largest + 1) == ladder.rung(len(ladder))
    before = ladder.predicted(ladder.rung(0)) + 1
    for size in range(smallest, largest + 1, (largest - smallest) // 7):
        found = ladder.within(size)
        assert found is not None
        assert found.size_bytes <= size
        assert ladder.predicted(found) <= before
        before = ladder.predicted(found)


def test_rungs_are_found_by_cost_and_by_size(model: PreTrainedModel) -> None:
    ladder = Ladder(model, _costs(model), "8w")
    wanted = ladder.predicted(ladder.rung(4))
    assert ladder.cheapest(wanted) == 4
    assert ladder.cheapest(0.0) == len(ladder)
    assert ladder.highest(ladder.rung(4).size_bytes) == 4
    assert ladder.highest(None) == len(ladder)
    assert ladder.highest(ladder.rung(0).size_bytes - 1) is None


def test_layers_that_cannot_have_int4_have_int8_from_the_start(model: PreTrainedModel) -> None:
    ladder = Ladder(model, _costs(model, **{LARGE: {"int8": 0.1}}), "8w")
    assert ladder.rung(0).in_int8 == [LARGE]
    assert LARGE in ladder.plain().in_int8
    assert ladder.predicted(Assignment({LARGE: "int8"}, "8w", 0)) == pytest.approx(0.1)
