"""Quantized weights of a traced program in the form in which a compiler finds compressed constants.

Stage: after the trace, before lowering. Goes in: a program whose constants torchao quantized: int8 tensors, scales
and zero points under ``torchao::dequantize_affine``, an op that only ExecuTorch's own backends know. Comes out: the
same program with that op spelled out over core ops, int4 weights packed two to a byte and every constant kept once.
OpenVINO folds ``convert, multiply`` over an int8 constant, and ``stack(x & 15, x >> 4) - 8, reshape, convert,
multiply`` over a packed one, back into int8 and int4 weights of its matrix products and lookups (2025.4,
frontend/pytorch and the CPU plugin), so the file keeps them small whatever recipe chose the roundings.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import torch
from torch.export import ExportedProgram
from torch.export.graph_signature import InputKind
from torch.fx import Node

_ATEN = torch.ops.aten
_CONSTANTS = {InputKind.PARAMETER, InputKind.BUFFER, InputKind.CONSTANT_TENSOR}
_NIBBLE_MIN, _NIBBLE_MAX = -8, 7


def rewrite(exported: ExportedProgram) -> ExportedProgram:
    """``exported`` with every quantized constant as above; the given program and its tensors stay as they are.

    A program without quantized constants is given back itself. Dequantization of anything but a constant, and in
    blocks that span more than the last dimension, is left alone.
    """
    import torchao.quantization  # noqa: F401  (registers the op)

    target = torch.ops.torchao.dequantize_affine.default
    if not any(getattr(p, "qdata", None) is not None for p in exported.state_dict.values()):
        return exported
    # This takes torchao's tensors apart: their parts become inputs of the program.
    flat = exported.run_decompositions({})
    edit = _Edit(flat)
    for node in list(flat.graph.nodes):
        if node.target is target and edit.takes(node):
            edit.spell_out(node)
    return edit.finish()


def pack(values: torch.Tensor) -> torch.Tensor:
    """Signed 4-bit values (int8, -8 to 7, an even number) two to a byte: [n / 2, 1] uint8, each 8 more than its value,
    the first of a pair in the low bits."""
    pairs = (values.to(torch.int16) + 8).to(torch.uint8).reshape(-1, 2)
    return (pairs[:, :1] | (pairs[:, 1:] << 4)).contiguous()


class _Edit:
    """One program while its constants change."""

    def __init__(self, program: ExportedProgram) -> None:
        self._program, self._graph = program, program.graph
        self._state, self._constants = dict(program.state_dict), dict(program.constants)
        specs = program.graph_signature.input_specs
        self._specs = {spec.arg.name: spec for spec in specs if spec.kind in _CONSTANTS and spec.target}
        self._mode: Any = None

    def takes(self, node: Node) -> bool:
        """Whether a dequantization is of constants, in blocks of the last dimension only."""
        block: Any = node.args[1]
        return all(isinstance(arg, Node) and arg.name in self._specs for arg in node.args[:1] + node.args[2:4]) and all(
            size == 1 for size in block[:-1]
        )

    def spell_out(self, node: Node) -> None:
        """Put core ops in the place of one dequantization: (values - zero point) * scale, by block."""
        arguments: Any = node.args
        values, block, scale, zero, _, low, high = arguments[:7]
        # As they were: a table that two roles share is met twice.
        stored, scales, zeros = (self._value(part, self._program.state_dict) for part in (values, scale, zero))
        self._mode = node.meta["val"].fake_mode
        shape = list(stored.shape)
        group = int(block[-1])
        grouped = [*shape[:-1], shape[-1] // group, group]
        blocked = group != shape[-1]
        with self._graph.inserting_before(node):
            call = self._call
            if int(low) >= _NIBBLE_MIN and int(high) <= _NIBBLE_MAX and stored.numel() % 2 == 0:
                self._replace(values, pack(stored))
                low_bits = call(_ATEN.bitwise_and.Scalar, values, 15)
                high_bits = call(_ATEN.bitwise_right_shift.Tensor_Scalar, values, 4)
                x = call(_ATEN.stack.default, [low_bits, high_bits], -1)
                x = call(_ATEN.sub.Tensor, call(_ATEN.to.dtype, x, torch.int8), 8)
                x = call(_ATEN.reshape.default, x, grouped if blocked else shape)
            else:
                x = call(_ATEN.reshape.default, values, grouped) if blocked else values
            x = call(_ATEN.to.dtype, x, scales.dtype)
            if bool(zeros.any()):
                self._replace(zero, zeros.to(scales.dtype).reshape(*scales.shape, *([1] if blocked else [])))
                x = call(_ATEN.sub.Tensor, x, zero)
            self._replace(scale, scales.reshape(*scales.shape, *([1] if blocked else [])))
            x = call(_ATEN.mul.Tensor, x, scale)
            if blocked:
                x = call(_ATEN.reshape.default, x, shape)
            if node.meta["val"].dtype != scales.dtype:
                x = call(_ATEN.to.dtype, x, node.meta["val"].dtype)
        node.replace_all_uses_with(x)
        self._graph.erase_node(node)

    def finish(self) -> ExportedProgram:
        """The changed program, without inputs that nothing reads and with equal constants as one."""
        placeholders = {node.name: node for node in self._graph.find_nodes(op="placeholder")}
        first: dict[Any, Node] = {}
        gone = set()
        mutated = set(self._program.graph_signature.buffers_to_mutate.values())
        for name, spec in self._specs.items():
            node = placeholders[name]
            if spec.kind is InputKind.BUFFER and spec.target in mutated:
                continue
            if node.users:
                kept = first.setdefault(_digest(self._value(node)), node)
                if kept is node:
                    continue
                node.replace_all_uses_with(kept)
            gone.add(name)
            self._graph.erase_node(node)
            self._state.pop(str(spec.target), None)
            self._constants.pop(str(spec.target), None)
        signature = self._program.graph_signature
        signature.input_specs = [spec for spec in signature.input_specs if getattr(spec.arg, "name", None) not in gone]
        self._graph.lint()
        self._program.graph_module.recompile()
        return ExportedProgram(
            self._program.graph_module,
            self._graph,
            signature,
            self._state,
            self._program.range_constraints,
            self._program.module_call_graph,
            self._program.example_inputs,
            self._constants,
            verifiers=[self._program.verifier],
        )

    def _value(self, node: Node, state: dict[str, Any] | None = None) -> torch.Tensor:
        target = str(self._specs[node.name].target)
        if state is None:
            return self._state[target] if target in self._state else self._constants[target]
        return state[target] if target in state else self._program.constants[target]

    def _replace(self, node: Node, value: torch.Tensor) -> None:
        target = str(self._specs[node.name].target)
        if target in self._state:
            old = self._state[target]
            self._state[target] = torch.nn.Parameter(value, False) if isinstance(old, torch.nn.Parameter) else value
        else:
            self._constants[target] = value
        node.meta["val"] = self._mode.from_tensor(value, static_shapes=True)

    def _call(self, op: Callable[..., Any], *args: Any) -> Node:
        node = self._graph.call_function(op, args)
        with self._mode:
            node.meta["val"] = op(*torch.fx.map_arg(args, lambda arg: arg.meta["val"]))
        return node


def _digest(value: torch.Tensor) -> tuple[torch.dtype, torch.Size, bytes]:
    data = value.detach().contiguous().view(torch.uint8) if value.dim() else value.detach().reshape(1).view(torch.uint8)
    return value.dtype, value.shape, hashlib.sha256(data.numpy().data).digest()
