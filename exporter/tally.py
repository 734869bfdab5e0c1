"""Sums over the positions of one output against one reference: what parity and quality are computed from.

Goes in: logits of a file (or of a quantized model) and of its reference, row by row. Comes out: KL divergence,
perplexity, agreement and difference.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import ClassVar

import torch


def finite(value: float) -> float:
    """``value``, or the largest float there is: JSON has no infinity, and a logit may be no number."""
    return value if math.isfinite(value) else sys.float_info.max


@dataclass
class Tally:
    """Sums over compared positions of one output against one reference; all in float64."""

    ROWS: ClassVar[int] = 32
    """Rows that are widened to float64 at once: 32 of 150,000 logits are 40 MB."""

    positions: int = 0
    max_difference: float = 0.0
    kl: float = 0.0
    agreeing: int = 0
    squares: float = 0.0
    values: float = 0.0
    count: int = 0
    nll: float = 0.0
    nll_reference: float = 0.0
    predicted: int = 0
    divergences: list[torch.Tensor] = field(default_factory=list)
    """KL(reference || output) of each position in nats, float64, in the order they were added."""

    def add(self, output: torch.Tensor, expected: torch.Tensor, targets: torch.Tensor) -> None:
        """Add rows: output and expected [N, vocab]; targets [<= N] are the tokens that follow the first rows."""
        for first in range(0, len(output), self.ROWS):
            out, ref = output[first : first + self.ROWS].double(), expected[first : first + self.ROWS].double()
            self.positions += len(out)
            difference = (out - ref).abs().max().item()
            self.max_difference = max(self.max_difference, difference if math.isfinite(difference) else math.inf)
            self.values += ref.sum().item()
            self.squares += ref.square().sum().item()
            self.count += ref.numel()
            log_out, log_ref = out.log_softmax(-1), ref.log_softmax(-1)
            share = log_ref.exp()
            # A token that the reference rules out (-inf) adds nothing: the limit of p log p at 0.
            rows = torch.where(share == 0, 0.0, share * (log_ref - log_out)).sum(-1)
            self.divergences.append(rows)
            divergence = rows.sum().item()
            self.kl += divergence if math.isfinite(divergence) else math.inf
            self.agreeing += int((out.argmax(-1) == ref.argmax(-1)).sum().item())
            wanted = targets[first : first + self.ROWS]
            if len(wanted):
                index = torch.arange(len(wanted))
                self.nll -= log_out[index, wanted].sum().item()
                self.nll_reference -= log_ref[index, wanted].sum().item()
                self.predicted += len(wanted)

    def merge(self, other: Tally) -> None:
        """Add all that another one has counted."""
        self.max_difference = max(self.max_difference, other.max_difference)
        for name in ("positions", "kl", "agreeing", "squares", "values", "count", "nll", "nll_reference", "predicted"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.divergences += other.divergences

    @property
    def std(self) -> float:
        mean = self.values / self.count
        return math.sqrt(max(self.squares / self.count - mean * mean, 1e-30))

    @property
    def kl_mean(self) -> float:
        """Never below zero: rounding leaves -1e-16 where both are alike."""
        return max(self.kl / self.positions, 0.0)

    def kl_quantile(self, share: float) -> float:
        """The KL that ``share`` of the positions do not exceed, linear between two of them; infinite for no number."""
        rows = torch.cat(self.divergences).nan_to_num(nan=math.inf).clamp(min=0.0).sort().values
        place = share * (len(rows) - 1)
        low, high = rows[math.floor(place)].item(), rows[math.ceil(place)].item()
        # The difference of two infinities is no number.
        return low if low == high else low + (high - low) * (place - math.floor(place))

    @property
    def agreement(self) -> float:
        return self.agreeing / self.positions

    @property
    def perplexity(self) -> float:
        return _exp(self.nll / self.predicted) if self.predicted else math.nan

    @property
    def perplexity_reference(self) -> float:
        return _exp(self.nll_reference / self.predicted) if self.predicted else math.nan


def _exp(value: float) -> float:
    return math.exp(min(value, 700.0)) if math.isfinite(value) else math.inf
