"""8da4w-rtn: int4 weights in groups of 32, int8 activations per token at run time, rounded to nearest.

What ExecuTorch's and optimum-executorch's recipes write, by torchao's own configs: symmetric int4 weights with one
scale per 32 inputs at the largest weight, linear inputs rounded dynamically to int8, asymmetric per token; the input
embedding may be int8, symmetric per row. It needs no text and takes seconds, and it costs small models dearly. Layers
whose input width is not a multiple of 32 stay in float32 and are named in the notes.
"""

from __future__ import annotations

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

from exporter.quantize import Quantized, Request, experts, formats
from exporter.quantize.compensated import GROUP_SIZE
from exporter.quantize.linears import settle, unfold
from exporter.report import LayerFormat, Quantization

_INT4: torch.dtype = vars(torch)["int4"]  # torch's type stubs do not name it
_WORTH_TELLING = 0.05  # norms and biases are far below; an unquantized embedding or expert is above


class _RoundToNearest:
    title = "int4 weights (groups of 32) with int8 dynamic activations, rounded to nearest"
    exact = False
    calibrates = False

    def apply(self, model: PreTrainedModel, request: Request) -> Quantized:
        """Quantize every fitting linear layer but routers, and the input embedding unless it is to stay in fp32."""
        work, notes = unfold(model, packed=True)
        kept = experts.routers(work)
        linears = {name: m for name, m in work.named_modules() if isinstance(m, nn.Linear)}
        fitting = {name for name, m in linears.items() if m.in_features % GROUP_SIZE == 0 and name not in kept}
        left = sorted(set(linears) - fitting - kept)
        if left:
            notes.append(
                f"{len(left)} linear layers stay in float32: their input width is not a multiple of {GROUP_SIZE} "
                f"({', '.join(left[:3])}{', ...' if len(left) > 3 else ''})"
            )
        quantize_(
            work,
            Int8DynamicActivationIntxWeightConfig(weight_dtype=_INT4, weight_granularity=PerGroup(GROUP_SIZE)),
            filter_fn=lambda module, name: name in fitting,
        )
        embedding = _embedding(work, request.embedding)
        settle(work)
        parameters = formats.parameters(work)
        share = parameters["fp32"] / max(sum(parameters.values()), 1)
        if share > _WORTH_TELLING:
            notes.append(f"{share:.0%} of the parameters stay in float32")
        layers = [
            LayerFormat(
                name=name,
                format="int4" if name in fitting else "fp32",
                algorithm="rounded" if name in fitting else "kept",
            )
            for name in linears
        ]
        detail = Quantization(algorithm=self.title, parameters=parameters, layers=layers)
        return Quantized(model=work, notes=notes, detail=detail, embedding=embedding)


def _embedding(work: PreTrainedModel, wanted: str) -> str:
    """Round the input embedding by torchao; ``4w`` with searched scales, which torchao does not have."""
    table = work.get_input_embeddings()
    if wanted != "8w" or not isinstance(table, nn.Embedding):
        return formats.quantize_embedding(work, wanted)
    # The fusion into ExecuTorch's int8 embedding kernel matches embedding(weight, ids) only; padding_idx matters to
    # gradients alone, and a third argument would defeat the match after minutes of lowering.
    table.padding_idx = None
    quantize_(
        work,
        IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0)),
        filter_fn=lambda module, name: module is table,
    )
    return "8w"


RECIPE = _RoundToNearest()
