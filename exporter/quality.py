"""What quantization costs, measured on text of several kinds: see ``measure``."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class QualityReference:
    """The texts that files are judged on, with what the original says to them."""
