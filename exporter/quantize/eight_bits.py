"""8da8w: int8 weights, one scale a row, with int8 dynamic activations, rounded to nearest.

Nothing is calibrated: SmolLM2-135M loses 0.02 nats so, nearly all of it to the activations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from exporter.quantize import Quantized, Request, experts, formats
from exporter.quantize.assignment import Assignment
from exporter.quantize.calibrated import described
from exporter.quantize.linears import unfold
from exporter.report import LayerFormat


class _EightBits:
    title = "int8 weights (a scale each row) with int8 dynamic activations, rounded to nearest"
    exact = False
    calibrates = False

    def apply(self, model: PreTrainedModel, request: Request) -> Quantized:
        """Quantize every linear layer but routers, and the embedding as the request has it."""
        plain, _ = unfold(model)
        kept = experts.routers(plain)
        names = [name for name, m in plain.named_modules() if isinstance(m, nn.Linear) and name not in kept]
        work = rounded(model, names, "fp32")
        layers = [LayerFormat(name=name, format="int8", algorithm="rounded") for name in names]
        chosen = Assignment(dict.fromkeys(names, "int8"), request.embedding, 0)
        return described(work, chosen, layers, request, self.title, None)


def rounded(model: PreTrainedModel, names: Sequence[str], embedding: str) -> PreTrainedModel:
    """The unfolded ``model`` with the linear layers ``names`` in int8, and the embedding in that format."""
    work, _ = unfold(model)
    with torch.no_grad():
        for name in names:
            module = cast(nn.Linear, work.get_submodule(name))
            module.weight = formats.parameter(
                formats.rounded_nearest(module.weight.detach(), "int8"), "int8", dynamic=True
            )
        formats.quantize_embedding(work, embedding)
    return work


RECIPE = _EightBits()
