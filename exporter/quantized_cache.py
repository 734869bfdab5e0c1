"""KV caches in int8: what is written, what attention reads, and how many bytes it takes.

Goes in: keys or values of one call, float32, and a layer's cache. Comes out: the cache with those tokens' rounded
values in it, and all tokens up to this call's last as float32 for the runtime's attention op.

One scale and one zero point for every token and head: with x in [low, high], widened to hold zero,
scale = (high - low) / 255, zero point = -128 - round(low / scale), q = round(x / scale) + zero point, and
x' = (q - zero point) * scale. The formulas are those of ``quantized_decomposed`` (torch,
ao/quantization/fx/_decomposed.py), whose ops ExecuTorch's quantized kernels compute.

Why not ``llama::custom_quantized_sdpa``, which takes the int8 caches as they are: it is right in ExecuTorch 1.5.1
(2e-5 beside float32 attention over the same rounded values), but it wants the queries in int8 too, which costs more
than half as much again (SmolLM2-135M: mean KL 8.4e-4 instead of 5.0e-4), and on x86 its products have no vector
kernel. One layer of SmolLM2's size, context 512, in a written file, one thread, microseconds:

| | decode at 20 | at 256 | at 510 | prefill of 256 |
|---|---|---|---|---|
| float32 caches | 10 | 52 | 116 | 4,608 |
| int8, quantized attention op | 39 | 326 | 655 | 46,447 |
| int8, dequantized up to the last token | 24 | 159 | 328 | 5,286 |
| int8, dequantized whole | 230 | 276 | 319 | 5,368 |

The op has kernels for Arm, where it was not measured. Symmetric rounding (no zero points) costs a KL of 1.2e-3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch

from exporter import attention

CacheFormat = Literal["fp32", "int8"]
Rounded = tuple[torch.Tensor, torch.Tensor, torch.Tensor]
"""int8 [1, T, heads, head_dim], and its scales (float32) and zero points (int8), both [1, T, heads, 1]."""

_LOW, _HIGH = -128, 127
_PARAMETER_BYTES = 5
"""Of each token and head: a float32 scale and an int8 zero point."""


def load_ops() -> None:
    """Register the rounding ops with torch and with the runtime in this process."""
    import executorch.kernels.quantized  # noqa: F401
    from torch.ao.quantization.fx._decomposed import quantized_decomposed_lib  # noqa: F401


def layer_bytes(heads: int, head_dim: int, tokens: int, cache_format: CacheFormat) -> int:
    """Bytes of one layer's keys and values."""
    row = 4 * head_dim if cache_format == "fp32" else head_dim + _PARAMETER_BYTES
    return 2 * heads * tokens * row


def empty(shape: Sequence[int]) -> Rounded:
    """A cache of that shape with nothing in it: all zero, scales too."""
    parameters = (*shape[:3], 1)
    return (
        torch.zeros(tuple(shape), dtype=torch.int8),
        torch.zeros(parameters, dtype=torch.float32),
        torch.zeros(parameters, dtype=torch.int8),
    )


def rounded(x: torch.Tensor) -> Rounded:
    """``x`` [1, T, heads, head_dim] float32 in int8."""
    ops = torch.ops.quantized_decomposed
    scales, zero_points = ops.choose_qparams_per_token_asymmetric(x, torch.int8)
    values = ops.quantize_per_token(x, scales, zero_points, _LOW, _HIGH, torch.int8)
    return values, scales.to(torch.float32), zero_points.to(torch.int8)


def update(new: torch.Tensor, cache: Rounded) -> torch.Tensor:
    """Round ``new`` [1, heads, S, head_dim] float32 into ``cache`` in place, at the call's start position.

    Returns:
        What the cache holds up to the last token written, float32 [1, start + S, heads, head_dim].

    Raises:
        AttentionNotTaken: shapes differ.
    """
    for part, kept in zip(rounded(new.transpose(1, 2)), cache, strict=True):
        attention.update_cache(part.transpose(1, 2), kept)
    end = attention.current_start() + new.shape[2]
    torch._check(end <= cache[0].shape[1])
    values, scales, zero_points = (torch.narrow(kept, 1, 0, end) for kept in cache)
    return torch.ops.quantized_decomposed.dequantize_per_token(
        values, scales.to(torch.float64), zero_points.to(torch.int64), _LOW, _HIGH, torch.int8, torch.float32
    )
