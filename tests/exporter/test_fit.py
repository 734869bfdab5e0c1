"""Weights that are whole safetensors and still not those of the config."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import GPTJConfig, GPTJForCausalLM

from exporter import checkpoint, fit
from exporter.errors import InvalidModelDirectory, WeightsDoNotFit
from exporter.guard import quiet
from exporter.spec import ModelRef
from exporter.weights import Tensor
from tests.exporter.conftest import ModelCopy

Tensors = dict[str, torch.Tensor]
REF = ModelRef()
NORM, UP, QUERY = "model.norm.weight", "model.layers.1.mlp.up_proj.weight", "model.layers.0.self_attn.q_proj"


def _change(directory: Path, change: Callable[[Tensors], Any]) -> None:
    path = directory / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, path, {"format": "pt"})


def _config(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda t: t.pop(NORM), f"{NORM} is missing"),
        (lambda t: t.pop("model.embed_tokens.weight"), "model.embed_tokens.weight is missing"),
        (lambda t: t.update({UP: t[UP][:, :32]}), f"{UP} has shape [128, 32] where the config asks for [128, 64]"),
        (lambda t: t.update({UP: t[UP].T}), f"{UP} has shape [64, 128]"),
        (lambda t: t.update({UP: t[UP].flatten()}), f"{UP} has shape [8192]"),
        (lambda t: t.update({f"{QUERY}.bias": torch.zeros(64)}), f"{QUERY}.bias has no place"),
        (
            lambda t: t.update({"model.layers.2.mlp.up_proj.weight": t[UP].clone()}),
            "model.layers.2.mlp.up_proj.weight has no place",
        ),
        (lambda t: [t.pop(name) for name in sorted(t)[:9]], "and 7 more"),
        (lambda t: [t.update({f"other.{name}": t.pop(name)}) for name in sorted(t)], "is missing"),
    ],
)
def test_tensors_that_do_not_fit(change: Callable[[Tensors], Any], words: str, model_copy: ModelCopy) -> None:
    directory = model_copy()
    _change(directory, change)
    with pytest.raises(WeightsDoNotFit) as caught:
        checkpoint.inspect(directory, REF)
    assert words in caught.value.what


@pytest.mark.parametrize(
    "changes",
    [
        {"hidden_size": 128},
        {"num_hidden_layers": 1},
        {"num_hidden_layers": 3},
        {"num_key_value_heads": 4},
        {"head_dim": 32},
        {"vocab_size": 385},
        {"attention_bias": True},
        {"tie_word_embeddings": False},
    ],
)
def test_configs_of_another_model(changes: dict[str, Any], model_copy: ModelCopy) -> None:
    directory = model_copy()
    _config(directory, **changes)
    with pytest.raises(WeightsDoNotFit):
        checkpoint.inspect(directory, REF)


def test_tables_and_heads_that_others_saved_are_tolerated(model_copy: ModelCopy) -> None:
    directory = model_copy()
    before = checkpoint.load_model(checkpoint.inspect(directory, REF)).state_dict()
    extra = {
        "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
        "model.rotary_emb.inv_freq": torch.ones(8),
        "model.position_ids": torch.arange(8),
        "model.layers.0.self_attn.masked_bias": torch.tensor(-1e9),
        "v_head.summary.weight": torch.ones(1, 64),
    }
    _change(directory, lambda t: t.update(extra))
    after = checkpoint.load_model(checkpoint.inspect(directory, REF)).state_dict()
    assert before.keys() == after.keys()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_names_of_older_versions_are_understood(model_copy: ModelCopy) -> None:
    directory = model_copy("gpt2")

    def older(tensors: Tensors) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("transformer.")] = tensors.pop(name)
        tensors["h.0.attn.bias"] = torch.ones(1, 1, 256, 256)
        tensors["h.0.attn.masked_bias"] = torch.tensor(-1e4)

    before = checkpoint.load_model(checkpoint.inspect(directory, REF)).state_dict()
    _change(directory, older)
    after = checkpoint.load_model(checkpoint.inspect(directory, REF)).state_dict()
    assert all(torch.equal(before[name], after[name]) for name in before)


def test_a_tied_matrix_that_is_stored_twice_counts_once(model_copy: ModelCopy) -> None:
    directory = model_copy()
    once = checkpoint.inspect(directory, REF).info
    _change(directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"].clone()}))
    ckpt = checkpoint.inspect(directory, REF)
    assert (ckpt.info.tied_embedding, ckpt.info.parameters) == (True, once.parameters)
    model = checkpoint.load_model(ckpt)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight


def test_two_matrices_that_the_config_calls_one_stay_two(model_copy: ModelCopy) -> None:
    directory = model_copy()
    once = checkpoint.inspect(directory, REF).info
    _change(directory, lambda t: t.update({"lm_head.weight": t["model.embed_tokens.weight"] + 1}))
    ckpt = checkpoint.inspect(directory, REF)
    assert (ckpt.info.tied_embedding, ckpt.info.parameters) == (False, once.parameters + 384 * 64)
    model = checkpoint.load_model(ckpt)
    assert model.get_output_embeddings().weight is not model.get_input_embeddings().weight


def test_only_the_output_embedding_is_stored(model_copy: ModelCopy) -> None:
    directory = model_copy()
    _change(directory, lambda t: t.update({"lm_head.weight": t.pop("model.embed_tokens.weight")}))
    assert checkpoint.inspect(directory, REF).info.tied_embedding


@pytest.mark.parametrize("kind", ["mixtral", "qwen3_moe"])
def test_a_missing_expert_is_seen(kind: str, model_copy: ModelCopy) -> None:
    directory = model_copy(kind)
    names = list(load_file(directory / "model.safetensors"))
    expert = next(name for name in names if ".experts.3." in name)
    _change(directory, lambda t: t.pop(expert))
    with pytest.raises(WeightsDoNotFit):
        checkpoint.inspect(directory, REF)


def test_more_experts_than_weights_can_fill(model_copy: ModelCopy) -> None:
    directory = model_copy("mixtral")
    _config(directory, num_local_experts=99_999)
    with pytest.raises(WeightsDoNotFit, match="99999"):
        checkpoint.inspect(directory, REF)


def test_tables_for_absurdly_many_positions_are_refused() -> None:
    with quiet():
        config = GPTJConfig(n_embd=64, n_layer=1, n_head=1, rotary_dim=32, vocab_size=384, n_positions=64)
        state = GPTJForCausalLM(config).state_dict()
    tensors = [Tensor(name, "F32", tuple(value.shape), Path("x")) for name, value in state.items()]
    assert fit.check(config, GPTJForCausalLM, "eager", tensors).caches == ((1, 64),)
    config.n_positions = 1 << 24
    with pytest.raises(InvalidModelDirectory, match="tables of 2048 MiB"):
        fit.check(config, GPTJForCausalLM, "eager", tensors)
