"""Weight files of a model directory, by their headers only.

Goes in: the directory's files. Comes out: name, dtype, shape and file of every tensor, checked against the
files' sizes; or the refusal that says what is there instead. Data is read only by who indexes ``slices``.
Stage 3 of the way of one request. Format: https://huggingface.co/docs/safetensors/index#format
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from safetensors import safe_open

from exporter.errors import (
    AdapterWithoutBase,
    CorruptWeights,
    InvalidModelDirectory,
    MissingShard,
    PickledWeightsOnly,
    QuantizedCheckpoint,
)
from exporter.guard import guarded, shown
from exporter.source import read_json

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
LARGEST_HEADER = 32 << 20
"""Bytes. The format allows 100 MB; 100,000 tensors need about 12."""
LARGEST_INDEX = 64 << 20
MOST_TENSORS = 200_000
FLOATS = {"F64": "float64", "F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""Dtypes that weights may have: the format's name, torch's name."""
_BYTES = {"F64": 8, "F32": 4, "F16": 2, "BF16": 2}
_MAPPED = 64 << 20
"""Bytes of a file that are read through one mapping of it."""

_LFS_POINTER = b"version https://git-lfs"
_PICKLES = (".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle")
# How quantizers name what they store beside or instead of a weight: GPTQ and AWQ; compressed-tensors, FP8 and
# ModelOpt; bitsandbytes; EETQ and HQQ.
_QUANTIZED = frozenset(
    (
        *("qweight", "qzeros", "g_idx", "weight_packed", "weight_scale", "weight_scale_inv", "weight_scale_2"),
        *("weight_zero_point", "weight_shape", "weight_g_idx", "input_scale", "SCB", "weight_format", "absmax"),
        *("quant_map", "nested_absmax", "nested_quant_map", "weight_scales", "W_q"),
    )
)


@dataclass(frozen=True)
class Tensor:
    """One tensor as a header describes it."""

    name: str
    dtype: str
    """The format's name, e.g. ``BF16``."""
    shape: tuple[int, ...]
    file: Path


def find(files: dict[str, Path]) -> list[Path]:
    """The safetensors files to read, in name order; for a sharded model those that its index names.

    Raises:
        AdapterWithoutBase, QuantizedCheckpoint (GGUF), PickledWeightsOnly, MissingShard, InvalidModelDirectory:
            there are no whole safetensors weights, and this is what is there instead.
    """
    if SINGLE in files:
        return [files[SINGLE]]
    if INDEX in files:
        return _shards(files)
    names = sorted(files)
    if any(name.startswith(("adapter_config.", "adapter_model.")) for name in names):
        raise AdapterWithoutBase("The directory holds an adapter (adapter_config.json) and not the model it adapts.")
    if gguf := [name for name in names if name.endswith(".gguf")]:
        raise QuantizedCheckpoint(f"The directory holds GGUF weights only: {_some(gguf)}.")
    if shards := [name for name in names if name.startswith("model-") and name.endswith(".safetensors")]:
        raise MissingShard(f"There are shards ({_some(shards)}) but no {INDEX} that says what is in them.")
    if pickles := [name for name in names if name.endswith(_PICKLES)]:
        raise PickledWeightsOnly(f"The weights are pickled ({_some(pickles)}): loading them could run any code.")
    if others := [name for name in names if name.endswith((".safetensors", ".h5", ".msgpack", ".onnx"))]:
        raise InvalidModelDirectory(f"There is neither {SINGLE} nor {INDEX}, only {_some(others)}.")
    raise InvalidModelDirectory(f"There are no weights: neither {SINGLE} nor {INDEX}.")


def _shards(files: dict[str, Path]) -> list[Path]:
    named = set()
    for name in _weight_map(files).values():
        if not isinstance(name, str) or Path(name).name != name or not name.endswith(".safetensors"):
            raise InvalidModelDirectory(
                f"{INDEX} names {shown(name, 80)!r}, which is not a safetensors file beside it."
            )
        named.add(name)
    if missing := sorted(named - files.keys()):
        raise MissingShard(f"{INDEX} names {len(missing)} file(s) that are not there: {_some(missing)}.")
    return [files[name] for name in sorted(named)]


