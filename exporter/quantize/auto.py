"""auto: the smallest file within a quality budget, or the most faithful one within a size, chosen by measurement.

Goes in: budgets (``Request.max_kl``, ``max_size``). Assignments of int4 and int8 stand on a path from the smallest to
the most faithful (``exporter.quantize.assignment``). For a quality budget everything is calibrated in int4 once; then
rungs of the path are tried on held-out calibration text by swapping layers, halving the path each time; the rung found
is calibrated as a whole, and what it costs on the text that files are judged on decides: where it is too much, the
next rungs are calibrated and measured in turn. Everything measured is in the report.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from exporter import quality
from exporter.errors import QualityBudgetNotMet
from exporter.quantize import Calibration, Quantized, Request, calibrate, formats
from exporter.quantize.assignment import Assignment, Ladder
from exporter.quantize.calibrated import finish, measured_costs, rehearsed
from exporter.quantize.eight_bits import rounded
from exporter.quantize.linears import unfold
from exporter.report import Tried

TITLE = "int4 (groups of 32) and int8 weights, chosen for each layer by measurement, error-compensated"
_AIM = 0.9
"""Of the quality budget, on held-out calibration text: that is nearer to what was calibrated on than other text is."""
_MOST_FINAL = 4
"""Assignments that are calibrated as a whole, at most."""
_SHARES = {"sensitivity": 0.1, "int4": 0.4, "search": 0.5}
"""Where each part of the work ends, as a fraction of it."""


@dataclass
class _Search:
    """What was tried so far."""

    model: PreTrainedModel
    text: Calibration
    request: Request
    ladder: Ladder
    tried: list[Tried] = field(default_factory=list)

    def note(self, what: str, assignment: Assignment, kl_mean: float) -> bool:
        within = self.request.max_kl is None or kl_mean <= self.request.max_kl
        fits = self.request.max_size is None or assignment.size_bytes <= self.request.max_size
        named = f"{what}: {len(assignment.in_int8)} of {len(assignment.linears)} linear layers in int8"
        self.tried.append(
            Tried(
                what=f"{named}, embedding {assignment.embedding}",
                size_bytes=assignment.size_bytes,
                kl_mean=kl_mean,
                within=within and fits,
            )
        )
        return within and fits


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
            return rehearsed(model, request)
        text = request.calibration()
        costs = measured_costs(model, text, request, _SHARES["sensitivity"])
        search = _Search(model, text, request, Ladder(unfold(model)[0], costs, request.embedding))
        if request.max_kl is None:
            return _fitted(search)
        return _faithful(search)


def _fitted(search: _Search) -> Quantized:
    """The most faithful assignment within the size."""
    request, ladder = search.request, search.ladder
    assert request.max_size is not None  # noqa: S101 (plan checked the budgets)
    chosen = ladder.within(request.max_size)
    if chosen is None:
        least = ladder.rung(0)
        raise QualityBudgetNotMet(
            f"No assignment fits into {request.max_size / 1e6:,.1f} MB: the smallest, everything in int4, takes about "
            f"{least.size_bytes / 1e6:,.1f} MB."
        )
    made = finish(search.model, chosen, search.text, request, TITLE, share=(_SHARES["sensitivity"], 0.95))
    search.note("calibrated", chosen, _judged(made, request))
    return _with(made, search.tried)


def _faithful(search: _Search) -> Quantized:
    """The smallest assignment within the quality budget (and the size, where there is one)."""
    request, ladder = search.request, search.ladder
    assert request.max_kl is not None  # noqa: S101 (the caller looked)
    number = _lowest(search, request.max_kl * _AIM)
    best: tuple[float, Assignment] | None = None
    for attempt in range(_MOST_FINAL):
        last = attempt == _MOST_FINAL - 1
        chosen = ladder.rung(len(ladder) if last else number)
        share = (_SHARES["search"] + 0.12 * attempt, _SHARES["search"] + 0.12 * (attempt + 1))
        made = finish(search.model, chosen, search.text, request, TITLE, share=share)
        found = _judged(made, request)
        if search.note("calibrated", chosen, found):
            return _with(made, search.tried)
        if best is None or found < best[0]:
            best = (found, chosen)
        if number >= len(ladder) or last or not _may_grow(search, chosen):
            break
        # What is missing, as a share of the cost, is about the share of the steps that are left to go.
        number = min(len(ladder), number + max(1, round((len(ladder) - number) * min(1 - request.max_kl / found, 0.5))))
    assert best is not None  # noqa: S101 (at least one attempt)
    size = "" if request.max_size is None else f" and {request.max_size / 1e6:,.1f} MB"
    found, chosen = best
    raise QualityBudgetNotMet(
        f"Nothing is within a mean KL of {request.max_kl:g} nats{size}: the best found costs {found:.3g} nats in "
        f"about {chosen.size_bytes / 1e6:,.1f} MB, {len(chosen.in_int8)} of {len(chosen.linears)} layers in int8."
    )


def _may_grow(search: _Search, chosen: Assignment) -> bool:
    return search.request.max_size is None or chosen.size_bytes < search.request.max_size


def _lowest(search: _Search, budget: float) -> int:
    """The lowest rung within the budget on held-out calibration text, by swapping layers of one calibration."""
    model, request, ladder = search.model, search.request, search.ladder
    least = ladder.rung(0)

    def progress(fraction: float, message: str) -> None:
        first, last = _SHARES["sensitivity"], _SHARES["int4"]
        request.progress(first + (last - first) * fraction, message)

    small = calibrate.Calibration(model, least.linears, dynamic=True, progress=progress).run(search.text.sequences)
    formats.quantize_embedding(small.model, least.embedding)
    large = rounded(model, tuple(least.linears), least.embedding if len(ladder) == 0 else request.embedding)
    swapped, _ = unfold(model)
    held_out = search.text.held_out or search.text.sequences[:1]
    low, high = 0, len(ladder)
    with torch.no_grad():
        expected = [model(ids, use_cache=False).logits[0].float().log_softmax(-1) for ids in held_out]
    while low < high:
        middle = (low + high) // 2
        rung = ladder.rung(middle)
        _swap(swapped, rung, small.model, large)
        found = _divergence(swapped, held_out, expected)
        search.note("swapped, on held-out calibration text", rung, found)
        request.progress(_SHARES["int4"] + 0.1 * (1 - (high - low) / max(len(ladder), 1)), f"KL {found:.3g} nats")
        if found <= budget:
            high = middle
        else:
            low = middle + 1
    return low


def _swap(swapped: PreTrainedModel, rung: Assignment, small: PreTrainedModel, large: PreTrainedModel) -> None:
    """Give ``swapped`` the small model's layers where the rung has int4, and the large one's where it has int8."""
    for name, fmt in rung.linears.items():
        source = (small if fmt == "int4" else large).get_submodule(name)
        cast(nn.Linear, swapped.get_submodule(name)).weight = cast(nn.Parameter, source.weight)
    swapped.set_input_embeddings((small if rung.embedding == "4w" else large).get_input_embeddings())


def _judged(made: Quantized, request: Request) -> float:
    """Mean KL on the text that files are judged on."""
    if request.judge is None:
        raise ValueError("a budget needs text to judge by")
    return quality.score(made.model, request.judge).kl_mean


def _with(made: Quantized, tried: list[Tried]) -> Quantized:
    assert made.detail is not None  # noqa: S101 (finish gives one)
    rows = [*tried[:-1], replace(tried[-1], chosen=True)]
    return replace(made, detail=replace(made.detail, tried=rows))


def _divergence(model: PreTrainedModel, texts: list[torch.Tensor], expected: list[torch.Tensor]) -> float:
    total, positions = 0.0, 0
    for ids, wanted in zip(texts, expected, strict=True):
        with torch.no_grad():
            got = model(ids, use_cache=False).logits[0].float().log_softmax(-1)
        total += float((wanted.exp() * (wanted - got)).sum())
        positions += ids.shape[1]
    return max(total / positions, 0.0)
