"""portable: ExecuTorch's reference kernels for core ATen ops; slow, and runs wherever ExecuTorch does."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch.export import ExportedProgram

from exporter.backends import Availability, ShapePolicy
from exporter.quantized_cache import CacheFormat
from exporter.report import Delegation, Status
from exporter.static_cache import Attention


class _Portable:
    name = "portable"
    title = "Portable kernels (any CPU)"
    precisions = ("fp32", "8da8w", "8da4w", "8da4w-rtn", "8w", "4w")
    shape_policy: ShapePolicy = "dynamic"
    attentions: tuple[Attention, ...] = ("stock",)
    caches: tuple[CacheFormat, ...] = ("fp32",)
    verified_as = Status.RAN
    notes: tuple[str, ...] = ()

    def availability(self) -> Availability:
        return Availability(available=True, reason="part of every ExecuTorch runtime")

    def prepare(self) -> None:
        """Nothing: the files must need no op library."""

    def decompositions(self, precision: str) -> dict[Any, Callable[..., Any]]:
        from exporter import core_ops

        return {} if precision == "fp32" else core_ops.decompositions()

    def rewrite(self, exported: ExportedProgram, precision: str) -> ExportedProgram:
        """As it is: ExecuTorch's own passes know torchao's weights."""
        return exported

    def partitioners(self, precision: str) -> list[Any]:
        return []

    def executorch_config(self, precision: str, embedding: str) -> Any:
        from executorch.exir import ExecutorchBackendConfig

        return ExecutorchBackendConfig()

    def below_floor(self, delegation: Delegation) -> str | None:
        if delegation.delegates:
            return f"{delegation.delegates} delegates in a file that must need none"
        foreign = sorted(op for op in delegation.leftover_ops if not op.startswith(("aten::", "dim_order_ops::")))
        executorch_own = [op for op in foreign if not op.startswith("executorch_prim::")]
        if executorch_own:
            return f"ops outside the portable kernels: {', '.join(executorch_own)}"
        return None


BACKEND = _Portable()
