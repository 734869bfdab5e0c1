"""The whole way from a model directory to an eager model, on real tiny models of every kind."""

from __future__ import annotations

import hashlib
import json
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pygit2
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from exporter import checkpoint
from exporter.errors import ContextTooLong, CorruptWeights, InvalidModelDirectory
from exporter.spec import ModelRef
from tests.exporter.conftest import ModelCopy
from tests.exporter.models import CONTEXT, KINDS, VOCABULARY, WINDOW

IDS = torch.arange(40).remainder(VOCABULARY)[None]
REF = ModelRef()


def _logits(model: torch.nn.Module) -> torch.Tensor:
    with torch.no_grad():
        return model(IDS).logits


def _edit(path: Path, **changes: Any) -> None:
    data = json.loads(path.read_text())
    data.update(changes)
    path.write_text(json.dumps(data))


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_loads_as_transformers_loads_it(kind: str, model_copy: ModelCopy) -> None:
    directory = model_copy(kind)
    ckpt = checkpoint.inspect(directory, REF)
    model = checkpoint.load_model(ckpt)
    stock = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32, attn_implementation=ckpt.attention)

    assert torch.equal(_logits(model), _logits(stock))
    assert not model.training
    assert {(p.dtype, p.requires_grad) for p in model.parameters()} == {(torch.float32, False)}
    assert model.config._attn_implementation == ckpt.attention
    assert ckpt.info.parameters == sum(p.numel() for p in model.parameters())
    assert ckpt.info.tied_embedding == (model.get_output_embeddings().weight is model.get_input_embeddings().weight)
    assert ckpt.info.architecture == type(stock).__name__
    assert (ckpt.vocab_size, ckpt.info.max_position_embeddings) == (VOCABULARY, CONTEXT)
    assert (ckpt.bos_id, ckpt.eos_ids) == (0, (2,))

    text = "The answer: 2 × 3 — 你好 <|im_end|>\n"
    words, stock_words = checkpoint.load_tokenizer(ckpt), AutoTokenizer.from_pretrained(directory)
    assert words(text).input_ids == stock_words(text).input_ids
    chat = [{"role": "user", "content": "Hello"}]
    assert words.apply_chat_template(chat, tokenize=False) == stock_words.apply_chat_template(chat, tokenize=False)


@pytest.mark.parametrize(
    ("kind", "layers", "window", "attention"),
    [
        ("llama", ("full_attention",) * 2, None, "sdpa"),
        ("mistral", ("sliding_attention",) * 2, WINDOW, "sdpa"),
        ("gemma3", ("sliding_attention", "full_attention"), WINDOW, "sdpa"),
        ("gemma2", ("sliding_attention", "full_attention"), WINDOW, "eager"),
    ],
)
def test_layers_and_attention_are_known(
    kind: str, layers: tuple[str, ...], window: int | None, attention: str, model_copy: ModelCopy
) -> None:
    ckpt = checkpoint.inspect(model_copy(kind), REF)
    assert (ckpt.layers, ckpt.info.sliding_window, ckpt.attention) == (layers, window, attention)


def test_cache_shapes_are_those_of_the_running_model(model_copy: ModelCopy) -> None:
    ckpt = checkpoint.inspect(model_copy("gemma3"), REF)
    cache = checkpoint.load_model(ckpt)(IDS, use_cache=True).past_key_values
    assert ckpt.caches == tuple((layer.keys.shape[1], layer.keys.shape[3]) for layer in cache.layers)


def test_files_carry_sha256_and_git_blob_id(model_copy: ModelCopy) -> None:
    directory = model_copy()
    files = {file.path: file for file in checkpoint.inspect(directory, REF).info.files}
    assert {"config.json", "model.safetensors", "tokenizer.json", "generation_config.json"} <= files.keys()
    for name, file in files.items():
        data = (directory / name).read_bytes()
        assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert file.git_oid == str(pygit2.hashfile(str(directory / name)))


