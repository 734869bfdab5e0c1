"""Quantization spelled out in core ops: bit for bit what torchao computes.

One different bit matters: int8 activations are rounded at run time, and a scale that differs in its last place
moves some values to the next step.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
import torchao.quantization
from torch import Tensor

from exporter import core_ops

OPS = torch.ops.torchao
_ = torchao.quantization  # imported for its ops


def _random(*shape: int, seed: int = 0, scale: float = 3.0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed)) * scale


def _with_hard_rows(rows: Tensor) -> Tensor:
    """Rows that meet every corner: all zero, one sign only, one value only, tiny, huge, ties between two steps."""
    rows = rows.clone()
    rows[..., 0, :] = 0.0
    rows[..., 1, :] = -rows[..., 1, :].abs() - 0.5
    rows[..., 2, :] = rows[..., 2, :].abs() + 0.5
    rows[..., 3, :] = -2.75
    rows[..., 4, :] *= 1e-38
    rows[..., 5, :] *= 1e30
    rows[..., 6, :] = torch.arange(rows.shape[-1]) % 8 * 0.5
    return rows


TENSORS: dict[str, Callable[[], Tensor]] = {
    "matrix": lambda: _random(16, 64),
    "batch of tokens": lambda: _random(1, 9, 96, seed=1),
    "one token": lambda: _random(1, 1, 32, seed=2),
    "hard rows": lambda: _with_hard_rows(_random(12, 64, seed=3)),
    "hard rows of a batch": lambda: _with_hard_rows(_random(2, 8, 64, seed=4)),
    "very uneven": lambda: _random(8, 128, seed=5) * torch.logspace(-20, 20, 8)[:, None],
}


def _row_blocks(x: Tensor, width: int) -> list[int]:
    return [*([1] * (x.ndim - 1)), min(width, x.shape[-1])]


@pytest.mark.parametrize("keepdim", [False, True])
@pytest.mark.parametrize("name", TENSORS)
def test_dynamic_activations_of_each_token(name: str, keepdim: bool) -> None:
    """What the 8da4w recipe does to every linear layer's input: int8, asymmetric, one scale per token."""
    x = TENSORS[name]()
    block = _row_blocks(x, x.shape[-1])
    arguments = (x, "ASYMMETRIC", block, torch.int8, -128, 127, None, torch.float32, torch.int8, keepdim)
    wanted, got = OPS.choose_qparams_affine(*arguments), core_ops.choose_qparams_affine(*arguments)
    for mine, theirs in zip(got, wanted, strict=True):
        assert mine.dtype == theirs.dtype
        assert torch.equal(mine, theirs.reshape(mine.shape))
    scale, zero = wanted
    quantized = OPS.quantize_affine(x, block, scale, zero, torch.int8, -128, 127)
    mine = core_ops.quantize_affine(x, block, scale, zero, torch.int8, -128, 127)
    assert mine.dtype == torch.int8
    assert torch.equal(mine, quantized)
    back = OPS.dequantize_affine(quantized, block, scale, zero, torch.int8, -128, 127)
    assert torch.equal(core_ops.dequantize_affine(quantized, block, scale, zero, torch.int8, -128, 127), back)


@pytest.mark.parametrize(("width", "low", "high"), [(32, -8, 7), (16, -8, 7), (64, -128, 127)])
@pytest.mark.parametrize("zero", [None, "zeros", "some"])
def test_weights_in_groups(width: int, low: int, high: int, zero: str | None) -> None:
    weight = torch.randint(low, high + 1, (24, 64), dtype=torch.int8, generator=torch.Generator().manual_seed(6))
    scale = _random(24, 64 // width, seed=7).abs() + 1e-6
    offset = {"zeros": torch.zeros, "some": lambda *shape, dtype: torch.randint(-4, 4, shape, dtype=dtype)}
    point = None if zero is None else offset[zero](*scale.shape, dtype=torch.int8)
    wanted = OPS.dequantize_affine(weight, [1, width], scale, point, torch.int8, low, high)
    got = core_ops.dequantize_affine(weight, [1, width], scale, point, torch.int8, low, high)
    assert got.dtype == torch.float32
    assert torch.equal(got, wanted)


def test_values_outside_the_range_are_clamped_alike() -> None:
    x, scale, zero = _random(4, 32, scale=1e4), torch.full((4, 1), 0.01), torch.tensor([[-128], [127], [0], [5]])
    wanted = OPS.quantize_affine(x, [1, 32], scale, zero.to(torch.int8), torch.int8, -128, 127)
    assert {int(wanted.min()), int(wanted.max())} == {-128, 127}
    assert torch.equal(core_ops.quantize_affine(x, [1, 32], scale, zero.to(torch.int8), torch.int8, -128, 127), wanted)


def test_ties_between_two_steps_fall_to_the_same_side() -> None:
    """x * (1 / scale) and x / scale differ in the last bit, which decides where a tie goes."""
    scale = _random(64, 1, seed=9).abs() + 0.01
    x = (torch.arange(-100, 100) + 0.5)[None] * scale
    wanted = OPS.quantize_affine(x, [1, 200], scale, torch.zeros(64, 1), torch.int8, -128, 127)
    assert not torch.equal(wanted, (x / scale).round().to(torch.int8)), "the case tells the two formulas apart"
    assert torch.equal(core_ops.quantize_affine(x, [1, 200], scale, None, torch.int8, -128, 127), wanted)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_the_width_that_a_value_comes_back_in(dtype: torch.dtype) -> None:
    weight = torch.randint(-8, 8, (4, 64), dtype=torch.int8)
    scale = (_random(4, 2, seed=8).abs() + 0.1).to(torch.float32)
    wanted = OPS.dequantize_affine(weight, [1, 32], scale, None, torch.int8, -8, 7, output_dtype=dtype)
    got = core_ops.dequantize_affine(weight, [1, 32], scale, None, torch.int8, -8, 7, output_dtype=dtype)
    assert got.dtype == wanted.dtype
    assert torch.equal(got, wanted)


def test_what_is_not_spelled_out_is_refused() -> None:
    x = _random(8, 32)
    with pytest.raises(NotImplementedError, match="across rows"):
        core_ops.choose_qparams_affine(x, "ASYMMETRIC", [8, 32], torch.int8, -128, 127)
    with pytest.raises(NotImplementedError, match="SYMMETRIC"):
        core_ops.choose_qparams_affine(x, "SYMMETRIC", [1, 32], torch.int8, -128, 127)
    with pytest.raises(NotImplementedError, match="ASYMMETRIC"):
        core_ops.choose_qparams_affine(x, "ASYMMETRIC", [1, 32], torch.int8)


def test_a_decomposed_program_computes_the_same_bits() -> None:
    """The table takes hold of torchao's ops as torch.export leaves them."""
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_

    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(64, 48), torch.nn.ReLU(), torch.nn.Linear(48, 32, bias=False)).eval()
    int4: torch.dtype = vars(torch)["int4"]
    config = Int8DynamicActivationIntxWeightConfig(weight_dtype=int4, weight_granularity=PerGroup(16))
    quantize_(model, config)
    x = TENSORS["hard rows"]()[:5]
    with torch.no_grad():
        exported = torch.export.export(model, (x,))
        before = {str(node.target) for node in exported.graph.nodes if "torchao" in str(node.target)}
        plain = exported.run_decompositions(core_ops.decompositions())
        assert torch.equal(plain.module()(x), model(x))
    assert len(before) == 3, "choose, quantize, dequantize"
    assert not [node.target for node in plain.graph.nodes if "torchao" in str(node.target)]
