"""fp32: the model as it is."""

from __future__ import annotations

from transformers import PreTrainedModel

from exporter.quantize import Quantized, Request


class _None:
    title = "float32, as the checkpoint has it"
    exact = True
    calibrates = False

    def apply(self, model: PreTrainedModel, request: Request) -> Quantized:
        """Give the same model back; nothing of ``request`` applies to full precision."""
        return Quantized(model=model)


RECIPE = _None()
