"""Calibration: every linear layer rounded so that the model, on calibration text, changes as little as possible.

Goes in: an eager model, token sequences and the format of each layer's weights. Comes out: the rounded copy. Two
copies of the model walk through the sequences side by side, one decoder layer in memory at a time: the original, and
the rounded one with its activations rounded as at run time. Each layer's weights are first moved to where its output
on the rounded one's inputs comes nearest to the original's on its own inputs, then rounded with compensation
(``exporter.quantize.compensated``), so that a layer also makes good what those before it lost.

Sources: GPTQ for the rounding; matching the original's outputs on its own inputs rather than on the rounded model's is
the asymmetric calibration of Li et al., "GPTAQ: Efficient Finetuning-Free Quantization for Asymmetric Calibration"
(2025), here as one damped least-squares step before the rounding.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from exporter.quantize import compensated, equalize, formats
from exporter.quantize.blocks import Stage, Walk
from exporter.quantize.compensated import NotInvertible, Rounded
from exporter.quantize.experts import UnfoldedExperts, calibrating
from exporter.quantize.linears import unfold
from exporter.quantize.memory import give_back, let_go
from exporter.report import LayerFormat

_LOG = logging.getLogger(__name__)
SHARE = 0.4
"""How far weights are moved towards the original's outputs: 0 not at all, 1 to the damped least squares, which follows
the calibration text too closely. Mean KL of 8da4w in rotated hidden states, SmolLM2-135M: 0.073 with 0.25, 0.076 with
0.35, 0.075 with 0.5, 0.089 with 0.7 (0.003 is another seed's difference); not rotated, every layer in int4: 0.162 with
0, 0.137 with 0.5, 0.175 with 1; the sample model: 0.0188 with 0.25, 0.0176 with 0.4, 0.0174 with 0.5."""
NOT_REACHED = "calibration text never reached it"
OnProgress = Callable[[float, str], None]


@dataclass
class _Gathered:
    """Statistics of one group of layers with the same input."""

    moments: torch.Tensor | None = None
    """Sum over tokens of x^T x, x as the rounded model has it; the mean, when all are there."""
    crossed: torch.Tensor | None = None
    """The same of y^T x, y as the original has it; None where the two cannot be paired."""
    rows: int = 0

    def average(self) -> None:
        for sums in (self.moments, self.crossed):
            if sums is not None:
                sums.div_(self.rows)


@dataclass(frozen=True, kw_only=True)
class Calibrated:
    """The rounded model and how each layer came out."""

    model: PreTrainedModel
    layers: list[LayerFormat] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    embedding: str | None = None
    """The format that the input embedding got; None: it is as it was."""


class _Activations:
    """Rounds what goes into layers; layers that share an input share the result."""

    def __init__(self, dynamic: bool) -> None:
        self._dynamic = dynamic
        self._last: tuple[torch.Tensor, torch.Tensor] | None = None

    def __call__(self, entering: torch.Tensor) -> torch.Tensor:
        if not self._dynamic:
            return entering
        if self._last is None or self._last[0] is not entering:
            self._last = (entering, formats.round_activations(entering))
        return self._last[1]

    def hook(self, module: nn.Module, args: tuple[torch.Tensor, ...]) -> tuple[torch.Tensor, ...]:
        return (self(args[0]), *args[1:])

    def forget(self) -> None:
        self._last = None


class Calibration:
    """One calibration of one model.

    Args:
        model: float32, in evaluation mode; left as it was.
        wanted: name of a linear layer (of the unfolded model) to ``int4``, ``int8`` or ``fp32``.
        dynamic: whether inputs of rounded layers are rounded to int8 at run time.
        progress: (fraction, message).
        spend: where weights of ``model`` may be let go of as soon as they are rounded (nobody needs it afterwards),
            what rounds a copy's input embedding and gives its format; None: ``model`` stays as it was.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        wanted: dict[str, str],
        *,
        dynamic: bool,
        progress: OnProgress,
        spend: Callable[[PreTrainedModel], str] | None = None,
    ) -> None:
        self.original, _ = unfold(model)
        self.work, self.notes = unfold(model)
        self._wanted, self._dynamic, self._progress = wanted, dynamic, progress
        self._rounds, self._spend = _Activations(dynamic), spend
        self.found: dict[str, LayerFormat] = {}
        self.embedding: str | None = None

    def run(self, sequences: list[torch.Tensor]) -> Calibrated:
        """Round every wanted layer.

        Raises:
            UnknownStructure: the model's layers cannot be run one by one.
        """
        with torch.no_grad(), calibrating(self.original), calibrating(self.work):
            before = Walk(self.original, sequences)
            after = before.beside(self.work)
            self._spend_embedding()
            count = len(after.layers)
            for number in range(count):
                self._progress(number / (count + 1), f"decoder layer {number + 1} of {count}")
                self._layer(before, after, number)
            self._progress(count / (count + 1), "the layers after them")
            for name, module in self.work.named_modules():
                if isinstance(module, nn.Linear) and name in self._wanted and name not in self.found:
                    self._after_all(before, after, name, module)
        layers = list(self.found.values())
        return Calibrated(model=self.work, layers=layers, notes=self.notes, embedding=self.embedding)

    def _spend_embedding(self) -> None:
        """Have it rounded when what it gives is known: the layers after it are calibrated on that."""
        if self._spend is None:
            return
        table = self.original.get_input_embeddings()
        self.embedding = self._spend(self.work)
        if self.embedding != "fp32":
            # Only tokens' number matters from here on.
            self.original.set_input_embeddings(self.work.get_input_embeddings())
            let_go(table)
        give_back()

    def _layer(self, before: Walk, after: Walk, number: int) -> None:
        prefix, layer = f"{after.prefix}.{number}.", after.layers[number]
        stages = after.stages(number)
        originals = self._original_inputs(before, number, stages)
        give_back()
        factors = self._factors(after, number, stages, originals)
        for name, by in factors.norms.items():
            equalize.divide_norm(layer.get_submodule(name), by)
        placed: list[tuple[nn.Module, nn.Parameter]] = []
        handles = []
        for stage in stages:
            gathered = self._gather(after, number, stage, originals, factors)
            give_back()
            for group in stage.groups:
                originals.pop(group[0], None)  # as large as all hidden states
                for name in group:
                    module = layer.get_submodule(name)
                    weight = factors.merged(name, cast(nn.Linear, module).weight.detach())
                    rounded = self._round(prefix + name, weight, gathered[group[0]])
                    factors.place(name, module)
                    if rounded is not None:
                        fmt = self._wanted[prefix + name]
                        placed.append((module, formats.parameter(rounded, fmt, dynamic=self._dynamic)))
                        module.weight = nn.Parameter(rounded.dequantized(), requires_grad=False)
                        handles.append(module.register_forward_pre_hook(self._rounds.hook))
        self._rounds.forget()
        after.advance(number)
        self._rounds.forget()
        for handle in handles:
            handle.remove()
        for module, weight in placed:
            module.weight = weight
        if self._spend is not None:
            for name in (name for stage in stages for name in stage.names):
                if self._wanted.get(prefix + name) in formats.LIMITS:
                    let_go(before.layers[number].get_submodule(name))
        give_back()

    def _original_inputs(self, before: Walk, number: int, stages: list[Stage]) -> dict[str, list[torch.Tensor]]:
        """Name of each group's first layer to its inputs in the original, by sequence; goes past the layer."""
        kept: dict[str, list[torch.Tensor]] = {}
        layer = before.layers[number]
        # Which tokens an expert gets is not the same in both, so those inputs cannot be paired.
        routed = tuple(f"{name}." for name, m in layer.named_modules() if isinstance(m, UnfoldedExperts))
        firsts = [group[0] for stage in stages for group in stage.groups if not group[0].startswith(routed)]

        def keep(name: str, sequence: int, entering: torch.Tensor) -> None:
            # In half the memory: all sequences' inputs of a layer's matrices are the most that calibration holds.
            kept.setdefault(name, []).append(entering.to(torch.bfloat16))

        before.advance(number, firsts, keep)
        return kept

    def _factors(
        self, after: Walk, number: int, stages: list[Stage], originals: dict[str, list[torch.Tensor]]
    ) -> equalize.Factors:
        """What makes inputs easier to round, where they are rounded."""
        if not self._dynamic:
            return equalize.Factors()
        prefix = f"{after.prefix}.{number}."
        here = {name.removeprefix(prefix): fmt for name, fmt in self._wanted.items() if name.startswith(prefix)}
        rounded = {name for name, fmt in here.items() if fmt != "fp32"}
        squares = {
            name: torch.stack([x.float().square().sum(0) for x in inputs]).sum(0) / sum(len(x) for x in inputs)
            for name, inputs in originals.items()
        }
        eight = {name for name, fmt in here.items() if fmt == "int8"}
        return equalize.plan(after, number, stages, squares, giving=rounded, taking=eight)

    def _gather(
        self,
        after: Walk,
        number: int,
        stage: Stage,
        originals: dict[str, list[torch.Tensor]],
        factors: equalize.Factors,
    ) -> dict[str, _Gathered]:
        gathered = {group[0]: _Gathered() for group in stage.groups}

        def on_input(name: str, sequence: int, entering: torch.Tensor) -> None:
            original = originals[name][sequence].float() if name in originals else None
            if original is not None and name in factors.inputs:
                original = original / factors.inputs[name]
            _add(gathered[name], self._rounds(entering), original)

        after.watch(number, stage, on_input)
        for group in gathered.values():
            group.average()
        return gathered

    def _after_all(self, before: Walk, after: Walk, name: str, module: nn.Linear) -> None:
        """A linear layer behind the decoder layers: the output layer."""
        gathered, entered = _Gathered(), list[torch.Tensor]()
        before.tail(self.original.get_submodule(name), lambda sequence, entering: entered.append(entering))

        def on_input(sequence: int, entering: torch.Tensor) -> None:
            _add(gathered, self._rounds(entering), entered[sequence] if sequence < len(entered) else None)

        after.tail(module, on_input)
        gathered.average()
        self._rounds.forget()
        rounded = self._round(name, module.weight.detach(), gathered)
        if rounded is not None:
            module.weight = formats.parameter(rounded, self._wanted[name], dynamic=self._dynamic)

    def _round(self, name: str, weight: torch.Tensor, gathered: _Gathered) -> Rounded | None:
        """The rounded weight of one layer, None where it is kept; notes what was done."""
        fmt = self._wanted.get(name, "fp32")
        if fmt == "fp32":
            self.found[name] = LayerFormat(name=name, format=fmt, algorithm="kept")
            return None
        reason = NOT_REACHED if gathered.moments is None else None
        if gathered.moments is not None:
            try:
                rounded = _compensated(weight, fmt, gathered)
                self.found[name] = LayerFormat(name=name, format=fmt, algorithm="calibrated")
                return rounded
            except NotInvertible as error:
                reason = str(error)
                _LOG.warning("%s is rounded to the nearest: %s", name, reason)
        self.found[name] = LayerFormat(name=name, format=fmt, algorithm="rounded", reason=reason)
        return formats.rounded_nearest(weight, fmt)


