"""8da4w, calibrated: int4 weights in groups of 32 with int8 dynamic activations, error-compensated.

The file takes no more bytes than the same by plain rounding. Where the input embedding may be int8, int4 with searched
scales costs it little (SmolLM2-135M: 0.014 nats for 11 MB), and the bytes that this frees go to the linear layers whose
rounding costs the most, which get int8 weights.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from exporter.quantize import Calibration, Quantized, Request, calibrate, formats, sensitivity
from exporter.quantize import experts as moe
from exporter.quantize.assignment import EMBEDDING, Assignment, Ladder
from exporter.quantize.blocks import UnknownStructure
from exporter.quantize.calibrate import Calibrated
from exporter.quantize.linears import settle, unfold
from exporter.report import LayerFormat, Quantization, Tried

_LOG = logging.getLogger(__name__)
TITLE = "int4 weights (groups of 32), error-compensated on calibration text, with int8 dynamic activations"
COMPENSATED = 0.3
"""What calibration leaves of the cost of plain rounding, about: 0.14 of 0.59 nats on SmolLM2-135M. A choice between
two embeddings rests on it, and nothing else."""
_SPARED = 0.0015
"""Of the bytes: where weights of several formats lie beside each other, a file has more padding between them (67 KB of
105 MB on SmolLM2-135M)."""
_SHARE_SENSITIVITY = 0.15
_NAMED = 3


class _Calibrated:
    title = TITLE
    exact = False
    calibrates = True

    def apply(self, model: PreTrainedModel, request: Request) -> Quantized:
        """Quantize every linear layer and the embedding; a rehearsal rounds to the nearest in the same formats."""
        if request.calibration is None:
            return rehearsed(model, request, smaller=True)
        text = request.calibration()
        costs = measured_costs(model, text, request, _SHARE_SENSITIVITY)
        ladder = Ladder(unfold(model)[0], costs, request.embedding)
        chosen = at_no_more_bytes(ladder)
        return finish(model, chosen, text, request, TITLE, share=(_SHARE_SENSITIVITY, 1.0))


def at_no_more_bytes(ladder: Ladder) -> Assignment:
    """The better of everything in int4, and a smaller embedding with the bytes spent on linear layers."""
    plain = ladder.plain()
    spent = ladder.within(int(plain.size_bytes * (1 - _SPARED)))
    if spent is None or spent.embedding == plain.embedding:
        return plain
    lost = ladder.predicted(Assignment(plain.linears, spent.embedding, 0)) - ladder.predicted(plain)
    gained = ladder.predicted(Assignment(plain.linears, spent.embedding, 0)) - ladder.predicted(spent)
    return spent if COMPENSATED * gained > lost else plain


def measured_costs(model: PreTrainedModel, text: Calibration, request: Request, share: float) -> sensitivity.Costs:
    """What rounding each layer alone costs, and the embedding where it may become smaller."""

    def progress(fraction: float, message: str) -> None:
        request.progress(share * fraction, message)

    costs = sensitivity.measure(model, text.sequences, progress=progress)
    if request.embedding == "8w":
        costs[EMBEDDING] = sensitivity.of_embedding(model, text.held_out or text.sequences, ("4w", "4w-zp", "8w"))
    return costs


def finish(
    model: PreTrainedModel,
    chosen: Assignment,
    text: Calibration,
    request: Request,
    title: str,
    *,
    dynamic: bool = True,
    share: tuple[float, float] = (0.0, 1.0),
    tried: list[Tried] | None = None,
) -> Quantized:
    """Calibrate one assignment, and say what was done.

    Args:
        share: the part of the recipe's progress that this is, from and to.
    """
    first, last = share

    def progress(fraction: float, message: str) -> None:
        request.progress(first + (last - first) * fraction, message)

    try:
        done = calibrate.Calibration(model, chosen.linears, dynamic=dynamic, progress=progress).run(text.sequences)
    except UnknownStructure as error:
        done = _not_calibrated(model, chosen, str(error), dynamic=dynamic)
    return described(done.model, chosen, done.layers, request, title, text, tried, unfolded=done.notes)


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
    request: Request,
    title: str,
    text: Calibration | None,
    tried: list[Tried] | None = None,
    *,
    unfolded: Sequence[str] = (),
) -> Quantized:
    """The last steps that recipes share: the embedding, experts packed, and the report's rows."""
    parameters_before = sum(p.numel() for p in work.parameters())
    embedding = formats.quantize_embedding(work, chosen.embedding)
    moe.pack(work)
    settle(work)
    notes = [*unfolded, *_fallbacks(layers), *_kept(work, parameters_before)]
    detail = Quantization(
        algorithm=title + _raised(chosen),
        parameters=formats.parameters(work),
        layers=[*layers, _of_embedding(embedding)],
        calibration=None if text is None else text.used,
        tried=tried or [],
    )
    return Quantized(model=work, notes=notes, detail=detail, embedding=embedding)


def _of_embedding(fmt: str) -> LayerFormat:
    kept = formats.EMBEDDINGS[fmt]
    return LayerFormat(name=EMBEDDING, format=kept, algorithm="kept" if kept == "fp32" else "rounded")


_WORTH_TELLING = 0.05  # norms and biases are far below; unquantized experts are above


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
        smaller: whether the recipe may choose a smaller embedding than the request has.
    """
    work, _ = unfold(model)
    linears = moe.roundable(work)
    wanted: dict[str, str] = {}
    with torch.no_grad():
        for number, (name, module) in enumerate(linears.items()):
            fmt = "int4" if number % 2 == 0 and formats.takes("int4", module.in_features) else "int8"
            rounded = formats.rounded_nearest(module.weight.detach(), fmt)
            module.weight = formats.parameter(rounded, fmt, dynamic=dynamic)
            wanted[name] = fmt
    embedding = "4w-zp" if smaller and request.embedding == "8w" else request.embedding
    layers = [LayerFormat(name=name, format=fmt, algorithm="rounded") for name, fmt in wanted.items()]
    return described(work, Assignment(wanted, embedding, 0), layers, request, TITLE, None)


RECIPE = _Calibrated()
