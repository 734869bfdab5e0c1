"""auto: the smallest file within a quality budget, or the most faithful one within a size, chosen by measurement.

Goes in: budgets (``Request.max_kl``, ``max_size``). Assignments of int4 and int8 stand on a path from the smallest to
the most faithful (``exporter.quantize.assignment``). What an assignment costs is about proportional to the sum of what
its layers cost alone; so one is calibrated as a whole and measured on the text that files are judged on, which gives
the proportion, and the next one is chosen by it. Everything measured is in the report, whether it was found or not.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

import torch
from transformers import PreTrainedModel

from exporter import quality
from exporter.errors import QualityBudgetNotMet
from exporter.quantize import Calibration, Quantized, Request, rotate, vocabulary
from exporter.quantize.assignment import Assignment, Ladder
from exporter.quantize.calibrated import finish, measured, rehearsed
from exporter.report import Tried

TITLE = "int4 (groups of 32) and int8 weights, chosen for each layer by measurement, error-compensated"
_MOST_TRIALS = 4
"""Assignments that are calibrated and measured, at most; the last of them is the most faithful one, where none was
within the budget."""
_AIM = 0.93
"""Of the quality budget: what the next assignment is predicted to cost."""
MOST_EAGER = 0.97
"""Of the quality budget, at most, in the eager model: the written file sums in another order, which flips roundings of
activations. On SmolLM2-135M the two differ by 12 % of the cost from each other, and by 2 % in what they cost."""
_NEAR = 0.85
"""Of the quality budget: an assignment that uses this much of it is not made smaller any more."""
_SENSITIVITY = 0.1
"""The share of the work that measuring sensitivities is."""


@dataclass
class _Search:
    """What was tried so far."""

    turned: rotate.Turned
    base: PreTrainedModel
    """The same with its output layer in parts; assignments are of its layers."""
    often: torch.Tensor
    text: Calibration
    request: Request
    ladder: Ladder
    tried: list[Tried] = field(default_factory=list)

    def note(self, assignment: Assignment, kl_mean: float) -> bool:
        """Add a measured assignment; tells whether it is within the budgets."""
        within = self.request.max_kl is None or kl_mean <= MOST_EAGER * self.request.max_kl
        fits = self.request.max_size is None or assignment.size_bytes <= self.request.max_size
        self.tried.append(
            Tried(
                what=_words(assignment),
                size_bytes=assignment.size_bytes,
                kl_mean=kl_mean,
                within=within and fits,
            )
        )
        return within and fits


def _words(assignment: Assignment) -> str:
    parts = sum(".parts." in name for name in assignment.linears)
    counted = f" (the output layer counts as {parts})" if parts else ""
    raised = f"{len(assignment.in_int8)} of {len(assignment.linears)} linear layers in int8"
    return f"{raised}{counted}, embedding {assignment.embedding}"


class _Auto:
    title = TITLE
    exact = False
    calibrates = True

    def apply(self, model: PreTrainedModel, request: Request) -> Quantized:
        """Search, then calibrate what was found.

        Raises:
            QualityBudgetNotMet: with the best that was found and its figures.
        """
        if request.calibration is None:
            return rehearsed(model, request, smaller=True)
        text = request.calibration()
        with rotate.rotated(model, request, text.sequences[0]) as turned:
            # Nothing of it is in memory any more when the model gets its values again.
            return _of(turned, text, request)


def _of(turned: rotate.Turned, text: Calibration, request: Request) -> Quantized:
    tokens = vocabulary.look(turned.model, text.sequences)
    base = vocabulary.split(turned.model, tokens, spend=turned.in_place)
    ladder = measured(base, text, tokens, request, _SENSITIVITY)
    search = _Search(turned, base, tokens.often, text, request, ladder)
    return _fitted(search) if request.max_kl is None else _faithful(search)


def _fitted(search: _Search) -> Quantized:
    """The most faithful assignment within the size."""
    request, ladder = search.request, search.ladder
    assert request.max_size is not None  # noqa: S101 (plan checked the budgets)
    chosen = ladder.within(request.max_size)
    if chosen is None:
        raise QualityBudgetNotMet(_too_small(ladder, request))
    made = _made(search, chosen, (_SENSITIVITY, 1.0))
    search.note(chosen, _judged(made, request))
    return _with(made, search.tried, chosen)


def _faithful(search: _Search) -> Quantized:
    """The smallest assignment within the quality budget (and the size, where there is one)."""
    request, ladder = search.request, search.ladder
    assert request.max_kl is not None  # noqa: S101 (the caller looked)
    last = ladder.highest(request.max_size)
    if last is None:
        raise QualityBudgetNotMet(_too_small(ladder, request))
    share, failed = 1.0, -1
    passed: tuple[int, Assignment, Quantized] | None = None
    nearest = (math.inf, 0, 0)
    for attempt in range(_MOST_TRIALS):
        most = last if passed is None else passed[0] - 1
        if failed >= most:
            break
        number = min(max(ladder.cheapest(_AIM * request.max_kl / share), failed + 1), most)
        if passed is None and attempt == _MOST_TRIALS - 1:
            number = last
        chosen = ladder.rung(number)
        if number == last and request.max_size is not None:
            # Steps behind one that no longer fits may fit.
            chosen = ladder.within(request.max_size) or chosen
        made = _calibrated(search, chosen, attempt)
        found = _judged(made, request)
        nearest = min(nearest, (found, chosen.size_bytes, len(chosen.in_int8)))
        share = max(found, 1e-9) / max(ladder.predicted(chosen), 1e-9)
        if search.note(chosen, found):
            passed = (number, chosen, made)
            if found > _NEAR * request.max_kl:
                break
        else:
            failed = number
    if passed is not None:
        return _with(passed[2], search.tried, passed[1])
    found, size_bytes, raised = nearest
    size = "" if request.max_size is None else f" and {request.max_size / 1e6:,.1f} MB"
    raise QualityBudgetNotMet(
        f"Nothing is within a mean KL of {request.max_kl:g} nats{size}: the best found costs {found:.3g} nats in "
        f"about {size_bytes / 1e6:,.1f} MB, {raised} of {len(ladder.rung(0).linears)} layers in int8. "
        f"Tried: {'; '.join(f'{row.size_bytes / 1e6:,.1f} MB {row.kl_mean:.3g} nats' for row in search.tried)}.",
        tried=search.tried,
    )


def _calibrated(search: _Search, chosen: Assignment, attempt: int) -> Quantized:
    first = _SENSITIVITY + (1 - _SENSITIVITY) * attempt / _MOST_TRIALS
    return _made(search, chosen, (first, first + (1 - _SENSITIVITY) / _MOST_TRIALS))


def _made(search: _Search, chosen: Assignment, share: tuple[float, float]) -> Quantized:
    model, formats = vocabulary.together(search.base, chosen)
    title = search.turned.title(TITLE)
    return finish(model, formats, search.text, search.request, title, often=search.often, share=share)


def _too_small(ladder: Ladder, request: Request) -> str:
    assert request.max_size is not None  # noqa: S101 (something is too small for it)
    return (
        f"No assignment fits into {request.max_size:,} bytes: the smallest, everything in int4, takes about "
        f"{ladder.rung(0).size_bytes:,}."
    )


def _judged(made: Quantized, request: Request) -> float:
    """Mean KL on the text that files are judged on."""
    if request.judge is None:
        raise ValueError("a budget needs text to judge by")
    return quality.score(made.model, request.judge).kl_mean


def _with(made: Quantized, tried: list[Tried], chosen: Assignment) -> Quantized:
    assert made.detail is not None  # noqa: S101 (finish gives one)
    rows = [replace(row, chosen=row.what == _words(chosen)) for row in tried]
    return replace(made, detail=replace(made.detail, tried=rows))


RECIPE = _Auto()
