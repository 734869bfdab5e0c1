"""Workarounds for upstream behaviour, all in this one place; each names its source and the versions it is for.

tests/exporter/test_workarounds.py holds each: that it is still needed, and that it changes no bytes where it
claims so. When such a test says that one can go, delete it here.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

# Ops whose decomposition the bilinear pass looks for always contain a gather by index tensors; a graph
# without aten.index.Tensor cannot match any of its patterns.
_BILINEAR_TRIGGERS = ("aten.index.Tensor", "aten.upsample_bilinear2d")


@contextmanager
def no_bilinear_search() -> Iterator[None]:
    """Skip XNNPACK's search for bilinear resizing in graphs that have no op of it.

    executorch 1.5.1, backends/xnnpack/_passes/convert_to_upsample_bilinear2d.py: the first XNNPACK lowering in
    a process exports bilinear modules to get its patterns, and every partition is re-interpreted for them.
    The finished file has the same bytes.
    """
    from executorch.backends.xnnpack._passes.convert_to_upsample_bilinear2d import ConvertToUpsampleBilinear2d
    from torch.fx.passes.infra.pass_base import PassResult

    original = ConvertToUpsampleBilinear2d.call

    def call(self: Any, graph_module: Any) -> Any:
        if any(trigger in str(node.target) for node in graph_module.graph.nodes for trigger in _BILINEAR_TRIGGERS):
            return original(self, graph_module)
        return PassResult(graph_module, False)

    ConvertToUpsampleBilinear2d.call = call
    try:
        yield
    finally:
        ConvertToUpsampleBilinear2d.call = original