def _add(gathered: _Gathered, entering: torch.Tensor, original: torch.Tensor | None) -> None:
    if not len(entering):
        return
    first = gathered.moments is None
    gathered.moments = _added(gathered.moments, entering, entering)
    gathered.rows += len(entering)
    if original is not None and (first or gathered.crossed is not None):
        gathered.crossed = _added(gathered.crossed, original, entering)


def _added(so_far: torch.Tensor | None, y: torch.Tensor, x: torch.Tensor) -> torch.Tensor:
    """``so_far`` and y^T x."""
    return y.T @ x if so_far is None else so_far.addmm_(y.T, x)


def _compensated(weight: torch.Tensor, fmt: str, gathered: _Gathered) -> Rounded:
    assert gathered.moments is not None  # noqa: S101 (the caller looked)
    if gathered.crossed is not None:
        weight = compensated.moved(weight, gathered.moments, gathered.crossed, SHARE)
    prepared = compensated.order(gathered.moments)
    scales = compensated.int4_scales(weight, prepared.importance) if fmt == "int4" else compensated.int8_scales(weight)
    rounded = compensated.compensated(weight, scales, formats.LIMITS[fmt], prepared)
    if fmt == "int4":
        # Once more with the scales that fit these integers: 4 % less KL on the sample model; twice gives nothing more.
        scales = compensated.refitted(rounded, weight, gathered.moments)
        rounded = compensated.compensated(weight, scales, formats.LIMITS[fmt], prepared)
    return rounded
