"""Run a written file on the ExecuTorch runtime against the eager model, teacher-forced over every position.

Goes in: a callable that computes logits for a few tokens at given positions (the file, or a stage before it),
and references made from plain eager forward passes without any cache. Comes out: ``Parity`` with every figure
beside its bound. Every short text is fed as one prefill, as uneven chunks and one token at a time, all on the
same loaded method, so each text also meets the caches that the one before it left behind; a last text reaches
the end of the context; then the first text is replayed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch

from exporter import bounds
from exporter.backends import ShapePolicy
from exporter.generation import last_logits
from exporter.report import Comparison, Parity, Quality, TextUsed
from exporter.schedule import BUDGET_SECONDS, CONTEXT_END, END_TOKENS, Pace, Step, feed, passes, within
from exporter.static_cache import ExportableModule
from exporter.tally import Tally, finite
from exporter.texts import Text


@dataclass(frozen=True, kw_only=True)
class Reference:
    """Logits of a model for every text: [T, vocab] float32, the last rows only for the context-end text."""

    texts: list[Text]
    end: Text
    logits: dict[str, torch.Tensor]


def reference(model: Any, texts: list[Text], end: Text) -> Reference:
    """Run the eager model over every text without a cache."""
    logits = {text.name: last_logits(model, text.ids, text.ids.shape[1]) for text in texts}
    logits[end.name] = last_logits(model, end.ids, min(END_TOKENS, end.ids.shape[1]))
    return Reference(texts=texts, end=end, logits=logits)


def reference_through_caches(module: ExportableModule, texts: list[Text], end: Text) -> Reference:
    """The same through the module's own caches: the reference of a file whose caches are rounded."""
    logits = {text.name: module.eager_logits(text.ids) for text in texts}
    logits[end.name] = module.eager_logits(end.ids, keep=min(END_TOKENS, end.ids.shape[1]))
    return Reference(texts=texts, end=end, logits=logits)


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
    budget: float = BUDGET_SECONDS,
    tightened: bounds.Tightened | None = None,
) -> Outcome:
    """Feed every text in every schedule and compare.

    Args:
        full: references of the full-precision model.
        quantized: references of the quantized eager model, for a quantized file; None for an exact one.
        budget: seconds; passes that would not fit are cut or left out.
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
    quality = _quality(tallies.full) if quantized is not None else None
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
    return Comparison(
        against=against,
        figures=[bounds.figure(kind, against, name, finite(value), tightened) for name, value in values.items()],
    )


def _quality(full: Tally) -> Quality:
    grade = bounds.grade(full.kl_mean, full.agreement)
    return Quality(
        perplexity=finite(full.perplexity),
        perplexity_full=finite(full.perplexity_reference),
        top1_agreement=full.agreement,
        kl_mean=finite(full.kl_mean),
        verdict=grade.verdict,
        words=grade.words,
    )
