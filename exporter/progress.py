"""How far an export is, for whoever waits for it: where it stands, and in what share of the whole.

Goes in: what stages say. Comes out: one ``Progress`` after the other, which the process wall writes as JSON lines.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One step of an export."""

    stage: str
    backend: str | None = None
    precision: str | None = None
    fraction: float | None = None
    """Of the whole job, 0 to 1."""
    message: str = ""


OnProgress = Callable[[Progress], None]
