"""Rotation: the same function, no outstanding channels, and a model that is left as it was."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, cast

import pytest
import torch
from transformers import PreTrainedModel

from exporter.quantize import Request, rotate
from tests.exporter.models import KINDS
from tests.exporter.quantize.conftest import Subject, random_text

ROTATED = {"llama", "llama-untied", "qwen2", "qwen3", "mistral", "phi3", "smollm3", "granite"}
"""Of the tiny architectures. Others have norms behind their layers (Gemma 2 and 3, OLMo 2), norms that subtract the
mean (GPT-2, GPT-NeoX), or routers that read hidden states too (mixtures of experts)."""


@pytest.mark.parametrize("width", [1, 2, 48, 64, 96, 576, 640, 896, 3072])
def test_a_rotation_is_orthogonal_and_spreads(width: int) -> None:
    by = rotate.factors(width)
    whole = rotate.turn(torch.eye(width), by)
    assert torch.allclose(whole @ whole.T, torch.eye(width), atol=1e-5)
    expected = torch.ones(1, 1)
    for factor in by:
        expected = torch.kron(expected, factor.contiguous())
    assert torch.allclose(whole, expected, atol=1e-6)
    if width in (2, 48, 64, 96, 576, 640, 3072):
        assert torch.allclose(whole.abs(), torch.full_like(whole, width**-0.5), atol=1e-6), "a Hadamard matrix"
    elif width > 64:
        assert whole.abs().max() < 0.5, "no channel goes on as one"
    assert all(torch.equal(a, b) for a, b in zip(by, rotate.factors(width), strict=True)), "the same each time"


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("in_place", [False, True])
def test_it_computes_the_same_or_is_left_alone(kind: str, in_place: bool, load: Callable[..., PreTrainedModel]) -> None:
    model = load(kind)
    ids = random_text(1).sequences[0]
    start = cast(torch.Tensor, model.get_input_embeddings().weight).clone()
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    restored: list[bool] = []

    def restore(changed: PreTrainedModel) -> None:
        restored.append(True)
        for name, parameter in before.items():
            changed.get_submodule(name.rpartition(".")[0]).register_parameter(
                name.rpartition(".")[2], torch.nn.Parameter(parameter, requires_grad=False)
            )

    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
        with rotate.rotated(model, Request(embedding="8w", restore=restore if in_place else None), ids) as turned:
            got = turned.model(ids, use_cache=False).logits
            assert turned.rotated == (kind in ROTATED)
            assert (turned.model is model) == (in_place or not turned.rotated)
            table: Any = turned.model.get_input_embeddings()
            assert torch.equal(table.weight, start) != turned.rotated
    assert (got - expected).abs().max() <= 1e-3 * expected.std()
    assert restored == [True] * (in_place and kind in ROTATED)
    assert all(torch.equal(parameter, before[name]) for name, parameter in model.named_parameters() if name in before)


def test_what_an_exception_interrupts_is_restored(load: Callable[..., PreTrainedModel]) -> None:
    model, restored = load("llama"), []
    request = Request(embedding="8w", restore=restored.append)
    with pytest.raises(KeyError), torch.no_grad(), rotate.rotated(model, request, random_text(1).sequences[0]):
        raise KeyError
    assert restored == [model]


def test_a_function_that_changes_is_not_used(
    load: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever an architecture does with hidden states: what comes out decides."""
    model, restored = load("llama"), []
    monkeypatch.setattr(rotate, "divide_norm", lambda norm, factors: False)
    request = Request(embedding="8w", restore=restored.append)
    with torch.no_grad(), rotate.rotated(model, request, random_text(1).sequences[0]) as turned:
        assert turned.model is model and not turned.rotated
        assert restored == [model], "before anything else is done with it"
    assert restored == [model]


def test_hidden_states_have_no_outstanding_channels(sample: Subject) -> None:
    ids, model = sample.text.sequences[0], copy.deepcopy(sample.model)

    def peaks(model: PreTrainedModel) -> float:
        states = model(ids, use_cache=False, output_hidden_states=True).hidden_states[1:-1]
        return float(torch.stack([(x.abs().amax(-1) / x.square().mean(-1).sqrt()).mean() for x in states]).mean())

    with torch.no_grad():
        cast(torch.Tensor, model.get_input_embeddings().weight)[:, 7] = 100.0
        before = peaks(model)
        assert before > 5
        with rotate.rotated(model, sample.request(), ids) as turned:
            assert turned.rotated
            assert peaks(turned.model) < 0.7 * before
            assert turned.title("int4").startswith("int4, in rotated")
