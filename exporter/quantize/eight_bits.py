"""8da8w, calibrated: int8 weights, one scale a row, with int8 dynamic activations.

Weights of eight bits lose little by themselves; what calibration brings is that activations are equalised before they
are rounded (``exporter.quantize.equalize``).
"""

from __future__ import annotations

from transformers import PreTrainedModel

from exporter.quantize import Quantized, Request, experts
from exporter.quantize.assignment import Assignment
from exporter.quantize.calibrated import finish, rehearsed
from exporter.quantize.linears import unfold


class _EightBits:
    title = "int8 weights (a scale each row), error-compensated on calibration text, with int8 dynamic activations"
    exact = False
    calibrates = True

    def apply(self, model: PreTrainedModel, request: Request) -> Quantized:
        """Quantize every linear layer but routers, and the embedding as the request has it."""
        if request.calibration is None:
            return rehearsed(model, request)
        chosen = Assignment(dict.fromkeys(experts.roundable(unfold(model)[0]), "int8"), request.embedding, 0)
        return finish(model, chosen, request.calibration(), request, self.title)


RECIPE = _EightBits()
