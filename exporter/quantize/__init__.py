"""Quantization recipes by precision name: an eager model in, a quantized eager model out.

Stage: once per precision, after loading. To add a precision: write a module here with a ``Recipe`` named
``RECIPE`` and add a line to ``TABLE``; then let the backends that can lower it name it.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from importlib import import_module
from typing import Protocol

from transformers import PreTrainedModel

from exporter.errors import UnknownPrecision

# precision -> module; a module is imported only when its precision is asked for.
TABLE: dict[str, str] = {
    "fp32": "exporter.quantize.none",
    "8da4w": "exporter.quantize.round_to_nearest",
}


@dataclass(frozen=True, kw_only=True)
class Quantized:
    """What a recipe gives back."""

    model: PreTrainedModel
    notes: list[str] = field(default_factory=list)
    """What a person should know: layers left in full precision, an untied embedding."""
    bits: dict[str, int] = field(default_factory=dict)
    """Parameters by weight format, e.g. ``{"int4": ..., "int8": ..., "fp32": ...}``."""


class Recipe(Protocol):
    """One algorithm. ``exact`` says that nothing is rounded, so files are bounded by difference."""

    title: str
    exact: bool

    def apply(self, model: PreTrainedModel, *, embedding: str) -> Quantized:
        """Quantize a float32 eager model; the given model is left as it was and shares unquantized tensors."""
        ...


def get(precision: str) -> Recipe:
    """The recipe for a precision.

    Raises:
        UnknownPrecision: no such precision; the text lists the choices.
    """
    if precision not in TABLE:
        raise UnknownPrecision(f"Unknown precision {precision!r}; the choices are: {', '.join(TABLE)}.")
    recipe: Recipe = import_module(TABLE[precision]).RECIPE
    return recipe