def test_the_directory_is_left_as_it_was(model_copy: ModelCopy) -> None:
    directory = model_copy()
    before = {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in directory.rglob("*")}
    ckpt = checkpoint.inspect(directory, REF)
    checkpoint.load_model(ckpt)
    checkpoint.load_tokenizer(ckpt)
    assert {path: (path.stat().st_mtime_ns, path.read_bytes()) for path in directory.rglob("*")} == before


def test_nothing_asks_the_network(model_copy: ModelCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    directory = model_copy("mistral")
    _edit(directory / "config.json", _name_or_path="someone/model", attn_implementation="kernels-community/flash-attn")
    _edit(directory / "tokenizer_config.json", name_or_path="someone/model")
    tried = []
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, lambda *args: tried.append(args))
    monkeypatch.setattr(socket, "getaddrinfo", lambda *args, **kwargs: tried.append(args))
    ckpt = checkpoint.inspect(directory, REF)
    checkpoint.load_model(ckpt)
    checkpoint.load_tokenizer(ckpt)
    assert tried == []


def test_shards_are_one_model(model_copy: ModelCopy) -> None:
    directory = model_copy()
    whole = checkpoint.load_model(checkpoint.inspect(directory, REF))
    (directory / "model.safetensors").unlink()
    whole.save_pretrained(directory, max_shard_size="100KB")
    ckpt = checkpoint.inspect(directory, REF)
    assert len(ckpt.weights) > 1
    assert torch.equal(_logits(checkpoint.load_model(ckpt)), _logits(whole))
    named = {file.path for file in ckpt.info.files}
    assert {path.name for path in ckpt.weights} | {"model.safetensors.index.json"} <= named


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_dtypes_become_float32(dtype: torch.dtype, model_copy: ModelCopy) -> None:
    directory = model_copy("qwen3", dtype=dtype)
    ckpt = checkpoint.inspect(directory, REF)
    assert f"torch.{ckpt.info.dtype}" == str(dtype)
    stored = load_file(directory / "model.safetensors")
    for name, parameter in checkpoint.load_model(ckpt).named_parameters():
        assert torch.equal(parameter, stored[name].float()), name


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="/proc/self/maps is Linux's")
def test_float32_weights_stay_mapped_from_the_file(model_copy: ModelCopy) -> None:
    directory = model_copy()
    model = checkpoint.load_model(checkpoint.inspect(directory, REF))
    ranges = [
        tuple(int(end, 16) for end in line.split()[0].split("-"))
        for line in Path("/proc/self/maps").read_text().splitlines()
        if line.endswith(str(directory / "model.safetensors"))
    ]
    assert ranges
    for name, parameter in model.named_parameters():
        assert any(start <= parameter.data_ptr() < end for start, end in ranges), name


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_one_bad_number_refuses_the_weights(value: float, model_copy: ModelCopy) -> None:
    directory = model_copy()
    path = directory / "model.safetensors"
    tensors = load_file(path)
    tensors["model.layers.1.mlp.up_proj.weight"][5, 7] = value
    save_file(tensors, path, {"format": "pt"})
    ckpt = checkpoint.inspect(directory, REF)
    with pytest.raises(CorruptWeights, match=r"layers\.1\.mlp\.up_proj\.weight"):
        checkpoint.load_model(ckpt)


def test_weights_that_change_after_inspection_are_refused(model_copy: ModelCopy) -> None:
    directory = model_copy()
    ckpt = checkpoint.inspect(directory, REF)
    path = directory / "model.safetensors"
    tensors = load_file(path)
    del tensors["model.norm.weight"]
    save_file(tensors, path, {"format": "pt"})
    with pytest.raises(CorruptWeights, match="changed"):
        checkpoint.load_model(ckpt)


