"""fp32: the model as it is."""

from __future__ import annotations

from transformers import PreTrainedModel

from exporter.quantize import Quantized


class _None:
    title = "float32, as the checkpoint has it"
    exact = True

    def apply(self, model: PreTrainedModel, *, embedding: str) -> Quantized:
        """Give the same model back; ``embedding`` does not apply to full precision."""
        return Quantized(model=model, bits={"fp32": sum(p.numel() for p in model.parameters())})


RECIPE = _None()
