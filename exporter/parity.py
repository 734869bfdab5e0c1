"""Run a written file on the ExecuTorch runtime against the eager model, teacher-forced over every position.

Goes in: a callable that computes logits for a few tokens at given positions (the file, or a stage before it),
and references made from plain eager forward passes without any cache. Comes out: ``Parity`` with every figure
beside its bound. Every short text is fed as one prefill, as uneven chunks and one token at a time, all on the
same loaded method, so each text also meets the caches that the one before it left behind; a last text reaches
the end of the context; then the first text is replayed.
"""

from __future__ import annotations

import inspect
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from exporter import bounds
from exporter.backends import ShapePolicy
from exporter.report import Comparison, Parity, Quality, TextUsed
from exporter.schedule import BUDGET_SECONDS, CONTEXT_END, END_TOKENS, Pace, Step, feed, passes, within
from exporter.texts import Text

_ROWS = 32


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Logits of a model for every text: [T, vocab] float32, the last rows only for the context-end text."""

    texts: list[Text]
    end: Text
    logits: dict[str, torch.Tensor]


def reference(model: Any, texts: list[Text], end: Text) -> Reference:
    """Run the eager model over every text without a cache."""
    logits = {}
    with torch.no_grad():
        for text in texts:
            logits[text.name] = model(text.ids, use_cache=False).logits[0].float()
        keep = min(END_TOKENS, end.ids.shape[1])
        if "logits_to_keep" in inspect.signature(type(model).forward).parameters:
            logits[end.name] = model(end.ids, use_cache=False, logits_to_keep=keep).logits[0].float()
        else:
            logits[end.name] = model(end.ids, use_cache=False).logits[0, -keep:].float().clone()
    return Reference(texts=texts, end=end, logits=logits)


@dataclass
class Tally:
    """Sums over compared positions of one output against one reference."""

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

    def add(self, output: torch.Tensor, expected: torch.Tensor, targets: torch.Tensor) -> None:
        """Add rows: output and expected [N, vocab]; targets [<= N] are the tokens that follow the first rows."""
        for first in range(0, len(output), _ROWS):
            out, ref = output[first : first + _ROWS].double(), expected[first : first + _ROWS].double()
            self.positions += len(out)
            difference = (out - ref).abs().max().item()
            self.max_difference = max(self.max_difference, difference if math.isfinite(difference) else math.inf)
            self.values += ref.sum().item()
            self.squares += ref.square().sum().item()
            self.count += ref.numel()
            log_out, log_ref = out.log_softmax(-1), ref.log_softmax(-1)
            divergence = (log_ref.exp() * (log_ref - log_out)).sum().item()
            self.kl += divergence if math.isfinite(divergence) else math.inf
            self.agreeing += int((out.argmax(-1) == ref.argmax(-1)).sum().item())
            wanted = targets[first : first + _ROWS]
            if len(wanted):
                rows = torch.arange(len(wanted))
                self.nll -= log_out[rows, wanted].sum().item()
                self.nll_reference -= log_ref[rows, wanted].sum().item()
                self.predicted += len(wanted)

    @property
    def std(self) -> float:
        mean = self.values / self.count
        return math.sqrt(max(self.squares / self.count - mean * mean, 1e-30))

    @property
    def kl_mean(self) -> float:
        """Never below zero: rounding leaves -1e-16 where both are alike."""
        return max(self.kl / self.positions, 0.0)

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


@dataclass
class Outcome:
    """What running a file over every pass gave."""

    parity: Parity
    quality: Quality | None
    seconds: float = 0.0
    tokens: int = 0


@dataclass
class _Tallies:
    full: Tally = field(default_factory=Tally)
    quantized: Tally = field(default_factory=Tally)
    cost: Tally = field(default_factory=Tally)


def run(
    step: Step,
    shape_policy: ShapePolicy,
    full: Reference,
    quantized: Reference | None = None,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
    *,
    graded: bool = False,
    budget: float = BUDGET_SECONDS,
    tightened: bounds.Tightened | None = None,
) -> Outcome:
    """Feed every text in every schedule and compare.

    Args:
        full: references of the full-precision model.
        quantized: references of the quantized eager model, for a quantized file; None for an exact one.
        budget: seconds; passes that would not fit are cut or left out.
        graded: grade the file by its distance from full precision even without ``quantized``.
        tightened: bounds that hold instead of the table's.
    """
    tallies, pace, schedules, left_out, tokens = _Tallies(), Pace(), [], [], 0
    planned = passes(full.texts, full.end, shape_policy)
    started = time.perf_counter()
    for number, wanted in enumerate(planned):
        name, schedule = wanted.text.name, wanted.schedule
        remaining = budget - (time.perf_counter() - started)
        item = within(wanted, pace, remaining)
        if item is not wanted:
            what = name if schedule == CONTEXT_END else f"{name}, {schedule}"
            part = "" if item is None else f" after {sum(item.sizes)} tokens"
            needed = pace.expect(wanted.sizes)
            left_out.append(f"{what}{part}: it needs about {needed:,.1f} s, {max(remaining, 0.0):,.1f} s were left")
        if item is None:
            continue
        progress(number / len(planned), f"{name}, {schedule}")
        began = time.perf_counter()
        ids = item.text.ids[:, : sum(item.sizes)]
        output = feed(step, ids, item.sizes)[-item.keep :].float()
        pace.learn(item.sizes, time.perf_counter() - began)
        tokens += sum(item.sizes)
        targets = ids[0, -item.keep :][1:]
        rows = slice(0, item.keep) if schedule != CONTEXT_END else slice(None)
        expected = full.logits[name][rows]
        tallies.full.add(output, expected, targets)
        if quantized is not None:
            own = quantized.logits[name][rows]
            tallies.quantized.add(output, own, targets)
            tallies.cost.add(own, expected, targets)
        if schedule not in schedules:
            schedules.append(schedule)
    seconds = time.perf_counter() - started
    comparisons = _compare(tallies, exact=quantized is None, tightened=tightened)
    parity = Parity(
        passed=all(comparison.passed for comparison in comparisons),
        positions=tallies.full.positions,
        texts=[_used(text) for text in (*full.texts, full.end)],
        schedules=schedules,
        left_out=left_out,
        comparisons=comparisons,
    )
    quality = _quality(tallies.full) if graded or quantized is not None else None
    return Outcome(parity=parity, quality=quality, seconds=seconds, tokens=tokens)


def _used(text: Text) -> TextUsed:
    return TextUsed(name=text.name, tokens=text.ids.shape[1], sha256=text.sha256)


def _compare(tallies: _Tallies, *, exact: bool, tightened: bounds.Tightened | None) -> list[Comparison]:
    full, quantized, cost = tallies.full, tallies.quantized, tallies.cost
    if exact:
        values = {
            "max_difference_over_std": full.max_difference / full.std,
            "max_difference": full.max_difference,
            "top1_agreement": full.agreement,
            "kl_mean": full.kl_mean,
            "perplexity": full.perplexity,
            "perplexity_reference": full.perplexity_reference,
        }
        return [_comparison("exact", bounds.FULL, values, tightened)]
    against_quantized = {
        "kl_over_cost": quantized.kl_mean / max(cost.kl_mean, bounds.COST_FLOOR),
        "kl_mean": quantized.kl_mean,
        "top1_agreement": quantized.agreement,
        "perplexity_ratio": quantized.perplexity / quantized.perplexity_reference,
        "max_difference": quantized.max_difference,
    }
    against_full = {
        "kl_over_quantized_eager": full.kl_mean / (cost.kl_mean + bounds.COST_FLOOR),
        "kl_mean": full.kl_mean,
        "top1_agreement": full.agreement,
        "perplexity": full.perplexity,
        "perplexity_reference": full.perplexity_reference,
        "kl_mean_quantized_eager": cost.kl_mean,
    }
    return [
        _comparison("quantized", bounds.QUANTIZED, against_quantized, tightened),
        _comparison("quantized", bounds.FULL, against_full, tightened),
    ]


def _comparison(kind: str, against: str, values: dict[str, float], tightened: bounds.Tightened | None) -> Comparison:
    # JSON has no infinity: a logit that is not a number is reported as the largest float there is.
    finite = {name: value if math.isfinite(value) else 1.7976931348623157e308 for name, value in values.items()}
    return Comparison(
        against=against,
        figures=[bounds.figure(kind, against, name, value, tightened) for name, value in finite.items()],
    )


def _quality(full: Tally) -> Quality:
    grade = bounds.grade(full.kl_mean, full.agreement)
    finite = [
        value if math.isfinite(value) else 1.7976931348623157e308
        for value in (full.perplexity, full.perplexity_reference, full.kl_mean)
    ]
    return Quality(
        perplexity=finite[0],
        perplexity_full=finite[1],
        top1_agreement=full.agreement,
        kl_mean=finite[2],
        verdict=grade.verdict,
        words=grade.words,
    )
