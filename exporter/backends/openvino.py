"""openvino: Intel's runtime on the CPU; the whole model in one delegate, one token a call.

Its exporter refuses symbolic lengths ("'SymInt' object has no attribute 'type'"), hence the single-token shape.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from importlib.util import find_spec
from typing import Any

from exporter.backends import Availability, ShapePolicy
from exporter.quantized_cache import CacheFormat
from exporter.report import Delegation, Status
from exporter.static_cache import Attention


class _OpenVino:
    name = "openvino"
    title = "OpenVINO (Intel CPUs)"
    precisions = ("fp32",)
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

    def partitioners(self, precision: str) -> list[Any]:
        from executorch.backends.openvino.partitioner import OpenvinoPartitioner
        from executorch.exir.backend.backend_details import CompileSpec

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
