"""Formats: what torchao's own code makes of our tensors, activations as they run, and bytes as they are written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torchao.quantization.quantize_.workflows.intx.intx_unpacked_to_int8_tensor import (
    _apply_int8_act_asym_per_token_quant_dequant,
)

from exporter import checkpoint
from exporter.quantize import formats
from exporter.spec import ModelRef

W = torch.randn(24, 96, generator=torch.Generator().manual_seed(1)) / 8


@pytest.mark.parametrize("fmt", ["int4", "int8"])
def test_a_parameter_is_worth_what_was_rounded(fmt: str) -> None:
    rounded = formats.rounded_nearest(W, fmt)
    made: Any = formats.parameter(rounded, fmt, dynamic=True)
    assert torch.allclose(made.dequantize(), rounded.dequantized())
    assert formats.FORMATS[made.target_dtype] == fmt
    worst = rounded.scales.max() * (0.5 if fmt == "int8" else 2.0)
    assert float((rounded.dequantized() - W).abs().max()) <= float(worst) * 1.01


@pytest.mark.parametrize("scale", [1e-4, 1.0, 300.0])
def test_activations_are_rounded_as_torchao_does_it(scale: float) -> None:
    x = torch.randn(3, 7, 64, generator=torch.Generator().manual_seed(2)) * scale
    x[0, 0] = 0.0
    x[0, 1] = x[0, 1].abs()
    x[0, 2] = -x[0, 2].abs()
    assert torch.allclose(formats.round_activations(x), _apply_int8_act_asym_per_token_quant_dequant(x), atol=1e-6)


def test_bytes_are_those_of_packed_weights() -> None:
    assert formats.linear_bytes(24, 96, "int4") == 24 * 96 // 2 + 24 * 3 * 2
    assert formats.linear_bytes(24, 96, "int8") == 24 * 96 + 24 * 4
    assert formats.linear_bytes(24, 96, "fp32") == 24 * 96 * 4
    assert formats.embedding_bytes(384, 64, "4w") == 384 * 64 // 2 + 384 * 2 * 4
    assert formats.embedding_bytes(384, 64, "8w") == 384 * 64 + 384 * 4
    assert formats.embedding_bytes(384, 64, "fp32") == 384 * 64 * 4


@pytest.mark.parametrize(
    ("asked", "got", "kept"), [("4w", "4w", "int4"), ("8w", "8w", "int8"), ("fp32", "fp32", "fp32")]
)
def test_an_embedding_gets_the_format_that_was_asked_for(
    asked: str, got: str, kept: str, _models: Callable[..., Path]
) -> None:
    model = checkpoint.load_model(checkpoint.inspect(_models("llama-untied"), ModelRef()))
    count = cast(torch.Tensor, model.get_input_embeddings().weight).numel()
    before = formats.parameters(model)
    assert formats.quantize_embedding(model, asked) == got
    after = formats.parameters(model)
    assert after[kept] - before[kept] == (0 if kept == "fp32" else count)


def test_rows_that_do_not_divide_into_groups_get_int8(_models: Callable[..., Path]) -> None:
    model = checkpoint.load_model(
        checkpoint.inspect(_models("llama-untied", hidden_size=48, num_attention_heads=4, head_dim=16), ModelRef())
    )
    assert formats.quantize_embedding(model, "4w") == "8w"
    assert not formats.takes("int4", 48)
    assert formats.takes("int8", 48)
