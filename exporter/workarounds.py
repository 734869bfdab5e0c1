"""Workarounds for upstream behaviour, all in this one place; each names its source and the versions it is for.

tests/exporter/test_workarounds.py holds each: that it is still needed, and that it changes no bytes where it
claims so. When such a test says that one can go, delete it here.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch.export import ExportedProgram

# Pass of XNNPACKPassManager -> parts of operator names, one of which a graph must hold for the pass to change
# anything; read from each pass's source in executorch 1.5.1, backends/xnnpack/_passes/. The bilinear patterns are
# gathers by index tensors. Passes that are not listed always run.
_TRIGGERS: dict[str, tuple[str, ...]] = {
    "XNNPACKRemoveCloneOpsTransform": ("clone", "alias_copy", "lift_fresh_copy", "detach"),
    "DimOrderOpsRevertPass": ("dim_order_ops",),
    "ConvertToUpsampleBilinear2d": ("aten.index.Tensor", "aten.upsample_bilinear2d"),
    "ConvertToLinearPass": ("aten.mm.", "aten.addmm.", "aten.bmm."),
    "ConvertToSDPAPass": ("softmax", "scaled_dot_product"),
    "FuseBatchNormPass": ("batch_norm",),
    "DecomposeBatchNorm": ("batch_norm",),
    "FuseActivationPass": ("aten.relu.", "aten.hardtanh."),
    "DecomposeConcatenate": ("aten.cat.",),
    "RemoveGetItemPass": ("max_pool2d", "aten.max.dim"),
    "InsertPadQDQPass": ("constant_pad_nd",),
    "Conv1dUnsqueezePass": ("convolution",),
    "PReLUReshapePass": ("prelu",),
    "RemoveRedundantCopyPass": ("_to_copy",),
}


def cannot_change(name: str, graph: Any) -> bool:
    """Whether an XNNPACK pass has nothing to do in a graph: none of the ops that it looks for is there."""
    calls = [node for node in graph.nodes if node.op == "call_function"]
    if name == "PropagateCustomMetaPass":
        return not any("custom" in node.meta for node in graph.nodes)
    if name == "ConstPropPass":
        # It folds calls whose arguments are all plain constants.
        return all(node.all_input_nodes for node in calls)
    triggers = _TRIGGERS.get(name)
    if triggers is None:
        return False
    targets = {str(node.target) for node in calls}
    return not any(trigger in target for target in targets for trigger in triggers)


@contextmanager
def only_passes_with_work() -> Iterator[None]:
    """Skip XNNPACK's passes in partitions that hold none of the ops that they look for.

    executorch 1.5.1, backends/xnnpack/_passes/__init__.py: 17 passes run over every partition, each of which
    interprets it again under fake tensors; the one for bilinear resizing exports modules of its own to get its
    patterns (~20 s, once a process). The finished file has the same bytes.
    """
    from executorch.backends.xnnpack._passes import XNNPACKPassManager

    original = XNNPACKPassManager.transform

    def transform(self: Any) -> Any:
        program, whole = self._exported_program, self.passes
        try:
            for one in whole:
                if not cannot_change(one.__name__, program.graph):
                    self._exported_program, self.passes = program, [one]
                    program = original(self)
            return program
        finally:
            self.passes = whole

    XNNPACKPassManager.transform = transform
    try:
        yield
    finally:
        XNNPACKPassManager.transform = original


def tanh_gelu() -> dict[Any, Callable[..., Any]]:
    """GELU by the tanh formula, spelled out, for backends that would compute another one.

    executorch 1.5.1, backends/xnnpack/operators/op_gelu.py: the delegate computes GELU by the error function
    whatever ``approximate`` says, 4.7e-4 beside the tanh formula that Gemma and GPT-2 were trained with.
    Formula: Hendrycks and Gimpel, "Gaussian Error Linear Units", as in torch.nn.functional.gelu.
    """

    def gelu(x: torch.Tensor, *, approximate: str = "none") -> Any:
        if approximate != "tanh":
            return NotImplemented  # the op stays as it is
        inner = math.sqrt(2.0 / math.pi) * (x + 0.044715 * (x * x * x))
        return 0.5 * x * (1.0 + torch.tanh(inner))

    return {torch.ops.aten.gelu.default: gelu}


def to_edge_and_lower(exported: ExportedProgram, partitioners: list[Any], **settings: Any) -> Any:
    """``to_edge_transform_and_lower`` that decomposes once, not once per partitioner.

    executorch 1.5.1, exir/program/_program.py, _gen_edge_manager_for_partitioners: each partitioner in turn keeps
    the ops that it wants whole and decomposes the rest, two runs over the whole graph each. XNNPACK's partitioner
    for everything wants all that the one for quantized linear layers wants, so asking the last one is enough.
    The finished file has the same bytes, a quarter sooner.
    """
    from executorch.exir import to_edge_transform_and_lower
    from executorch.exir.program import _program

    if len(partitioners) < 2:
        return to_edge_transform_and_lower(exported, partitioner=partitioners, **settings)
    edge = _program._gen_edge_manager_for_partitioners(
        {"forward": [partitioners[-1]]},
        {"forward": exported},
        settings["compile_config"],
        settings["constant_methods"],
    )
    for partitioner in partitioners:
        edge = edge.to_backend(partitioner)
    return edge


def openvino_keeps_activations() -> None:
    """Let no OpenVINO file that this process makes round its activations to int8 at run time.

    openvino 2025.4, CPU plugin: on a CPU with VNNI, matrix products with compressed weights take their activations in
    int8 by groups of 32, which doubles the cost of int8 weights (KL 4.3e-4 -> 8.7e-4 on the sample model) and is no
    part of a weight-only format. The device reads the model's own runtime options when it loads a file; executorch
    1.5.1's backend compiles through OpenVINO's torchdynamo module, which has no way to state them.
    """
    from openvino import Core
    from openvino.frontend.pytorch.torchdynamo import compile as module

    if module.Core is not Core:
        return

    class WithRuntimeOptions(Core):
        def compile_model(self, model: Any, *args: Any, **kwargs: Any) -> Any:
            model.set_rt_info("0", ["runtime_options", "DYNAMIC_QUANTIZATION_GROUP_SIZE"])
            return super().compile_model(model, *args, **kwargs)

    module.Core = WithRuntimeOptions
