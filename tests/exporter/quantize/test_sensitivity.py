"""Sensitivity: one backward pass a text tells what rounding each layer by itself does to the output."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from exporter.quantize import formats, sensitivity
from exporter.quantize.linears import unfold
from tests.exporter.models import KINDS
from tests.exporter.quantize.conftest import Subject, random_text


def _kl(model: PreTrainedModel, work: PreTrainedModel, sequences: list[torch.Tensor]) -> float:
    total, positions = 0.0, 0
    with torch.no_grad():
        for ids in sequences:
            expected = model(ids, use_cache=False).logits[0].double().log_softmax(-1)
            got = work(ids, use_cache=False).logits[0].double().log_softmax(-1)
            total += float((expected.exp() * (expected - got)).sum())
            positions += ids.shape[1]
    return total / positions


def test_it_agrees_with_what_rounding_each_layer_alone_costs(sample: Subject) -> None:
    sequences = [ids[:, : sensitivity.LENGTH] for ids in sample.text.sequences[::5]]
    costs = sensitivity.measure(sample.model, sample.text.sequences, ("int4",))
    measured, predicted = [], []
    for name in list(costs)[::3]:
        work, _ = unfold(sample.model)
        module: Any = work.get_submodule(name)
        weight = formats.rounded_nearest(module.weight.detach(), "int4").dequantized()
        module.weight = nn.Parameter(weight, requires_grad=False)
        measured.append(_kl(sample.model, work, sequences))
        predicted.append(costs[name]["int4"])
    ratios = torch.tensor(predicted) / torch.tensor(measured)
    # To second order, and with one drawn token a position: five seeds and two texts gave ratios from 0.57 to 1.79, the
    # same layers being high and low. Costs of layers differ by far more, and what is used is their order.
    assert ratios.min() > 0.5 and ratios.max() < 2.0
    assert torch.corrcoef(torch.stack([torch.tensor(measured), torch.tensor(predicted)]).log())[0, 1] > 0.9


@pytest.mark.parametrize("kind", list(KINDS))
def test_every_linear_layer_of_every_architecture_has_a_cost(kind: str, load: Callable[..., PreTrainedModel]) -> None:
    model = load(kind)
    before = {name: p.data_ptr() for name, p in model.named_parameters()}
    costs = sensitivity.measure(model, random_text().sequences)
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == before
    assert costs
    assert all(by["int4"] >= by["int8"] >= 0.0 for by in costs.values())
    assert sum(by["int4"] for by in costs.values()) > 10 * sum(by["int8"] for by in costs.values()) > 0
    assert not any(p.requires_grad or p.grad is not None for p in model.parameters())


def test_a_format_that_a_layer_cannot_take_has_no_cost(load: Callable[..., PreTrainedModel]) -> None:
    model = load(hidden_size=48, num_attention_heads=4, head_dim=16)
    costs = sensitivity.measure(model, random_text().sequences)
    assert set(costs["model.layers.0.self_attn.q_proj"]) == {"int8"}
    assert set(costs["model.layers.0.mlp.down_proj"]) == {"int4", "int8"}


def test_the_embedding_is_measured(sample: Subject) -> None:
    costs = sensitivity.of_embedding(sample.model, sample.text.held_out, ("4w", "4w-zp", "8w"))
    assert costs["8w"] < costs["4w-zp"] < costs["4w"]
    assert cast(torch.Tensor, sample.model.get_input_embeddings().weight).dtype == torch.float32
