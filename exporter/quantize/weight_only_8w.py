"""8w: int8 weights, one scale a row, rounded to nearest; activations stay in float32.

Nothing is calibrated: the sample model's mean KL is 3e-4 nats. An embedding in ``8w`` gets the same numbers as an
output layer that is tied to it, so that a backend that can keeps one table for both.
"""

from __future__ import annotations

import torch
from transformers import PreTrainedModel

from exporter.quantize import Quantized, Request, experts, formats
from exporter.quantize.assignment import Assignment
from exporter.quantize.calibrated import described
from exporter.quantize.linears import unfold
from exporter.report import LayerFormat


class _EightBitWeights:
    title = "int8 weights (a scale each row) with float32 activations, rounded to nearest"
    exact = False
    calibrates = False

    def apply(self, model: PreTrainedModel, request: Request) -> Quantized:
        """Quantize every linear layer but routers, and the embedding as the request has it."""
        work, notes = unfold(model)
        linears = experts.roundable(work)
        with torch.no_grad():
            for module in linears.values():
                rounded = formats.rounded_nearest(module.weight.detach(), "int8")
                module.weight = formats.parameter(rounded, "int8", dynamic=False)
        layers = [LayerFormat(name=name, format="int8", algorithm="rounded") for name in linears]
        chosen = Assignment(dict.fromkeys(linears, "int8"), request.embedding, 0)
        return described(work, chosen, layers, self.title, None, unfolded=notes)


RECIPE = _EightBitWeights()
