"""Write a ``.pte`` file; read it back: methods, metadata, delegates, ops, bytes.

What is reported of a file is read from the finished bytes on disk, never from the program in memory.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from exporter.errors import InvalidPte

FORWARD = "forward"
_LISTS = frozenset({"get_eos_ids"})
"""Constant methods that give a list: a list of one and a plain number are alike in a file's bytes."""
_DTYPES = {
    0: "uint8",
    1: "int8",
    2: "int16",
    3: "int32",
    4: "int64",
    5: "float16",
    6: "float32",
    7: "float64",
    11: "bool",
    15: "bfloat16",
}
"""``executorch.exir.scalar_type.ScalarType`` by torch's names."""


@dataclass(frozen=True, kw_only=True)
class PteInfo:
    """A finished file, as read from its bytes."""

    size_bytes: int
    sha256: str
    methods: list[str]
    """Methods that compute; constant methods are in ``metadata``."""
    metadata: dict[str, Any]
    inputs: list[dict[str, Any]]
    """Of ``forward``: dtype name and sizes (upper bounds where dynamic) of each input."""
    delegates: int
    """Delegate calls in ``forward``."""
    delegate_ids: list[str]
    leftover_ops: dict[str, int]
    """Kernel calls in ``forward``, operator name to count."""
    bytes_by_part: dict[str, int] = field(default_factory=dict)
    """Where the bytes are: constants, delegate data, program."""


def write(program: Any, path: Path) -> None:
    """Write an ``ExecutorchProgramManager`` to ``path`` and flush it to disk."""
    with path.open("wb") as file:
        program.write_to_file(file)
        file.flush()
        os.fsync(file.fileno())


def sha256(path: Path) -> str:
    """The file's SHA-256 in hex."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read(path: Path) -> PteInfo:
    """Read a ``.pte`` file.

    Raises:
        InvalidPte: not there, not a whole ExecuTorch program, or without a ``forward`` method.
    """
    try:
        return _read(path)
    except (InvalidPte, MemoryError):
        raise
    except Exception as error:
        # A damaged table deserializes into objects with holes; what then fails first is anyone's guess.
        raise InvalidPte(f"{path} is not a whole ExecuTorch program ({type(error).__name__}).") from None


def _read(path: Path) -> PteInfo:
    try:
        data = path.read_bytes()
    except OSError as error:
        raise InvalidPte(f"{path} cannot be read: {error.strerror}.") from None
    # Every ExecuTorch program has its flatbuffer identifier at byte 4 (exir/_serialize/_flatbuffer.py).
    if data[4:6] != b"ET":
        raise InvalidPte(f"{path} is not an ExecuTorch program: the identifier 'ET' is not at byte 4.")
    plans, parts = _structure(path, data)
    if FORWARD not in plans:
        raise InvalidPte(f"{path} has no method named forward; it has: {', '.join(sorted(plans)) or 'none'}.")
    metadata, inputs = _ask_runtime(path, [name for name in plans if name != FORWARD])
    plan = plans[FORWARD]
    kernels: Counter[str] = Counter()
    delegate_calls = 0
    for chain in plan.chains:
        for instruction in chain.instructions:
            kind = type(instruction.instr_args).__name__
            if kind == "DelegateCall":
                delegate_calls += 1
            elif kind == "KernelCall":
                op = plan.operators[instruction.instr_args.op_index]
                kernels[f"{op.name}.{op.overload}" if op.overload else op.name] += 1
    return PteInfo(
        size_bytes=len(data),
        sha256=hashlib.sha256(data).hexdigest(),
        methods=sorted(name for name in plans if name not in metadata),
        metadata=metadata,
        inputs=inputs,
        delegates=delegate_calls,
        delegate_ids=sorted({delegate.id for delegate in plan.delegates}),
        leftover_ops=dict(sorted(kernels.items())),
        bytes_by_part=parts,
    )


def _structure(path: Path, data: bytes) -> tuple[dict[str, Any], dict[str, int]]:
    from executorch.exir._serialize._program import deserialize_pte_binary

    try:
        file = deserialize_pte_binary(data)
    except Exception as error:
        raise InvalidPte(f"{path} is not a whole ExecuTorch program ({type(error).__name__}).") from None
    program = getattr(file, "program", file)
    named = getattr(file, "named_data", None)
    delegate_bytes = sum(len(item.data) for item in program.backend_delegate_data)
    named_bytes = sum(len(buffer) for buffer in getattr(named, "buffers", []) or [])
    constant_bytes = sum(len(buffer.storage) for buffer in program.constant_buffer)
    parts = {
        "constants": constant_bytes,
        "delegates": delegate_bytes + named_bytes,
        "program": len(data) - constant_bytes - delegate_bytes - named_bytes,
    }
    return {plan.name: plan for plan in program.execution_plan}, parts


def _ask_runtime(path: Path, names: list[str]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Constant methods' values, and ``forward``'s inputs, as the runtime gives them."""
    from executorch.runtime import Runtime

    try:
        program = Runtime.get().load_program(path)
    except (RuntimeError, ValueError) as error:
        raise InvalidPte(f"{path} cannot be loaded by the runtime: {_first_line(error)}.") from None
    metadata: dict[str, Any] = {}
    for name in names:
        meta = program.metadata(name)
        if meta.num_inputs():
            continue
        try:
            method = program.load_method(name)
            values = [_plain(value) for value in method.execute([])] if method is not None else []
        except RuntimeError as error:
            raise InvalidPte(f"{path}: the method {name} cannot be run: {_first_line(error)}.") from None
        metadata[name] = values[0] if len(values) == 1 and name not in _LISTS else values
    forward = program.metadata(FORWARD)
    inputs = []
    for index in range(forward.num_inputs()):
        tensor = forward.input_tensor_meta(index)
        inputs.append({"dtype": _dtype_name(int(tensor.dtype())), "sizes": list(tensor.sizes())})
    return metadata, inputs


def _dtype_name(code: int) -> str:
    """torch's name of one of ExecuTorch's scalar types; those that it has no such name for keep their number."""
    return _DTYPES.get(code, f"dtype {code}")


def _plain(value: Any) -> Any:
    return value.tolist() if hasattr(value, "tolist") else value


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:200]