def _weight_map(files: dict[str, Path]) -> dict[str, object]:
    weight_map = read_json(files[INDEX], LARGEST_INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CorruptWeights(f"{INDEX} has no weight_map.")
    return weight_map


def check_index(files: dict[str, Path], tensors: Iterable[Tensor]) -> None:
    """Hold a sharded model's index to what its shards contain; nothing to do for a single file.

    Raises:
        CorruptWeights: a tensor is not in the shard that the index names for it.
    """
    if SINGLE in files:
        return
    held = {tensor.name: tensor.file.name for tensor in tensors}
    if lost := sorted(str(name) for name, file in _weight_map(files).items() if held.get(name) != file):
        raise CorruptWeights(f"{INDEX} names tensors that are not in their shard: {_some(lost)}.")


def headers(paths: Iterable[Path]) -> list[Tensor]:
    """Every tensor of the files, from headers that agree with the files' sizes.

    Raises:
        CorruptWeights: truncated, header too long or not what the format says, data missing or left over,
            a tensor in two files.
        QuantizedCheckpoint: names or dtypes that only a quantizer writes.
    """
    tensors: dict[str, Tensor] = {}
    for path in paths:
        _check_length(path)
        # The library checks offsets, overlaps, holes, dtypes and the file's size against each other.
        with guarded(CorruptWeights, f"{path.name} is not whole safetensors"), safe_open(path, "pt") as reader:
            for name in reader.keys():  # noqa: SIM118 (not a dict)
                view = reader.get_slice(name)
                if name in tensors:
                    raise CorruptWeights(f"{shown(name)} is both in {tensors[name].file.name} and in {path.name}.")
                tensors[name] = Tensor(name, view.get_dtype(), tuple(view.get_shape()), path)
                if len(tensors) > MOST_TENSORS:
                    raise CorruptWeights(f"{path.name} brings more than {MOST_TENSORS} tensors.")
    if not tensors:
        raise CorruptWeights("The weights hold no tensor.")
    _refuse_quantized(tensors.values())
    return list(tensors.values())


class _File:
    """One file, mapped anew from time to time: pages count as ours from when they are read until it is let go of."""

    def __init__(self, path: Path) -> None:
        self._path, self._read = path, 0
        self._reader = safe_open(path, "pt")

    def names(self) -> list[str]:
        return list(self._reader.keys())

    def slice(self, name: str) -> Any:
        view = self._reader.get_slice(name)
        if view.get_dtype() != "F32":  # those are used as they are mapped
            if self._read > _MAPPED:
                self._read, self._reader = 0, safe_open(self._path, "pt")
                view = self._reader.get_slice(name)
            self._read += prod(view.get_shape()) * _BYTES.get(view.get_dtype(), 8)
        return view


@dataclass(frozen=True)
class Slice:
    """A tensor that is read when it is indexed."""

    _file: _File
    _name: str

    def __getitem__(self, index: Any) -> Any:
        return self._file.slice(self._name)[index]

    def get_dtype(self) -> str:
        dtype: str = self._file.slice(self._name).get_dtype()
        return dtype

    def get_shape(self) -> list[int]:
        shape: list[int] = self._file.slice(self._name).get_shape()
        return shape


def slices(path: Path) -> dict[str, Slice]:
    """Name to tensor of a file whose headers are checked. Whoever converts them one after the other has at most 64 MB
    of its pages and one tensor in memory beside what they become."""
    file = _File(path)
    return {name: Slice(file, name) for name in file.names()}


def _check_length(path: Path) -> None:
    try:
        size = path.stat().st_size
        with path.open("rb") as stream:
            start = stream.read(len(_LFS_POINTER))
    except OSError as error:
        raise InvalidModelDirectory(f"{path.name} cannot be read: {error.strerror}.") from None
    if start == _LFS_POINTER:
        raise CorruptWeights(
            f"{path.name} is a Git LFS pointer, not the weights.", remedy="Fetch the weights: git lfs pull."
        )
    length = int.from_bytes(start[:8], "little")
    if size < 8:
        raise CorruptWeights(f"{path.name} has {size} bytes: too few for a safetensors file.")
    if length > size - 8:
        raise CorruptWeights(f"{path.name} is truncated: its header claims {length} bytes of {size - 8}.")
    if length > LARGEST_HEADER:
        raise CorruptWeights(f"{path.name} has a header of {length} bytes; {LARGEST_HEADER} are the most.")


def _refuse_quantized(tensors: Iterable[Tensor]) -> None:
    for tensor in tensors:
        *parents, last = tensor.name.split(".")
        if last in _QUANTIZED or "quant_state" in parents:
            raise QuantizedCheckpoint(f"{tensor.file.name} holds {shown(tensor.name)}, as quantizers write it.")
        if last == "weight" and tensor.dtype not in FLOATS:
            raise QuantizedCheckpoint(f"{shown(tensor.name)} in {tensor.file.name} has dtype {tensor.dtype}.")


def _some(names: list[str], most: int = 3) -> str:
    text = ", ".join(shown(name, 80) for name in names[:most])
    return f"{text} and {len(names) - most} more" if len(names) > most else text
