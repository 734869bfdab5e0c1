"""Unfolding: the same numbers from linear layers alone, and an original that stays as it was."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from exporter.quantize import linears
from exporter.quantize.experts import PackedExperts, UnfoldedExperts
from exporter.rehearsal import condition
from tests.exporter.models import VOCABULARY
from tests.exporter.quantize.conftest import apart, logits

INT4 = Int8DynamicActivationIntxWeightConfig(weight_dtype=vars(torch)["int4"], weight_granularity=PerGroup(32))
Load = Callable[..., PreTrainedModel]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("kind", ["gpt2", "mixtral", "qwen3_moe", "llama", "phi3"])
def test_nothing_is_computed_otherwise(kind: str, packed: bool, load: Load) -> None:
    model = load(kind)
    before = logits(model)
    kept = {name: (p.data_ptr(), p.shape, type(p)) for name, p in model.named_parameters()}
    work, notes = linears.unfold(model, packed=packed)
    # One product over all experts adds in another order than one for each; unpacked, 1.3e-6 was seen with another
    # number of threads.
    assert apart(before, logits(work)) < (5e-6 if kind in ("mixtral", "qwen3_moe") else 1e-6)
    assert all("tied embedding" in note for note in notes)
    assert torch.equal(logits(model), before)
    assert {name: (p.data_ptr(), p.shape, type(p)) for name, p in model.named_parameters()} == kept


def test_linear_layers_that_compute_in_their_own_way_become_plain_ones() -> None:
    """Falcon's call matmul, which a quantized weight has no answer to."""
    config = AutoConfig.for_model(
        "falcon", vocab_size=VOCABULARY, hidden_size=64, num_hidden_layers=1, num_attention_heads=4
    )
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    condition(model, 0)
    full = logits(model)
    work, notes = linears.unfold(model)
    assert all("tied embedding" in note for note in notes)
    assert apart(full, logits(work)) < 5e-6
    quantize_(work, INT4, filter_fn=lambda module, name: isinstance(module, nn.Linear))
    assert torch.nn.functional.cosine_similarity(full, logits(work), dim=-1).mean() > 0.9


@pytest.mark.parametrize("kind", ["gpt2", "mixtral", "qwen3_moe"])
def test_what_is_left_of_weights_is_linear_layers_tables_and_routers(kind: str, load: Load) -> None:
    model = load(kind)
    work, _ = linears.unfold(model)
    left = {
        type(module).__name__
        for module in work.modules()
        for p in module.parameters(recurse=False)
        if p.ndim > 1 and not isinstance(module, nn.Linear | nn.Embedding)
    }
    assert left <= {"MixtralTopKRouter", "Qwen3MoeTopKRouter"}
    assert sum(p.numel() for p in work.parameters()) - sum(p.numel() for p in model.parameters()) in (
        0,
        VOCABULARY * 64,
    ), "an untied output layer counts"


def test_nothing_is_copied(load: Load) -> None:
    """A second copy of the weights is what a large model has no memory for."""
    for kind in ("gpt2", "mixtral", "llama"):
        model = load(kind)
        own = {p.untyped_storage().data_ptr() for p in model.parameters()}
        work, _ = linears.unfold(model)
        assert {p.untyped_storage().data_ptr() for p in work.parameters()} <= own


def test_settled_weights_have_memory_of_their_own(load: Load) -> None:
    model = load("mixtral")
    work, _ = linears.unfold(model)
    before = logits(work)
    linears.settle(work)
    assert torch.equal(logits(work), before)
    for name, p in work.named_parameters():
        assert p.is_contiguous() and p.untyped_storage().nbytes() == p.nbytes, name
    norm = "model.norm.weight"
    assert work.get_parameter(norm).data_ptr() == model.get_parameter(norm).data_ptr(), "what is whole stays shared"


def test_a_transposed_weight_is_quantized_and_settled_as_any_other(load: Load) -> None:
    model = load("gpt2")
    full = logits(model)
    work, _ = linears.unfold(model)
    quantize_(work, INT4, filter_fn=lambda module, name: name.endswith(("c_attn", "c_proj")))
    linears.settle(work)
    for name, p in work.named_parameters():
        tensor = getattr(p, "qdata", p)
        assert tensor.is_contiguous(), name
    attention: Any = work.get_submodule("transformer.h.0.attn.c_attn")
    original: Any = model.get_submodule("transformer.h.0.attn.c_attn")
    steps = attention.weight.scale.repeat_interleave(32, dim=1)
    assert ((attention.weight.dequantize() - original.weight.t()).abs() <= 1.01 * steps).all()
    rounded = torch.nn.functional.cosine_similarity(full, logits(work), dim=-1).mean()
    assert 0.9 < rounded < 0.99999


@pytest.mark.parametrize("kind", ["llama", "gpt2"])
def test_table_and_output_layer_become_two_parameters(kind: str, load: Load) -> None:
    model = load(kind)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    work, _ = linears.unfold(model)
    table: Any = work.get_input_embeddings()
    output: Any = work.get_output_embeddings()
    assert output.weight is not table.weight
    output.weight = nn.Parameter(torch.zeros_like(output.weight))
    assert table.weight.abs().sum() > 0
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert not linears.untie(work), "two parameters are no one's other"


def test_experts_of_an_unknown_layout_stay_and_are_told(load: Load) -> None:
    model = load("mixtral")
    for module in model.modules():
        if hasattr(module, "has_post_expert_norm"):
            vars(module)["has_post_expert_norm"] = True  # what no sum over experts takes
    work, notes = linears.unfold(model)
    assert notes == ["4 weights of MixtralExperts stay in float32: their layout is not known"]
    assert not any(isinstance(m, UnfoldedExperts | PackedExperts) for m in work.modules())
