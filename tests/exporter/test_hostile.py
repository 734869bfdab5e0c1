"""Some hundred damaged directories: whatever is wrong with one, it leaves as a typed refusal or as a model.

Damage is drawn with a fixed seed, so that a case that fails once fails again. Every case that is not refused
must load and give finite numbers.
"""

from __future__ import annotations

import json
import random
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import checkpoint
from exporter.errors import PtebotError
from exporter.spec import ModelRef
from tests.exporter.conftest import ModelCopy

_ODD: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 3, 7, 2**31, 2**63, 10**30, -(2**40), 0.5, -1.5, 1e308, 1e-300),
    *(float("nan"), float("inf"), "", "x", "64", "full_attention", "../../etc/passwd", "\x00\x1b[31m", "a" * 10_000),
    *([], {}, [1], [None], ["full_attention"], {"a": 1}, {"rope_type": "yarn"}, [[[[[[]]]]]]),
)
_KEYS = (
    *("model_type", "architectures", "auto_map", "quantization_config", "is_encoder_decoder", "layer_types"),
    *("sliding_window", "head_dim", "rope_scaling", "rope_theta", "partial_rotary_factor", "per_layer_config"),
    *("attn_implementation", "torch_dtype", "num_labels", "id2label", "pruned_heads", "use_cache", "attention_bias"),
    *("num_experts", "tie_word_embeddings", "mlp_bias", "to_dict", "_attn_implementation", "fusion_config"),
    *("add_cross_attention", "chunk_size_feed_forward", "problem_type", "pretraining_tp", "transformers_version"),
)


def _attempt(directory: Path) -> str:
    try:
        ckpt = checkpoint.inspect(directory, ModelRef())
        model = checkpoint.load_model(ckpt)
        checkpoint.one_layer(ckpt)
        checkpoint.load_tokenizer(ckpt)
        with torch.no_grad():
            assert model(torch.arange(8)[None]).logits.isfinite().all()
    except PtebotError as error:
        assert error.what.isprintable()
        assert len(error.what) < 2_000
        assert error.advice
        return type(error).__name__
    return "taken"


def _run(cases: int, directory: Path, damage: Callable[[random.Random], None]) -> dict[str, int]:
    kept = {path: path.read_bytes() for path in directory.iterdir()}
    outcomes: dict[str, int] = {}
    for seed in range(cases):
        damage(random.Random(seed))  # noqa: S311 (not for secrets)
        try:
            outcome = _attempt(directory)
        except BaseException as error:
            raise AssertionError(f"case {seed}: {type(error).__name__}: {error}") from error
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        for path, data in kept.items():
            path.write_bytes(data)
    return outcomes


@pytest.mark.parametrize("kind", ["llama", "gemma3"])
def test_configs_with_odd_values(kind: str, model_copy: ModelCopy) -> None:
    directory = model_copy(kind)
    path = directory / "config.json"
    good = json.loads(path.read_text())

    def damage(chance: random.Random) -> None:
        config = dict(good)
        for _ in range(chance.choice((1, 1, 2, 4))):
            key = chance.choice((*sorted(good), *sorted(good), *_KEYS))
            if chance.random() < 0.15:
                config.pop(key, None)
            else:
                config[key] = chance.choice(_ODD)
        path.write_text(json.dumps(config))

    outcomes = _run(60, directory, damage)
    assert outcomes.pop("taken") < 40
    assert {"InvalidModelDirectory", "NotACausalLM"} <= outcomes.keys(), outcomes


def test_bytes_of_any_file_flipped_cut_or_repeated(model_copy: ModelCopy) -> None:
    directory = model_copy()
    files = sorted(directory.iterdir())

    def damage(chance: random.Random) -> None:
        path = chance.choice(files)
        data = bytearray(path.read_bytes())
        # The header is where parsing happens: half the cuts and flips fall there.
        end = len(data) if chance.random() < 0.5 else min(len(data), 3_000)
        place = chance.randrange(end)
        kind = chance.randrange(4)
        if kind == 0:
            del data[place:]
        elif kind == 1:
            for _ in range(chance.randrange(1, 20)):
                data[chance.randrange(end)] = chance.randrange(256)
        elif kind == 2:
            data[place:place] = data[place : place + chance.randrange(1, 200)]
        else:
            del data[place : place + chance.randrange(1, 50)]
        path.write_bytes(data)

    outcomes = _run(90, directory, damage)
    assert outcomes["CorruptWeights"] > 5
    assert outcomes["InvalidModelDirectory"] > 5
    assert outcomes["MissingTokenizer"] > 5


def test_headers_with_odd_entries(model_copy: ModelCopy) -> None:
    directory = model_copy()
    path = directory / "model.safetensors"
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    good = json.loads(data[8 : 8 + length])

    def damage(chance: random.Random) -> None:
        header = json.loads(json.dumps(good))
        name = chance.choice(sorted(good))
        entry = header[name]
        kind = chance.randrange(5)
        if kind == 0:
            entry[chance.choice(("dtype", "shape", "data_offsets"))] = chance.choice(_ODD)
        elif kind == 1 and "shape" in entry:
            entry["shape"] = [chance.choice((0, 1, 64, 2**40, *entry["shape"])) for _ in range(chance.randrange(5))]
        elif kind == 2:
            header[chance.choice((*sorted(good), "", "a" * 9_999, "model.layers.0", "\u202e"))] = header.pop(name)
        elif kind == 3 and "dtype" in entry:
            entry["dtype"] = chance.choice(("F16", "BF16", "F64", "I64", "F8_E4M3", "F4", "C64", "BOOL"))
        else:
            header[name] = chance.choice(_ODD)
        text = json.dumps(header).encode()
        claimed = len(text) if chance.random() < 0.9 else chance.choice((0, 1, 2**63, 2**64 - 1, len(data), length))
        path.write_bytes(struct.pack("<Q", claimed) + text + data[8 + length :])

    outcomes = _run(90, directory, damage)
    assert outcomes["CorruptWeights"] > 40
    assert outcomes["WeightsDoNotFit"] > 5


def test_tokenizer_settings_with_odd_values(model_copy: ModelCopy) -> None:
    directory = model_copy()
    path = directory / "tokenizer_config.json"
    good = json.loads(path.read_text())
    keys = (
        *sorted(good),
        *("auto_map", "added_tokens_decoder", "extra_special_tokens", "additional_special_tokens", "chat_template"),
        *("vocab_file", "tokenizer_file", "merges", "vocab", "special_tokens", "fast_tokenizer_files", "gguf_file"),
    )

    def damage(chance: random.Random) -> None:
        settings = dict(good)
        for _ in range(chance.choice((1, 2, 3))):
            settings[chance.choice(keys)] = chance.choice(_ODD)
        path.write_text(json.dumps(settings))

    outcomes = _run(40, directory, damage)
    assert set(outcomes) <= {"taken", "MissingTokenizer", "RemoteCodeRequired"}, outcomes
