"""Walking through decoder layers: the same numbers as the model's own forward, on every architecture."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from exporter.quantize.blocks import UnknownStructure, Walk, decoder_layers
from exporter.quantize.experts import calibrating
from exporter.quantize.linears import unfold
from tests.exporter.models import KINDS
from tests.exporter.quantize.conftest import random_text

SEQUENCES = [ids[:, : 9 + 4 * number] for number, ids in enumerate(random_text(3).sequences)]


@pytest.mark.parametrize("kind", list(KINDS))
def test_layer_by_layer_is_the_whole_model(kind: str, load: Callable[..., PreTrainedModel]) -> None:
    """Masks, positions, windows and tuples are the architecture's own business."""
    model, _ = unfold(load(kind))
    head = model.get_output_embeddings()
    entered: list[torch.Tensor] = []
    with torch.no_grad(), calibrating(model):
        handle = head.register_forward_pre_hook(lambda module, args: entered.append(args[0][0]))
        for ids in SEQUENCES:
            model(ids, use_cache=False)
        handle.remove()
        walk = Walk(model, SEQUENCES)
        for number in range(len(walk.layers)):
            walk.advance(number)
        found: list[torch.Tensor] = []
        walk.tail(head, lambda sequence, rows: found.append(rows))
    assert len(found) == len(SEQUENCES)
    for expected, got in zip(entered, found, strict=True):
        assert torch.allclose(expected, got, atol=1e-5)


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_linear_layer_is_in_one_stage_and_fed_by_earlier_ones(
    kind: str, load: Callable[..., PreTrainedModel]
) -> None:
    model, _ = unfold(load(kind))
    with torch.no_grad(), calibrating(model):
        walk = Walk(model, SEQUENCES)
        stages = walk.stages(0)
        linears = {name for name, m in walk.layers[0].named_modules() if isinstance(m, nn.Linear)}
        assert sorted(name for stage in stages for name in stage.names) == sorted(linears)
        # What a stage is fed stays as it is when a later stage's weights change.
        for before, stage in enumerate(stages):
            fed = _fed(walk, stage)
            for later in stages[before + 1 :]:
                for name in later.names:
                    module: Any = walk.layers[0].get_submodule(name)
                    kept = module.weight
                    module.weight = nn.Parameter(torch.zeros_like(kept))
                    assert all(torch.equal(a, b) for a, b in zip(fed, _fed(walk, stage), strict=True)), name
                    module.weight = kept


def _fed(walk: Walk, stage: object) -> list[torch.Tensor]:
    seen: list[torch.Tensor] = []
    walk.watch(0, stage, lambda name, sequence, rows: seen.append(rows.clone()))  # type: ignore[arg-type]
    return seen


def test_layers_with_the_same_input_are_a_group(load: Callable[..., PreTrainedModel]) -> None:
    model = load("llama")
    with torch.no_grad():
        stages = Walk(model, SEQUENCES).stages(0)
    groups = [stage.groups for stage in stages]
    assert groups[0] == [["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"]]
    assert groups[1:] == [[["self_attn.o_proj"]], [["mlp.gate_proj", "mlp.up_proj"]], [["mlp.down_proj"]]]


def test_the_model_is_left_as_it_was(load: Callable[..., PreTrainedModel]) -> None:
    model = load("gemma3")
    with torch.no_grad():
        before = model(SEQUENCES[0], use_cache=False).logits
        walk = Walk(model, SEQUENCES)
        walk.stages(0)
        walk.norms_before(0, ["self_attn.q_proj"])
        assert torch.equal(model(SEQUENCES[0], use_cache=False).logits, before)
    assert not any(module._forward_pre_hooks or module._forward_hooks for module in walk.layers.modules())
    assert not any("forward" in vars(layer) for layer in walk.layers)


def test_a_model_without_such_a_list_is_told(load: Callable[..., PreTrainedModel]) -> None:
    model = load("llama")
    model.config.num_hidden_layers = 7
    with pytest.raises(UnknownStructure, match="no list of 7 decoder layers"):
        decoder_layers(model)


def test_nothing_behind_the_layers_runs_before_they_did(load: Callable[..., PreTrainedModel]) -> None:
    """The output layer is most of the work of a small model with a large vocabulary."""
    model = load()

    def fails(module: nn.Module, args: Any) -> None:
        raise AssertionError("the output layer was called")

    with torch.no_grad():
        model.get_output_embeddings().register_forward_pre_hook(fails)
        walk = Walk(model, SEQUENCES)
        walk.advance(0)


def test_two_walks_from_one_place_go_apart(load: Callable[..., PreTrainedModel]) -> None:
    (model, _), (other, _) = unfold(load("llama")), unfold(load("llama"))
    with torch.no_grad():
        walk = Walk(model, SEQUENCES)
        beside = walk.beside(other)
        assert all(a is b for a, b in zip(walk.hidden, beside.hidden, strict=True))
        down: Any = beside.layers[0].get_submodule("mlp.down_proj")
        down.weight = nn.Parameter(torch.zeros_like(down.weight))
        start = list(walk.hidden)
        beside.advance(0)
        assert all(a is b for a, b in zip(walk.hidden, start, strict=True)), "it has not moved"
        walk.advance(0)
        assert not any(torch.equal(a, b) for a, b in zip(walk.hidden, beside.hidden, strict=True))
        assert all(torch.equal(a, b) for a, b in zip(walk.hidden, _alone(model), strict=True))


def _alone(model: PreTrainedModel) -> list[torch.Tensor]:
    walk = Walk(model, SEQUENCES)
    walk.advance(0)
    return walk.hidden
