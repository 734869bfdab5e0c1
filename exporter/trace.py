"""torch.export of the static-cache module: once per precision, shape policy and kind of attention.

Goes in: an ``ExportableModule``. Comes out: an ``ExportedProgram`` whose inputs are ``input_ids`` [1, S] and
``cache_position`` [S], int64, with S from 1 to the context length (``dynamic``) or S = 1 (``single``).
Non-strict tracing gives the same graph as strict tracing in less time (a test holds that for stock attention; the
runtime's attention cannot be traced strictly: dynamo does not know the context variable that carries its position).
"""

from __future__ import annotations

import torch
from torch.export import ExportedProgram

from exporter.backends import ShapePolicy
from exporter.static_cache import ExportableModule

_EXAMPLE_LENGTH = 3
"""Tokens in the example of a dynamic trace; any number but 1, which torch.export would specialise on."""


def trace(module: ExportableModule, shape_policy: ShapePolicy, *, strict: bool = False) -> ExportedProgram:
    """Trace ``module`` for a shape policy; its caches are left untouched."""
    length = 1 if shape_policy == "single" else min(_EXAMPLE_LENGTH, module.max_seq_len)
    dynamic_shapes = None
    if shape_policy == "dynamic":
        sequence = torch.export.Dim("sequence", min=1, max=module.max_seq_len)
        dynamic_shapes = {"input_ids": {1: sequence}, "cache_position": {0: sequence}}
    with torch.no_grad():
        return torch.export.export(
            module,
            (torch.zeros(1, length, dtype=torch.long), torch.arange(length)),
            dynamic_shapes=dynamic_shapes,
            strict=strict,
        )
