"""openvino: Intel's runtime on the CPU; the whole model in one delegate, one token a call.

Its exporter refuses symbolic lengths ("'SymInt' object has no attribute 'type'"), hence the single-token shape.

Weights that a recipe rounded stay as small in the file as the recipe made them, and run so: ``rewrite`` puts them in
the form that OpenVINO's compiler knows. ``4w-nncf`` is rounded by Intel's own toolchain instead.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from torch.export import ExportedProgram
from torch.fx import GraphModule

from exporter import workarounds
from exporter.backends import Availability, ShapePolicy
from exporter.quantized_cache import CacheFormat
from exporter.report import Delegation, Status
from exporter.static_cache import Attention

if TYPE_CHECKING:
    from exporter.backend_quantize import Inputs, Rounded


class _OpenVino:
    name = "openvino"
    title = "OpenVINO (Intel CPUs)"
    precisions = ("fp32", "8w", "4w", "4w-nncf")
    own_precisions = ("4w-nncf",)
    calibration_tokens = 1024
    shape_policy: ShapePolicy = "single"
    attentions: tuple[Attention, ...] = ("stock",)
    caches: tuple[CacheFormat, ...] = ("fp32",)
    verified_as = Status.RAN
    notes: tuple[str, ...] = (
        "on a CPU with bf16 instructions, set ONEDNN_MAX_CPU_ISA=AVX512_CORE in the environment of the program that "
        "runs the file: OpenVINO otherwise rounds every product to bf16, and neither file nor runtime can say no to it",
    )

    def availability(self) -> Availability:
        # Asking the runtime loads OpenVINO's CPU plugin, which looks at the environment then and never again.
        self.prepare()
        install = "pip install 'ptebot[openvino]'"
        # The ExecuTorch backend imports nncf, which executorch's own extra does not bring.
        missing = [name for name in ("openvino", "nncf") if find_spec(name) is None]
        if missing:
            return Availability(
                available=False, reason=f"the packages {', '.join(missing)} are missing", install=install
            )
        from executorch.runtime import Runtime

        if not Runtime.get().backend_registry.is_available("OpenvinoBackend"):
            return Availability(available=False, reason="this executorch build has no OpenVINO backend")
        return Availability(available=True, reason="openvino and nncf are installed")

    def prepare(self) -> None:
        """Keep oneDNN below bf16: on CPUs with avx512_bf16 it would round every product (4e-2 on logits)."""
        os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")

    def decompositions(self, precision: str) -> dict[Any, Callable[..., Any]]:
        return {}

    def compress(self, graph: GraphModule, inputs: Sequence[Inputs], precision: str) -> Rounded:
        """nncf's weight compression; see ``exporter.backend_quantize_openvino``."""
        from exporter import backend_quantize_openvino

        return backend_quantize_openvino.compress(graph, inputs, precision)

    def rewrite(self, exported: ExportedProgram, precision: str) -> ExportedProgram:
        """The program with torchao's quantized weights as OpenVINO's compressed constants."""
        from exporter import backend_quantize_weights

        return backend_quantize_weights.rewrite(exported)

    def partitioners(self, precision: str) -> list[Any]:
        from executorch.backends.openvino.partitioner import OpenvinoPartitioner
        from executorch.exir.backend.backend_details import CompileSpec

        workarounds.openvino_keeps_activations()
        return [OpenvinoPartitioner([CompileSpec("device", b"CPU")])]

    def executorch_config(self, precision: str, embedding: str) -> Any:
        from executorch.exir import ExecutorchBackendConfig

        return ExecutorchBackendConfig()

    def below_floor(self, delegation: Delegation) -> str | None:
        if delegation.delegates != 1:
            return f"{delegation.delegates} delegates where the whole model should be one"
        # copy_ writes the caches, which go in and out of the delegate, back into the program's buffers.
        left = sorted(op for op in delegation.leftover_ops if op != "aten::copy_" and "prim::" not in op)
        return f"left outside the delegate: {', '.join(left)}" if left else None


BACKEND = _OpenVino()
