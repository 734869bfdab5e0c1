"""Precisions that a backend's own toolchain rounds: the eager model stays as it is, ``exporter.backend_quantize`` does
the work after the trace."""

from __future__ import annotations

from transformers import PreTrainedModel

from exporter.quantize import Quantized, Request


class _ByBackend:
    title = "int4 weights (groups of 32) with float32 activations, rounded by the backend's own toolchain"
    exact = False
    calibrates = True

    def apply(self, model: PreTrainedModel, request: Request) -> Quantized:
        """Give the same model back; the calibration text of ``request`` goes to the backend."""
        return Quantized(model=model)


RECIPE = _ByBackend()
