"""Recipes: what they change, what they leave alone, and what they say of it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from exporter import quantize
from exporter.quantize import Quantized, Request
from exporter.report import Quantization
from tests.exporter.models import VOCABULARY
from tests.exporter.quantize.conftest import logits


def _8da4w(model: PreTrainedModel, embedding: str = "8w") -> Quantized:
    with torch.no_grad():
        return quantize.get("8da4w-rtn").apply(model, Request(embedding=embedding))


def _detail(found: Quantized) -> Quantization:
    assert found.detail is not None
    return found.detail


def test_full_precision_is_the_model_itself(load: Callable[..., PreTrainedModel]) -> None:
    model = load()
    recipe = quantize.get("fp32")
    found = recipe.apply(model, Request(embedding="8w"))
    assert recipe.exact
    assert found.model is model
    assert found.notes == []
    assert found.detail is None


@pytest.mark.parametrize("kind", ["llama", "llama-untied", "qwen2", "gemma3", "gpt2", "gpt_neox"])
@pytest.mark.parametrize("embedding", ["8w", "fp32"])
def test_the_given_model_stays_as_it_was(kind: str, embedding: str, load: Callable[..., PreTrainedModel]) -> None:
    """Every precision starts from the same loaded model."""
    model = load(kind)
    before = logits(model)
    kept = {name: (p.data_ptr(), p.dtype, type(p)) for name, p in model.named_parameters()}
    padding = model.get_input_embeddings().padding_idx
    found = _8da4w(model, embedding)
    assert torch.equal(logits(model), before)
    assert {name: (p.data_ptr(), p.dtype, type(p)) for name, p in model.named_parameters()} == kept
    assert model.get_input_embeddings().padding_idx == padding
    assert found.model is not model
    assert not quantize.get("8da4w-rtn").exact


def test_what_is_not_quantized_is_shared(load: Callable[..., PreTrainedModel]) -> None:
    """A second copy of the norms, the embedding and the buffers would be memory for nothing."""
    model = load()
    own = {name: p.data_ptr() for name, p in (*model.named_parameters(), *model.named_buffers())}
    found = _8da4w(model, "fp32").model
    shared = {
        name
        for name, p in (*found.named_parameters(), *found.named_buffers())
        if type(p) in (nn.Parameter, torch.Tensor) and p.data_ptr() == own[name]
    }
    linear = {name for name, module in model.named_modules() if isinstance(module, nn.Linear)}
    assert shared == {name for name in own if name.rpartition(".")[0] not in linear}
    assert "model.embed_tokens.weight" in shared


def test_weights_are_int4_in_groups_of_32(load: Callable[..., PreTrainedModel]) -> None:
    """And are what rounding to nearest gives: no value is further from its own than half a step."""
    model = load("llama-untied")
    found = _8da4w(model)
    count = 0
    for name, module in found.model.named_modules():
        if not isinstance(module, nn.Linear):
            continue
        count += 1
        weight: Any = module.weight
        original: Any = model.get_submodule(name).weight
        assert (weight.qdata.min() >= -8) and (weight.qdata.max() <= 7)
        assert weight.scale.shape == (original.shape[0], original.shape[1] // 32)
        back = weight.dequantize()
        steps = weight.scale.repeat_interleave(32, dim=1)
        inside = (original / steps).abs() < 7.5
        assert ((back - original).abs() <= 0.5001 * steps)[inside].all()
    assert count == 2 * 7 + 1
    table: Any = found.model.get_input_embeddings().weight
    assert table.qdata.dtype == torch.int8
    assert table.scale.numel() == VOCABULARY, "one scale a row"


@pytest.mark.parametrize(("embedding", "table"), [("8w", "int8"), ("fp32", "fp32")])
def test_parameters_are_counted_by_format(embedding: str, table: str, load: Callable[..., PreTrainedModel]) -> None:
    model = load("llama-untied")
    bits = _detail(_8da4w(model, embedding)).parameters
    linear = sum(m.weight.numel() for m in model.modules() if isinstance(m, nn.Linear))
    rest = sum(p.numel() for p in model.parameters()) - linear - VOCABULARY * 64
    assert bits == {
        "int4": linear,
        "int8": 0,
        "fp32": rest,
        **({table: VOCABULARY * 64 + (0 if table == "int8" else rest)}),
    }


def test_quantization_costs_something_and_not_everything(load: Callable[..., PreTrainedModel]) -> None:
    model = load()
    full = logits(model)
    for embedding in ("8w", "fp32"):
        rounded = logits(_8da4w(model, embedding).model)
        cosine = torch.nn.functional.cosine_similarity(full, rounded, dim=-1)
        assert 0.9 < cosine.mean() < 0.9999


def test_the_same_model_gives_the_same_bytes(load: Callable[..., PreTrainedModel]) -> None:
    """Scales that depend on the processor or on chance would make each export another file."""
    first, second = (_8da4w(load()).model for _ in range(2))
    for (name, a), (_, b) in zip(first.named_parameters(), second.named_parameters(), strict=True):
        for part in ("qdata", "scale", "zero_point"):
            if hasattr(a, part) and isinstance(getattr(a, part), torch.Tensor):
                assert torch.equal(getattr(a, part), getattr(b, part)), name


def _told(found: Quantized, words: str) -> bool:
    return any(words in note for note in found.notes)


def test_a_tied_embedding_is_untied_and_told(load: Callable[..., PreTrainedModel]) -> None:
    model = load("llama")
    found = _8da4w(model)
    assert _told(found, "the tied embedding is untied")
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert found.model.get_output_embeddings().weight is not found.model.get_input_embeddings().weight
    assert not _told(_8da4w(load("llama-untied")), "untied")


def test_layers_of_an_odd_width_stay_and_are_named(load: Callable[..., PreTrainedModel]) -> None:
    model = load(hidden_size=48, num_attention_heads=4, head_dim=16)
    found = _8da4w(model)
    # Widths: 48 into q, k, v, gate, up and the output; 64 into o; 128 into down.
    assert _told(found, "11 linear layers stay in float32: their input width is not a multiple of 32")
    left = {
        name for name, m in found.model.named_modules() if isinstance(m, nn.Linear) and type(m.weight) is nn.Parameter
    }
    assert left == {"lm_head"} | {
        f"model.layers.{i}.{part}"
        for i in range(2)
        for part in ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "mlp.gate_proj", "mlp.up_proj")
    }
    assert _detail(found).parameters["int4"] == 2 * (64 * 48 + 128 * 48)
    assert _told(found, "of the parameters stay in float32")


def test_layers_that_are_no_linear_layers_are_rounded_too(load: Callable[..., PreTrainedModel]) -> None:
    """GPT-2 keeps its products as Conv1D."""
    found = _8da4w(load("gpt2"))
    products = [m for m in found.model.modules() if isinstance(m, nn.Linear)]
    assert len(products) == 2 * 4 + 1
    assert _detail(found).parameters["int4"] == sum(m.weight.numel() for m in products)
    assert not _told(found, "linear layers stay in float32")


def test_biases_stay(load: Callable[..., PreTrainedModel]) -> None:
    model = load("qwen2")
    found = _8da4w(model).model
    bias = "model.layers.0.self_attn.q_proj.bias"
    assert found.get_parameter(bias).data_ptr() == model.get_parameter(bias).data_ptr()
    assert model.get_parameter(bias).abs().sum() > 0


def test_an_index_for_padding_is_dropped_where_the_table_is_quantized(load: Callable[..., PreTrainedModel]) -> None:
    """A third argument of embedding() would defeat the fusion into the runtime's int8 kernel."""
    model = load(pad_token_id=2)
    assert model.get_input_embeddings().padding_idx == 2
    assert _8da4w(model).model.get_input_embeddings().padding_idx is None
    assert torch.equal(logits(_8da4w(model).model), logits(_8da4w(load()).model)), "it changes no number"
