"""xnnpack: Google's CPU kernels for Arm and x86, with the runtime's own attention and cache ops around them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.export import ExportedProgram

from exporter import attention, workarounds
from exporter.backends import Availability, ShapePolicy
from exporter.quantized_cache import CacheFormat
from exporter.report import Delegation, Status
from exporter.static_cache import Attention

# The work of a language model is in these; one of them left to a reference kernel makes the file slow.
_HEAVY = frozenset({"aten::mm", "aten::addmm", "aten::linear", "aten::convolution"})


class _Xnnpack:
    name = "xnnpack"
    title = "XNNPACK (Arm and x86 CPUs)"
    precisions = ("fp32", "8da8w", "8da4w", "8da4w-rtn", "auto")
    shape_policy: ShapePolicy = "dynamic"
    attentions: tuple[Attention, ...] = ("custom", "stock")
    caches: tuple[CacheFormat, ...] = ("fp32", "int8")
    verified_as = Status.RAN
    notes: tuple[str, ...] = ()

    def availability(self) -> Availability:
        from executorch.runtime import Runtime

        if not Runtime.get().backend_registry.is_available("XnnpackBackend"):
            return Availability(available=False, reason="this executorch build has no XNNPACK", install="executorch")
        return Availability(available=True, reason="part of the executorch package")

    def prepare(self) -> None:
        """Register the attention, cache and int8-embedding ops that the files call."""
        import executorch.kernels.quantized  # noqa: F401

        attention.load_ops()

    def decompositions(self, precision: str) -> dict[Any, Callable[..., Any]]:
        return workarounds.tanh_gelu()

    def rewrite(self, exported: ExportedProgram, precision: str) -> ExportedProgram:
        """As it is: ExecuTorch's own passes know torchao's weights."""
        return exported

    def partitioners(self, precision: str) -> list[Any]:
        from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
            XnnpackDynamicallyQuantizedPartitioner,
            XnnpackPartitioner,
        )

        if precision == "fp32":
            return [XnnpackPartitioner()]
        return [XnnpackDynamicallyQuantizedPartitioner(), XnnpackPartitioner()]

    def executorch_config(self, precision: str, embedding: str) -> Any:
        from executorch.exir import ExecutorchBackendConfig

        # A rounded embedding is dequantize + embedding in the graph; only this pass fuses it into the one
        # kernel that the runtime has (without it: "Missing out variants: torchao::dequantize_affine").
        fuse = precision != "fp32" and embedding != "fp32"
        return ExecutorchBackendConfig(do_quant_fusion_and_const_prop=fuse)

    def below_floor(self, delegation: Delegation) -> str | None:
        if not delegation.delegates:
            return "nothing was delegated to XNNPACK"
        left = sorted(op for op in delegation.leftover_ops if op.removesuffix(".out") in _HEAVY)
        return f"left to reference kernels: {', '.join(left)}" if left else None


BACKEND = _Xnnpack()
