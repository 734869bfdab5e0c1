"""ExportedProgram -> ExecuTorch program for one backend.

Goes in: a traced program, a backend, the runner metadata. Comes out: the program in memory, the edge program
that it came from (for the stage bisect) and the count of ops inside the delegates.
"""

from __future__ import annotations

import copy
from collections import Counter
from dataclasses import dataclass
from typing import Any

import torch
from torch.export import ExportedProgram

from exporter import workarounds
from exporter.backends import Backend


@dataclass(frozen=True, kw_only=True)
class Lowered:
    """A program ready to be written."""

    program: Any
    """``ExecutorchProgramManager``; ``write_to_file`` streams it."""
    edge: ExportedProgram
    delegated_ops: dict[str, int]


def op_name(target: Any) -> str:
    """An operator's name as the finished file spells it, e.g. ``aten::mul.Tensor``."""
    overload = getattr(target, "_op", target)
    name = overload.name() if isinstance(overload, torch._ops.OpOverload) else getattr(target, "__name__", str(target))
    return str(name).removesuffix(".default")


def lower(
    exported: ExportedProgram, backend: Backend, *, precision: str, embedding: str, metadata: dict[str, Any]
) -> Lowered:
    """Lower ``exported`` for ``backend``.

    A program with stock attention can be lowered again for another backend. One with the runtime's attention cannot:
    its start position is a size that torch learns at run time only, and the second lowering trips over torch's
    record of it (PendingUnbackedSymbolNotFound, torch 2.13).

    Args:
        metadata: constant methods, name to value (int, bool, or list of int).
    """
    from executorch.exir import EdgeCompileConfig

    table = backend.decompositions(precision)
    if any(node.target in table for node in exported.graph.nodes):
        exported = exported.run_decompositions(table)
    exported = backend.rewrite(exported, precision)
    with torch.no_grad(), workarounds.only_passes_with_work():
        edge = workarounds.to_edge_and_lower(
            exported,
            backend.partitioners(precision),
            constant_methods=metadata,
            # The runtime's llama ops and torchao's ops are not in the edge dialect's list of valid ops.
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        )
        edge_program = _with_own_graph(edge.exported_program())
        delegated = count_delegated(edge_program)
        program = edge.to_executorch(backend.executorch_config(precision, embedding))
    return Lowered(program=program, edge=edge_program, delegated_ops=delegated)


def _with_own_graph(program: ExportedProgram) -> ExportedProgram:
    """The program with a copy of its graph, for ``to_executorch`` rewrites graphs in place; weights and delegates
    are shared."""
    kept = copy.copy(program)
    kept._graph_module = torch.fx.GraphModule(program.graph_module, copy.deepcopy(program.graph))
    return kept


def count_delegated(edge: ExportedProgram) -> dict[str, int]:
    """Operator name to count over the bodies of all delegates of an edge program."""
    counts: Counter[str] = Counter()
    for module in edge.graph_module.modules():
        original = getattr(module, "original_module", None)
        if isinstance(original, ExportedProgram):
            counts.update(
                op_name(node.target)
                for node in original.graph.nodes
                if node.op == "call_function" and "getitem" not in str(node.target)
            )
    return dict(sorted(counts.items()))
