"""Every bound that a file must meet, in one table, each with the measured reason for its value.

docs/bounds.md is generated from this table (``make docs``). KL is the mean over positions of
KL(reference || file) in nats; agreement is the share of positions with the same most likely token.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from exporter.errors import InvalidSpec
from exporter.report import Figure


@dataclass(frozen=True, kw_only=True)
class Bound:
    """One bound: ``kind`` is ``exact`` (nothing was rounded) or ``quantized``."""

    kind: str
    against: str
    name: str
    relation: str
    value: float
    reason: str


FULL = "full precision"
QUANTIZED = "quantized eager"

BOUNDS: tuple[Bound, ...] = (
    Bound(
        kind="exact",
        against=FULL,
        name="max_difference_over_std",
        relation="<=",
        value=1e-3,
        reason=(
            "largest difference of any logit over the standard deviation of the reference's logits; float32 "
            "kernels that sum in another order showed 1e-7 to 3e-5 on tiny models of nine architectures and on "
            "SmolLM2-135M, a cache that is lost or frozen shows more than 1"
        ),
    ),
    Bound(
        kind="exact",
        against=FULL,
        name="top1_agreement",
        relation=">=",
        value=0.99,
        reason="float32 files agree everywhere but on ties; one position in a hundred is left for those",
    ),
    Bound(
        kind="exact",
        against=FULL,
        name="kl_mean",
        relation="<=",
        value=1e-5,
        reason="float32 files showed less than 1e-8; the bound leaves room for larger vocabularies",
    ),
    Bound(
        kind="quantized",
        against=QUANTIZED,
        name="kl_over_cost",
        relation="<=",
        value=0.25,
        reason=(
            "KL from the quantized eager model to the file, over what quantization itself costs (KL from full "
            "precision to the quantized eager model, at least 0.01): int8 activations are rounded at run time, so "
            "another order of sums flips single roundings. Weight-only files and int8 caches stand far below"
        ),
    ),
    Bound(
        kind="quantized",
        against=QUANTIZED,
        name="perplexity_ratio",
        relation="<=",
        value=1.05,
        reason="perplexity of the file over that of the quantized eager model on the same text",
    ),
    Bound(
        kind="quantized",
        against=FULL,
        name="kl_over_quantized_eager",
        relation="<=",
        value=1.25,
        reason=(
            "KL from full precision to the file, over KL from full precision to the quantized eager model plus "
            "0.01: a file that agrees with its own reference and is far from full precision has lost something"
        ),
    ),
)

COST_FLOOR = 0.01
"""Nats added or taken as the least cost of quantization, so that ratios of two tiny numbers mean nothing."""


Tightened = Mapping[str, float]
"""Figure name to the bound that a spec asks for instead of the table's; ``check`` has seen it."""


def check(asked: Tightened) -> None:
    """Refuse a bound that the table does not have, or that lets more through than the table's; raises InvalidSpec."""
    for name, wanted in asked.items():
        known = {bound.name: bound for bound in BOUNDS}
        if name not in known:
            raise InvalidSpec(f"There is no bound {name!r}; there are: {', '.join(known)}.")
        bound = known[name]
        tighter = 0 <= wanted <= bound.value if bound.relation == "<=" else bound.value <= wanted <= 1
        if not (math.isfinite(wanted) and tighter):
            allowed = f"from 0 to {bound.value:g}" if bound.relation == "<=" else f"from {bound.value:g} to 1"
            raise InvalidSpec(f"The bound {name} can be tightened only: {wanted:g} is not {allowed}.")


def value(kind: str, against: str, name: str, tightened: Tightened | None = None) -> float:
    """The bound of that name; raises KeyError when the table has none."""
    for bound in BOUNDS:
        if (bound.kind, bound.against, bound.name) == (kind, against, name):
            return (tightened or {}).get(name, bound.value)
    raise KeyError((kind, against, name))


def figure(kind: str, against: str, name: str, value: float, tightened: Tightened | None = None) -> Figure:
    """A measured value beside its bound; without one in the table it always passes."""
    for bound in BOUNDS:
        if (bound.kind, bound.against, bound.name) == (kind, against, name):
            limit = (tightened or {}).get(name, bound.value)
            passed = value <= limit if bound.relation == "<=" else value >= limit
            reason = bound.reason if limit == bound.value else f"asked for; {bound.value:g} otherwise: {bound.reason}"
            return Figure(name=name, value=value, bound=limit, relation=bound.relation, passed=passed, reason=reason)
    return Figure(name=name, value=value, bound=None, relation="<=", passed=True, reason="for information")


@dataclass(frozen=True, kw_only=True)
class Grade:
    """What quantization cost, in words; a file gets the first grade whose limits it meets."""

    verdict: str
    kl_at_most: float
    agreement_at_least: float
    words: str
    reason: str


GRADES: tuple[Grade, ...] = (
    Grade(
        verdict="faithful",
        kl_at_most=0.05,
        agreement_at_least=0.9,
        words="close to the original: it nearly always picks the same next token",
        reason="8-bit files of SmolLM2-135M stand at KL 0.018 and 0.917; the field's gate is 0.9 agreement",
    ),
    Grade(
        verdict="degraded",
        kl_at_most=0.2,
        agreement_at_least=0.75,
        words="noticeably worse than the original: compare it on your own task before you use it",
        reason="8da4w of SmolLM2-135M stands at KL 0.078 and 0.867 on the built-in texts",
    ),
    Grade(
        verdict="damaged",
        kl_at_most=float("inf"),
        agreement_at_least=0.0,
        words="damaged by quantization: it often picks other tokens than the original and may repeat itself "
        "without end; do not ship it, take a larger file",
        reason="8da4w-rtn of SmolLM2-135M stands at KL 0.57 and 0.61 on the built-in texts",
    ),
)


def grade(kl_mean: float, top1_agreement: float) -> Grade:
    """The grade of a quantized file by its KL (nats) and top-1 agreement against full precision."""
    for entry in GRADES[:-1]:
        if kl_mean <= entry.kl_at_most and top1_agreement >= entry.agreement_at_least:
            return entry
    return GRADES[-1]
