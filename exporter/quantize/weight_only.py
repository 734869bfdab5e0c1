"""4w, calibrated: int4 weights in groups of 32, error-compensated; activations stay in float32."""

from __future__ import annotations

from transformers import PreTrainedModel

from exporter.quantize import Quantized, Request, experts, formats
from exporter.quantize.assignment import Assignment
from exporter.quantize.calibrated import finish, rehearsed
from exporter.quantize.linears import unfold


class _WeightOnly:
    title = "int4 weights (groups of 32), error-compensated on calibration text, with float32 activations"
    exact = False
    calibrates = True

    def apply(self, model: PreTrainedModel, request: Request) -> Quantized:
        """Quantize every linear layer but routers; those whose inputs are no multiple of 32 get int8 rows."""
        if request.calibration is None:
            return rehearsed(model, request, dynamic=False)
        wanted = {
            name: "int4" if formats.takes("int4", module.in_features) else "int8"
            for name, module in experts.roundable(unfold(model)[0]).items()
        }
        chosen = Assignment(wanted, request.embedding, 0)
        return finish(model, chosen, request.calibration(), request, self.title, dynamic=False)


RECIPE = _WeightOnly()
