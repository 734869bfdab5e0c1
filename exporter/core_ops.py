"""torchao's affine quantization ops spelled out in core ATen ops, so that a file needs no quantized kernels.

Formulas are those of torchao 0.18, torchao/quantization/quant_primitives.py (choose_qparams_affine,
quantize_affine, dequantize_affine). Blocks lie along the last dimension: ``block_size`` is 1 everywhere else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor


def _blocks(x: Tensor, block_size: Sequence[int]) -> tuple[Tensor, bool]:
    """``x`` [..., K] as [..., K / block, block] when a row has several blocks; whether it was split."""
    if any(size != 1 for size in block_size[:-1]):
        raise NotImplementedError(f"quantization blocks {tuple(block_size)} across rows")
    width = block_size[-1]
    if x.shape[-1] == width:
        return x, False
    return x.reshape(*x.shape[:-1], x.shape[-1] // width, width), True


def _aligned(parameter: Tensor, blocks: Tensor) -> Tensor:
    """A scale or zero point as a column beside its blocks, float32."""
    return parameter.reshape(*blocks.shape[:-1], 1).to(torch.float32)


def choose_qparams_affine(
    input: Tensor,
    mapping_type: str,
    block_size: Sequence[int],
    target_dtype: torch.dtype,
    quant_min: float | None = None,
    quant_max: float | None = None,
    eps: float | None = None,
    scale_dtype: torch.dtype | None = None,
    zero_point_dtype: torch.dtype | None = None,
    keepdim: bool = False,
) -> tuple[Tensor, Tensor]:
    """Scale and zero point of each block: scale = (max(x, 0) - min(x, 0)) / (quant_max - quant_min)."""
    if mapping_type != "ASYMMETRIC" or quant_min is None or quant_max is None:
        raise NotImplementedError(f"{mapping_type} activation quantization")
    blocks, _ = _blocks(input, block_size)
    low = torch.clamp(torch.amin(blocks, dim=-1, keepdim=keepdim), max=0.0)
    high = torch.clamp(torch.amax(blocks, dim=-1, keepdim=keepdim), min=0.0)
    scale = torch.clamp(
        (high - low) / float(quant_max - quant_min),
        min=torch.finfo(input.dtype).smallest_normal if eps is None else eps,
    )
    zero_point = torch.clamp(quant_min - torch.round(low / scale), quant_min, quant_max)
    return scale.to(scale_dtype or input.dtype), zero_point.to(zero_point_dtype or torch.int32)


def quantize_affine(
    input: Tensor,
    block_size: Sequence[int],
    scale: Tensor,
    zero_point: Tensor | None,
    output_dtype: torch.dtype,
    quant_min: float | None = None,
    quant_max: float | None = None,
) -> Tensor:
    """clamp(round(x / scale) + zero_point, quant_min, quant_max)."""
    blocks, _ = _blocks(input, block_size)
    quantized = torch.round(blocks * (1.0 / _aligned(scale, blocks)))
    if zero_point is not None:
        quantized = quantized + _aligned(zero_point, blocks)
    return torch.clamp(quantized, quant_min, quant_max).reshape(input.shape).to(output_dtype)


def dequantize_affine(
    input: Tensor,
    block_size: Sequence[int],
    scale: Tensor,
    zero_point: Tensor | None,
    input_dtype: torch.dtype,
    quant_min: float | None = None,
    quant_max: float | None = None,
    output_dtype: torch.dtype = torch.float32,
) -> Tensor:
    """(q - zero_point) * scale."""
    blocks, split = _blocks(input, block_size)
    values = blocks.to(output_dtype)
    if zero_point is not None:
        values = values - _aligned(zero_point, blocks)
    values = values * _aligned(scale, blocks)
    return (values.reshape(input.shape) if split else values).to(output_dtype)


def decompositions() -> dict[Any, Callable[..., Any]]:
    """The decomposition table for ``ExportedProgram.run_decompositions``."""
    import torchao.quantization  # noqa: F401  (registers the ops)

    ops = torch.ops.torchao
    return {
        ops.choose_qparams_affine.default: choose_qparams_affine,
        ops.quantize_affine.default: quantize_affine,
        ops.dequantize_affine.default: dequantize_affine,
    }
