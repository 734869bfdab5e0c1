"""The rehearsal's small model: one layer of every kind, quick, well conditioned, always the same."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from transformers import AutoConfig

from exporter import architectures, checkpoint, rehearsal
from exporter.spec import ModelRef
from tests.exporter.conftest import ModelCopy
from tests.exporter.models import KINDS

IDS = torch.arange(40)[None]


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_has_a_small_model_that_behaves(kind: str, model_copy: ModelCopy) -> None:
    ckpt = checkpoint.inspect(model_copy(kind), ModelRef())
    model = checkpoint.one_layer(ckpt)
    again = checkpoint.one_layer(ckpt)
    with torch.no_grad():
        logits = model(IDS).logits
        assert torch.equal(logits, again(IDS).logits), "seeded"
    assert 0.2 < logits.std() < 3, "neither vanishing nor exploding"
    assert type(model).__name__ == ckpt.info.architecture
    assert model.config._attn_implementation == ckpt.attention
    assert not model.training
    assert {(p.dtype, p.requires_grad) for p in model.parameters()} == {(torch.float32, False)}
    whole = checkpoint.load_model(ckpt)
    tied = whole.get_output_embeddings().weight is whole.get_input_embeddings().weight
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied
    sizes = {name: p.shape for name, p in model.named_parameters() if "0." in name}
    assert sizes == {name: p.shape for name, p in whole.named_parameters() if name in sizes}, "layers keep their size"


@pytest.mark.parametrize(
    ("kind", "overrides", "layers", "field", "values"),
    [
        ("llama", {}, 1, "num_hidden_layers", 1),
        ("mistral", {}, 1, "num_hidden_layers", 1),
        ("gpt2", {"n_layer": 6}, 1, "n_layer", 1),
        (
            "gemma3",
            {"layer_types": ["sliding_attention"] * 5 + ["full_attention"]},
            2,
            "layer_types",
            ["sliding_attention", "full_attention"],
        ),
        ("smollm3", {"no_rope_layers": [1, 1, 1, 0, 1, 1]}, 2, "no_rope_layers", [1, 0]),
        (
            "qwen2",
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 4},
            2,
            "layer_types",
            ["full_attention", "sliding_attention"],
        ),
        # Which layers are dense is a list of numbers, not one entry a layer: the first three show both kinds.
        ("qwen3_moe", {"mlp_only_layers": [2]}, 3, "num_hidden_layers", 3),
    ],
)
def test_one_layer_of_every_kind(
    kind: str, overrides: dict[str, Any], layers: int, field: str, values: Any, model_copy: ModelCopy
) -> None:
    model = checkpoint.one_layer(
        checkpoint.inspect(model_copy(kind, **({"num_hidden_layers": 6} | overrides)), ModelRef())
    )
    assert model.config.num_hidden_layers == layers
    assert getattr(model.config, field) == values
    with torch.no_grad():
        cache = model(IDS, use_cache=True).past_key_values
    assert len(cache.layers) == layers


def test_a_constant_of_its_own_makes_no_kind_and_no_chance(model_copy: ModelCopy) -> None:
    ckpt = checkpoint.inspect(model_copy(), ModelRef())
    sizes = {"hidden_size": 64, "num_attention_heads": 4, "num_hidden_layers": 4, "vocab_size": 384}
    config = AutoConfig.for_model("diffllama", **sizes, num_key_value_heads=2, intermediate_size=128)
    ckpt = dataclasses.replace(ckpt, config=config, model_class=architectures.class_of(config))
    first, second = checkpoint.one_layer(ckpt), checkpoint.one_layer(ckpt)
    assert first.config.num_hidden_layers == 1, "each layer's lambda differs, and is only a number"
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))


def test_the_vocabulary_is_cut_and_ids_stay_inside(model_copy: ModelCopy) -> None:
    directory = model_copy("llama", vocab_size=1000, pad_token_id=900, eos_token_id=950)
    model = checkpoint.one_layer(checkpoint.inspect(directory, ModelRef()))
    assert model.get_input_embeddings().weight.shape == (rehearsal.VOCABULARY, 64)
    assert model.config.pad_token_id < rehearsal.VOCABULARY
    assert model(IDS).logits.shape == (1, 40, rehearsal.VOCABULARY)


def test_conditioning_keeps_scales_far_from_zero(model_copy: ModelCopy) -> None:
    model = checkpoint.load_model(checkpoint.inspect(model_copy(), ModelRef()))
    for name, parameter in model.named_parameters():
        if parameter.ndim == 2:
            assert parameter.std() == pytest.approx(parameter.shape[-1] ** -0.5, rel=0.1), name
        else:
            assert parameter.mean() == pytest.approx(1, abs=0.1), name
            assert parameter.std() > 0.05, name
