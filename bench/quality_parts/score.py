"""How far the logits of a file are from the original's, token by token: the one measure for ours and for peers.

Goes in: logits of both at the same positions of the same token ids. Comes out: ``Score`` for each kind of text and for
all of them. Nothing of the product's own measure is used, so that neither hides the other's mistake.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import torch

ALL = "all"
_ROWS = 64
"""Positions compared at once: a vocabulary of 49,152 in float64 takes 25 MB of them."""


@dataclass(frozen=True, kw_only=True)
class Sequence:
    """One text as every method reads it, from position 0."""

    kind: str
    """``docs``, ``code`` or ``chat``."""
    name: str
    ids: torch.Tensor
    """[T] int64"""


@dataclass(frozen=True, kw_only=True)
class Score:
    """The distance from the original on text of one kind."""

    positions: int
    perplexity: float
    """Of the text's own next tokens."""
    perplexity_full: float
    kl_mean: float
    """KL(original || file), nats, mean over positions."""
    kl_p99: float
    top1_agreement: float


Logits = Callable[[torch.Tensor], torch.Tensor]
"""ids [T] int64 -> logits [T, vocab] float32"""


@dataclass
class _Rows:
    kl: list[float] = field(default_factory=list)
    agree: list[bool] = field(default_factory=list)
    nll: list[float] = field(default_factory=list)
    nll_full: list[float] = field(default_factory=list)

    def score(self) -> Score:
        return Score(
            positions=len(self.kl),
            perplexity=float(np.exp(np.mean(self.nll))),
            perplexity_full=float(np.exp(np.mean(self.nll_full))),
            # Rounding of the softmax leaves -1e-17 where both are alike.
            kl_mean=max(float(np.mean(self.kl)), 0.0),
            kl_p99=max(float(np.percentile(self.kl, 99)), 0.0),
            top1_agreement=float(np.mean(self.agree)),
        )


def compare(sequences: Iterable[Sequence], full: Iterable[torch.Tensor], logits: Logits) -> dict[str, Score]:
    """Scores by kind, and over all positions as ``all``.

    Args:
        full: the original's logits [T, vocab] for each of ``sequences`` in their order.

    Raises:
        ValueError: a method gave logits of another shape or that are no numbers; a score of them would mean nothing.
    """
    rows: dict[str, _Rows] = {}
    for sequence, expected in zip(sequences, full, strict=True):
        output = logits(sequence.ids)
        if output.shape != expected.shape:
            raise ValueError(f"logits of {sequence.name} are {list(output.shape)}, not {list(expected.shape)}")
        if not bool(torch.isfinite(output).all()):
            raise ValueError(f"logits of {sequence.name} are not all numbers")
        for kind in (sequence.kind, ALL):
            rows.setdefault(kind, _Rows())
        _add((rows[sequence.kind], rows[ALL]), output, expected, sequence.ids)
    # All of them together last.
    return {kind: rows[kind].score() for kind in sorted(rows, key=lambda kind: kind == ALL)}


def _add(into: tuple[_Rows, ...], output: torch.Tensor, expected: torch.Tensor, ids: torch.Tensor) -> None:
    for first in range(0, len(ids), _ROWS):
        out = output[first : first + _ROWS].double().log_softmax(-1)
        ref = expected[first : first + _ROWS].double().log_softmax(-1)
        kl = (ref.exp() * (ref - out)).sum(-1).tolist()
        agree = (out.argmax(-1) == ref.argmax(-1)).tolist()
        wanted = ids[first + 1 : first + 1 + len(out)]
        index = torch.arange(len(wanted))
        nll, nll_full = (-rows[index, wanted] for rows in (out, ref))
        for rows in into:
            rows.kl += kl
            rows.agree += agree
            rows.nll += nll.tolist()
            rows.nll_full += nll_full.tolist()
