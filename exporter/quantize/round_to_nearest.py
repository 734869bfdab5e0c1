"""8da4w by rounding to nearest: int4 weights in groups of 32, int8 activations per token at run time.

Linear layers get symmetric int4 weights with one float32 scale per 32 inputs, and their inputs are quantized
dynamically to int8, asymmetric per token; the embedding may be int8, symmetric per row. Quantization is
torchao's. Layers whose input width is not a multiple of 32 stay in float32 and are named in the notes.
"""

from __future__ import annotations

import copy

import torch
from torch import nn
from torchao.quantization import (
    Int8DynamicActivationIntxWeightConfig,
    IntxWeightOnlyConfig,
    PerAxis,
    PerGroup,
    quantize_,
)
from transformers import PreTrainedModel

from exporter.quantize import Quantized, Request

_INT4: torch.dtype = vars(torch)["int4"]  # torch's type stubs do not name it
_FORMATS = {_INT4: "int4", torch.int8: "int8"}
_WORTH_TELLING = 0.05  # norms and biases are far below; an unquantized embedding or expert is above
GROUP_SIZE = 32
"""Inputs per int4 scale; what ExecuTorch's XNNPACK kernels and its own LLM recipes use."""


def share_copy(model: PreTrainedModel) -> PreTrainedModel:
    """A copy of the module tree that shares every parameter and buffer tensor with the original."""
    memo = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    return copy.deepcopy(model, memo)


class _RoundToNearest:
    title = "int4 weights (groups of 32) with int8 dynamic activations, rounded to nearest"
    exact = False
    calibrates = False

    def apply(self, model: PreTrainedModel, request: Request) -> Quantized:
        """Quantize every fitting linear layer, and the input embedding when ``request.embedding`` is ``8w``."""
        embedding = request.embedding
        work = share_copy(model)
        notes: list[str] = []
        tied = model.get_output_embeddings() is not None and (
            model.get_output_embeddings().weight is model.get_input_embeddings().weight
        )
        linears = {name: m for name, m in work.named_modules() if isinstance(m, nn.Linear)}
        fitting = {name for name, m in linears.items() if m.in_features % GROUP_SIZE == 0}
        left = sorted(set(linears) - fitting)
        if left:
            notes.append(
                f"{len(left)} linear layers stay in float32: their input width is not a multiple of {GROUP_SIZE} "
                f"({', '.join(left[:3])}{', ...' if len(left) > 3 else ''})"
            )
        other = sorted({type(m).__name__ for m in work.modules() if type(m).__name__ == "Conv1D"})
        if other:
            notes.append("Conv1D layers stay in float32: only linear layers are quantized")
        quantize_(
            work,
            Int8DynamicActivationIntxWeightConfig(weight_dtype=_INT4, weight_granularity=PerGroup(GROUP_SIZE)),
            filter_fn=lambda module, name: name in fitting,
        )
        table = work.get_input_embeddings()
        if embedding == "8w" and isinstance(table, nn.Embedding):
            # The fusion into ExecuTorch's int8 embedding kernel matches embedding(weight, ids) only; padding_idx
            # matters to gradients alone, and a third argument would defeat the match after minutes of lowering.
            table.padding_idx = None
            quantize_(
                work,
                IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0)),
                filter_fn=lambda module, name: module is table,
            )
        if tied:
            notes.append("the tied embedding is untied: input table and output layer are quantized each in its own way")
        bits = {"int4": 0, "int8": 0, "fp32": 0}
        for parameter in work.parameters():
            bits[_FORMATS.get(getattr(parameter, "target_dtype", parameter.dtype), "fp32")] += parameter.numel()
        share = bits["fp32"] / max(sum(bits.values()), 1)
        if share > _WORTH_TELLING:
            notes.append(f"{share:.0%} of the parameters stay in float32")
        return Quantized(model=work, notes=notes)


RECIPE = _RoundToNearest()
