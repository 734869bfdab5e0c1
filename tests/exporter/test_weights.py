"""What stands in the place of whole safetensors weights, and how each is refused."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from exporter import checkpoint, weights
from exporter.errors import (
    AdapterWithoutBase,
    CorruptWeights,
    InvalidModelDirectory,
    MissingShard,
    PickledWeightsOnly,
    PtebotError,
    QuantizedCheckpoint,
)
from exporter.spec import ModelRef
from tests.exporter.conftest import ModelCopy

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"


def _refusal(directory: Path) -> PtebotError:
    with pytest.raises(PtebotError) as caught:
        checkpoint.inspect(directory, ModelRef())
    return caught.value


@pytest.mark.parametrize(
    ("names", "failure"),
    [
        (["pytorch_model.bin"], PickledWeightsOnly),
        (["pytorch_model-00001-of-00002.bin", "pytorch_model.bin.index.json"], PickledWeightsOnly),
        (["consolidated.00.pth"], PickledWeightsOnly),
        (["model.pt"], PickledWeightsOnly),
        (["epoch=3.ckpt"], PickledWeightsOnly),
        (["adapter_config.json", "adapter_model.safetensors"], AdapterWithoutBase),
        (["adapter_config.json", "adapter_model.bin"], AdapterWithoutBase),
        (["model-Q4_K_M.gguf"], QuantizedCheckpoint),
        (["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"], MissingShard),
        (["consolidated.safetensors"], InvalidModelDirectory),
        (["flax_model.msgpack", "tf_model.h5"], InvalidModelDirectory),
        (["README.md"], InvalidModelDirectory),
    ],
)
@pytest.mark.parametrize("with_config", [True, False])
def test_other_files_in_place_of_weights(
    names: list[str], failure: type[PtebotError], with_config: bool, model_copy: ModelCopy
) -> None:
    directory = model_copy()
    (directory / SINGLE).unlink()
    if not with_config:
        (directory / "config.json").unlink()
    for name in names:
        (directory / name).write_bytes(b"{}")
    error = _refusal(directory)
    assert type(error) is failure
    assert error.advice


def test_pickles_and_adapters_beside_whole_weights_do_not_matter(model_copy: ModelCopy) -> None:
    directory = model_copy()
    for name in ("pytorch_model.bin", "adapter_config.json", "training_args.bin", "model-Q8_0.gguf"):
        (directory / name).write_bytes(b"\x80\x04.")
    assert checkpoint.inspect(directory, ModelRef()).weights == (directory / SINGLE,)


def _sharded(directory: Path) -> dict[str, Any]:
    tensors = load_file(directory / SINGLE)
    (directory / SINGLE).unlink()
    names = sorted(tensors)
    weight_map: dict[str, str] = {}
    for number, part in enumerate((names[::2], names[1::2])):
        file = f"model-0000{number + 1}-of-00002.safetensors"
        save_file({name: tensors[name] for name in part}, directory / file, {"format": "pt"})
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 1}, "weight_map": weight_map}
    (directory / INDEX).write_text(json.dumps(index))
    return index


def test_a_missing_shard_is_named(model_copy: ModelCopy) -> None:
    directory = model_copy()
    _sharded(directory)
    (directory / "model-00002-of-00002.safetensors").unlink()
    error = _refusal(directory)
    assert type(error) is MissingShard
    assert "model-00002-of-00002.safetensors" in error.what


@pytest.mark.parametrize(
    ("place", "failure"),
    [
        ("../outside.safetensors", InvalidModelDirectory),
        ("/etc/passwd", InvalidModelDirectory),
        ("sub/shard.safetensors", InvalidModelDirectory),
        ("pytorch_model.bin", InvalidModelDirectory),
        ("..", InvalidModelDirectory),
        ("", InvalidModelDirectory),
        (7, InvalidModelDirectory),
        (None, InvalidModelDirectory),
        ("a\n\x1b[31m.safetensors", MissingShard),
        ("model-00001-of-00002.safetensors", CorruptWeights),
    ],
)
def test_an_index_that_names_other_places(place: Any, failure: type[PtebotError], model_copy: ModelCopy) -> None:
    directory = model_copy()
    index = _sharded(directory)
    index["weight_map"]["another.weight"] = place
    (directory / INDEX).write_text(json.dumps(index))
    error = _refusal(directory)
    assert type(error) is failure
    assert error.what.isprintable()


@pytest.mark.parametrize("weight_map", [None, [], {}, "model.safetensors"])
def test_an_index_without_a_map(weight_map: Any, model_copy: ModelCopy) -> None:
    directory = model_copy()
    _sharded(directory)
    (directory / INDEX).write_text(json.dumps({"weight_map": weight_map}))
    assert type(_refusal(directory)) is CorruptWeights


def test_a_tensor_in_two_shards(model_copy: ModelCopy) -> None:
    directory = model_copy()
    _sharded(directory)
    path = directory / "model-00001-of-00002.safetensors"
    twice = load_file(path) | load_file(directory / "model-00002-of-00002.safetensors")
    save_file(twice, path, {"format": "pt"})
    error = _refusal(directory)
    assert type(error) is CorruptWeights
    assert "both in" in error.what


def _rewritten(path: Path, change: Callable[[dict[str, Any]], Any]) -> None:
    data = path.read_bytes()
    (length,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + length])
    changed = change(header)
    text = json.dumps(header if changed is None else changed).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + data[8 + length :])


@pytest.mark.parametrize("kept", [0, 1, 7, 8, 9, 100, 0.5, -100, -1])
def test_truncated_anywhere(kept: float, model_copy: ModelCopy) -> None:
    path = model_copy() / SINGLE
    data = path.read_bytes()
    path.write_bytes(data[: int(len(data) * kept) if isinstance(kept, float) else kept])
    error = _refusal(path.parent)
    assert type(error) is CorruptWeights
    assert SINGLE in error.what


@pytest.mark.parametrize(
    "change",
    [
        lambda header: [header],
        lambda header: {},
        lambda header: header["model.norm.weight"].update(dtype="F31"),
        lambda header: header["model.norm.weight"].update(dtype=7),
        lambda header: header["model.norm.weight"].update(shape=[63]),
        lambda header: header["model.norm.weight"].update(shape=[-64]),
        lambda header: header["model.norm.weight"].update(shape=[2**62, 2**62]),
        lambda header: header["model.norm.weight"].update(data_offsets=[0, 256]),
        lambda header: header["model.norm.weight"].update(data_offsets=[2**63, 2**63 + 256]),
        lambda header: header["model.norm.weight"].pop("data_offsets"),
        lambda header: header.pop("model.norm.weight") and None,
        lambda header: header.update({"one.more": header["model.norm.weight"]}),
    ],
)
def test_headers_that_do_not_describe_the_file(change: Callable[[dict[str, Any]], Any], model_copy: ModelCopy) -> None:
    path = model_copy() / SINGLE
    _rewritten(path, change)
    assert type(_refusal(path.parent)) is CorruptWeights


def test_data_after_the_last_tensor(model_copy: ModelCopy) -> None:
    path = model_copy() / SINGLE
    path.write_bytes(path.read_bytes() + b"\0" * 8)
    assert type(_refusal(path.parent)) is CorruptWeights


def test_a_header_beyond_the_limit_is_not_parsed(model_copy: ModelCopy) -> None:
    path = model_copy() / SINGLE
    with path.open("wb") as stream:
        stream.write(struct.pack("<Q", weights.LARGEST_HEADER + 1))
        stream.truncate(weights.LARGEST_HEADER + 100)  # sparse: takes no room on disk
    error = _refusal(path.parent)
    assert type(error) is CorruptWeights
    assert str(weights.LARGEST_HEADER) in error.what


def test_a_git_lfs_pointer_says_what_to_do(model_copy: ModelCopy) -> None:
    path = model_copy() / SINGLE
    path.write_text("version https://git-lfs.github.com/spec/v1\noid sha256:" + "0" * 64 + "\nsize 5\n")
    error = _refusal(path.parent)
    assert type(error) is CorruptWeights
    assert "git lfs pull" in error.advice


@pytest.mark.parametrize(
    "name",
    [
        "model.layers.0.self_attn.q_proj.qweight",
        "model.layers.0.self_attn.q_proj.qzeros",
        "model.layers.0.self_attn.q_proj.weight_scale",
        "model.layers.0.self_attn.q_proj.weight_scale_inv",
        "model.layers.0.self_attn.q_proj.weight_packed",
        "model.layers.0.self_attn.q_proj.weight.absmax",
        "model.layers.0.self_attn.q_proj.weight.quant_state.bitsandbytes__nf4",
        "model.layers.0.self_attn.q_proj.SCB",
    ],
)
def test_what_quantizers_write_is_refused_without_a_config_that_says_so(name: str, model_copy: ModelCopy) -> None:
    path = model_copy() / SINGLE
    save_file(load_file(path) | {name: torch.zeros(4, dtype=torch.uint8)}, path, {"format": "pt"})
    error = _refusal(path.parent)
    assert type(error) is QuantizedCheckpoint
    assert name in error.what


@pytest.mark.parametrize("dtype", [torch.int8, torch.uint8, torch.float8_e4m3fn])
def test_weights_of_a_quantized_dtype_are_refused(dtype: torch.dtype, model_copy: ModelCopy) -> None:
    path = model_copy() / SINGLE
    tensors = load_file(path)
    tensors["model.layers.0.mlp.up_proj.weight"] = tensors["model.layers.0.mlp.up_proj.weight"].to(dtype)
    save_file(tensors, path, {"format": "pt"})
    assert type(_refusal(path.parent)) is QuantizedCheckpoint


def test_slices_read_what_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Through several mappings of the file, and those of tensors that are still used stay."""
    tensors = {f"w{n}": torch.full((8, 4), float(n), dtype=(torch.bfloat16, torch.float32)[n % 2]) for n in range(6)}
    save_file(tensors, tmp_path / "model.safetensors")
    opened: list[str] = []
    real = weights.safe_open

    def counted(path: Path, framework: str) -> object:
        opened.append(path.name)
        return real(path, framework)

    monkeypatch.setattr(weights, "safe_open", counted)
    monkeypatch.setattr(weights, "_MAPPED", 100)
    slices = weights.slices(tmp_path / "model.safetensors")
    assert slices["w1"].get_dtype() == "F32" and slices["w1"].get_shape() == [8, 4]
    read = {name: view[...] for name, view in slices.items()}
    assert all(torch.equal(read[name], tensor) and read[name].dtype == tensor.dtype for name, tensor in tensors.items())
    assert torch.equal(slices["w3"][2:4], tensors["w3"][2:4])
    assert len(opened) == 2, "192 bytes of bfloat16 through one mapping of 100 and another"
