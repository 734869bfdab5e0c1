"""8da4w, calibrated: int4 weights in groups of 32 with int8 dynamic activations, error-compensated.

The file takes no more bytes than the same by plain rounding. Hidden states are rotated first (``rotate``), the output
layer is split by token (``vocabulary``), and where the input embedding may be int8, int4 for most of its rows costs
little: the bytes that this frees go to the layers whose rounding costs the most, which get int8 weights. SmolLM2-135M:
0.078 nats in 104.8 MB, where plain rounding costs 0.569 in 104.9.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from exporter.quantize import Calibration, Quantized, Request, calibrate, formats, rotate, sensitivity, vocabulary
from exporter.quantize import experts as moe
from exporter.quantize.assignment import EMBEDDING, Assignment, Ladder
from exporter.quantize.blocks import UnknownStructure
from exporter.quantize.calibrate import Calibrated
from exporter.quantize.linears import UNTIED, settle, unfold
from exporter.report import LayerFormat, Quantization

_LOG = logging.getLogger(__name__)
TITLE = "int4 weights (groups of 32), error-compensated on calibration text, with int8 dynamic activations"
COMPENSATED = 0.3
"""What calibration leaves of the cost of plain rounding, about: 0.135 of 0.54 nats on SmolLM2-135M, 0.022 of 0.074 on
the sample model. An embedding is rounded to the nearest, so choices between the two rest on it, and what a search tries
first; no figure that is told does."""
_SPARED = 0.0015
"""Of the bytes: where weights of several formats lie beside each other, a file has more padding between them (67 KB of
105 MB on SmolLM2-135M)."""
_SHARE_SENSITIVITY = 0.15
_SMALLER = ("4w", "4w+8w", "4w-zp+8w", "8w")
"""Formats of the input embedding that are compared."""
_NAMED = 3
_WORTH_TELLING = 0.05  # norms and biases are far below; unquantized experts are above


class _Calibrated:
    title = TITLE
    exact = False
    calibrates = True

    def apply(self, model: PreTrainedModel, request: Request) -> Quantized:
        """Quantize every linear layer and the embedding; a rehearsal rounds to the nearest in the same formats."""
        if request.calibration is None:
            return rehearsed(model, request, smaller=True)
        text = request.calibration()
        with rotate.rotated(model, request, text.sequences[0]) as turned:
            # Nothing of it is in memory any more when the model gets its values again.
            return _of(turned, text, request)


def _of(turned: rotate.Turned, text: Calibration, request: Request) -> Quantized:
    tokens = vocabulary.look(turned.model, text.sequences)
    base = vocabulary.split(turned.model, tokens, spend=turned.in_place)
    chosen = at_no_more_bytes(measured(base, text, tokens, request, _SHARE_SENSITIVITY))
    whole, chosen = vocabulary.together(base, chosen)
    title, share = turned.title(TITLE), (_SHARE_SENSITIVITY, 1.0)
    return finish(whole, chosen, text, request, title, often=tokens.often, share=share, spend=turned.in_place)


def at_no_more_bytes(ladder: Ladder) -> Assignment:
    """The better of everything in int4, and a smaller embedding with the bytes spent on linear layers."""
    plain = ladder.plain()
    spent = ladder.within(int(plain.size_bytes * (1 - _SPARED)))
    if spent is None or spent.embedding == plain.embedding:
        return plain
    lost = ladder.predicted(Assignment(plain.linears, spent.embedding, 0)) - ladder.predicted(plain)
    gained = ladder.predicted(Assignment(plain.linears, spent.embedding, 0)) - ladder.predicted(spent)
    return spent if gained > lost else plain


def measured(
    model: PreTrainedModel, text: Calibration, tokens: vocabulary.Tokens, request: Request, share: float
) -> Ladder:
    """The path of assignments, by what each layer alone will cost, and the embedding where it may be smaller."""

    def progress(fraction: float, message: str) -> None:
        request.progress(share * fraction, message)

    rounded = sensitivity.measure(model, text.sequences, progress=progress)
    costs = {name: {fmt: COMPENSATED * nats for fmt, nats in by.items()} for name, by in rounded.items()}
    if request.embedding == "8w":
        by = sensitivity.of_embedding(model, text.held_out or text.sequences, _SMALLER, tokens.often)
        costs[EMBEDDING] = by
    work, _ = unfold(model)
    return Ladder(work, costs, request.embedding, partial(vocabulary.place_bytes, work))


def finish(
    model: PreTrainedModel,
    chosen: Assignment,
    text: Calibration,
    request: Request,
    title: str,
    *,
    dynamic: bool = True,
    often: torch.Tensor | None = None,
    share: tuple[float, float] = (0.0, 1.0),
    spend: bool = False,
) -> Quantized:
    """Calibrate one assignment, and say what was done.

    Args:
        often: as for ``formats.quantize_embedding``.
        share: the part of the recipe's progress that this is, from and to.
        spend: whether ``model`` may lose its weights.
    """
    first, last = share

    def progress(fraction: float, message: str) -> None:
        request.progress(first + (last - first) * fraction, message)

    embed = partial(formats.quantize_embedding, fmt=chosen.embedding, often=often) if spend else None
    try:
        run = calibrate.Calibration(model, chosen.linears, dynamic=dynamic, progress=progress, spend=embed).run
        done = run(text.sequences)
    except UnknownStructure as error:
        done = _not_calibrated(model, chosen, str(error), dynamic=dynamic)
    had = done.embedding
    return described(done.model, chosen, done.layers, title, text, often=often, unfolded=done.notes, embedding=had)


def _not_calibrated(model: PreTrainedModel, chosen: Assignment, reason: str, *, dynamic: bool) -> Calibrated:
    """The same formats by rounding to the nearest, for a model that cannot be run layer by layer."""
    _LOG.warning("every layer is rounded to the nearest: %s", reason)
    work, notes = unfold(model)
    layers = []
    for name, fmt in chosen.linears.items():
        module = work.get_submodule(name)
        rounded = formats.rounded_nearest(cast(nn.Linear, module).weight.detach(), fmt)
        module.weight = formats.parameter(rounded, fmt, dynamic=dynamic)
        layers.append(LayerFormat(name=name, format=fmt, algorithm="rounded", reason=reason))
    return Calibrated(model=work, layers=layers, notes=notes)


def described(
    work: PreTrainedModel,
    chosen: Assignment,
    layers: list[LayerFormat],
    title: str,
    text: Calibration | None,
    *,
    often: torch.Tensor | None = None,
    unfolded: Sequence[str] = (),
    embedding: str | None = None,
) -> Quantized:
    """The last steps that recipes share: the embedding, experts packed, and the report's rows.

    Args:
        embedding: the format that it has already; None: it gets that of ``chosen``.
    """
    parameters_before = sum(p.numel() for p in work.parameters())
    if embedding is None:
        embedding = formats.quantize_embedding(work, chosen.embedding, often)
    moe.pack(work)
    settle(work)
    larger = formats.EMBEDDINGS[chosen.embedding] == "int4" and formats.EMBEDDINGS[embedding] == "int8"
    width = ["the embedding is in int8: its rows do not divide into groups of 32"] if larger else []
    # A rotation, or an output layer in parts, has untied it before.
    untied = [UNTIED] if work.config.get_text_config().tie_word_embeddings and UNTIED not in unfolded else []
    notes = [
        *untied,
        *unfolded,
        *vocabulary.told(work, chosen),
        *formats.told(work),
        *width,
        *_fallbacks(layers),
        *_kept(work, parameters_before),
    ]
    detail = Quantization(
        algorithm=title + _raised(chosen),
        parameters=formats.parameters(work),
        layers=[*layers, _of_embedding(embedding)],
        calibration=None if text is None else text.used,
    )
    return Quantized(model=work, notes=notes, detail=detail, embedding=embedding)


def _of_embedding(fmt: str) -> LayerFormat:
    kept = formats.EMBEDDINGS[fmt]
    return LayerFormat(name=EMBEDDING, format=kept, algorithm="kept" if kept == "fp32" else "rounded")


def _raised(chosen: Assignment) -> str:
    raised = chosen.in_int8
    mixed = 0 < len(raised) < len(chosen.linears)
    return f"; {len(raised)} of {len(chosen.linears)} linear layers in int8" if mixed else ""


def _fallbacks(layers: list[LayerFormat]) -> list[str]:
    by_reason: dict[str, list[str]] = {}
    for layer in layers:
        if layer.reason is not None:
            by_reason.setdefault(layer.reason, []).append(layer.name)
    return [
        f"{len(names)} linear layers are rounded to the nearest, not calibrated: {reason} "
        f"({', '.join(names[:_NAMED])}{', ...' if len(names) > _NAMED else ''})"
        for reason, names in by_reason.items()
    ]


def _kept(work: nn.Module, count: int) -> list[str]:
    share = formats.parameters(work)["fp32"] / max(count, 1)
    return [f"{share:.0%} of the parameters stay in float32"] if share > _WORTH_TELLING else []


def rehearsed(model: PreTrainedModel, request: Request, *, dynamic: bool = True, smaller: bool = False) -> Quantized:
    """Both formats somewhere in the model, rounded to the nearest: the chain's rehearsal.

    Args:
        smaller: whether the recipe may choose a smaller embedding than the request has, and split the output layer.
    """
    work, _ = unfold(vocabulary.rehearsed(model) if smaller else model)
    linears = moe.roundable(work)
    wanted: dict[str, str] = {}
    with torch.no_grad():
        for number, (name, module) in enumerate(linears.items()):
            fmt = "int4" if number % 2 == 0 and formats.takes("int4", module.in_features) else "int8"
            rounded = formats.rounded_nearest(module.weight.detach(), fmt)
            module.weight = formats.parameter(rounded, fmt, dynamic=dynamic)
            wanted[name] = fmt
    embedding = "4w-zp+8w" if smaller and request.embedding == "8w" else request.embedding
    layers = [LayerFormat(name=name, format=fmt, algorithm="rounded") for name, fmt in wanted.items()]
    return described(work, Assignment(wanted, embedding, 0), layers, TITLE, None)


RECIPE = _Calibrated()