@pytest.mark.parametrize(("requested", "given"), [(None, CONTEXT), (8, 8), (100, 100), (CONTEXT, CONTEXT)])
def test_context_within_the_models_own(requested: int | None, given: int, model_copy: ModelCopy) -> None:
    assert checkpoint.context_length(checkpoint.inspect(model_copy(), REF), requested) == given


def test_default_context_is_at_most_2048(model_copy: ModelCopy) -> None:
    ckpt = checkpoint.inspect(model_copy("llama", max_position_embeddings=8192), REF)
    assert checkpoint.context_length(ckpt, None) == 2048
    assert checkpoint.context_length(ckpt, 8192) == 8192


@pytest.mark.parametrize("requested", [7, 0, -1, CONTEXT + 1, 10**9])
def test_context_beyond_the_models_own_is_refused(requested: int, model_copy: ModelCopy) -> None:
    ckpt = checkpoint.inspect(model_copy(), REF)
    with pytest.raises(ContextTooLong, match=str(CONTEXT) if requested > 8 else "too short"):
        checkpoint.context_length(ckpt, requested)


def test_eos_comes_from_the_first_place_that_has_it(model_copy: ModelCopy) -> None:
    directory = model_copy()
    _edit(directory / "generation_config.json", eos_token_id=[2, 0, 2], bos_token_id=1)
    ckpt = checkpoint.inspect(directory, REF)
    assert (ckpt.eos_ids, ckpt.bos_id) == ((2, 0), 1)
    assert checkpoint.load_model(ckpt).generation_config.eos_token_id == [2, 0, 2]
    (directory / "generation_config.json").unlink()
    _edit(directory / "config.json", eos_token_id=1, bos_token_id=None)
    ckpt = checkpoint.inspect(directory, REF)
    assert (ckpt.eos_ids, ckpt.bos_id) == ((1,), 0), "the bos is the tokenizer's"
    _edit(directory / "config.json", eos_token_id=VOCABULARY)
    assert checkpoint.inspect(directory, REF).eos_ids == (2,), "an id outside the vocabulary is none"


@pytest.mark.parametrize(
    ("ref", "name"),
    [
        (ModelRef(), "model"),
        (ModelRef(repo_id="someone/Tiny-1.5B"), "Tiny-1.5B"),
        (ModelRef(repo_id="someone/x", name="mine"), "mine"),
        (ModelRef(name="../../etc/x y"), "etc-x-y"),
        (ModelRef(name="..."), "model"),
    ],
)
def test_the_name_is_fit_for_a_file(ref: ModelRef, name: str, model_copy: ModelCopy) -> None:
    assert checkpoint.inspect(model_copy(), ref).info.name == name


@pytest.mark.parametrize(
    "change", [{"eos_token_id": {"a": 1}, "temperature": "hot"}, {"max_length": []}, {"cache_implementation": 5}]
)
def test_a_bad_generation_config_is_refused_or_harmless(change: dict[str, Any], model_copy: ModelCopy) -> None:
    directory = model_copy()
    _edit(directory / "generation_config.json", **change)
    try:
        assert checkpoint.inspect(directory, REF).eos_ids == (2,)
    except InvalidModelDirectory as error:
        assert "generation_config.json" in error.what


@pytest.mark.parametrize("kind", ["llama", "llama-untied"])
def test_a_changed_model_gets_its_values_again(_models: Callable[..., Path], kind: str) -> None:
    ckpt = checkpoint.inspect(_models(kind), REF)
    model = checkpoint.load_model(ckpt)
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    tied = model.get_output_embeddings().weight is model.get_input_embeddings().weight
    changed: Any = model.get_input_embeddings()
    changed.weight = torch.nn.Parameter(changed.weight + 1.0)
    checkpoint.restore(model, ckpt)
    assert {
        name: torch.equal(parameter, before[name]) for name, parameter in model.named_parameters()
    } == dict.fromkeys(before, True)
    assert (model.get_output_embeddings().weight is model.get_input_embeddings().weight) == tied == (kind == "llama")
    assert not any(parameter.requires_grad for parameter in model.parameters())
