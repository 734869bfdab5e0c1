"""Which layer gets how many bits: sizes, costs, and the order in which bytes are best spent. Pure; no model runs here.

Goes in: what each linear layer costs in nats when it is rounded alone (``exporter.quantize.sensitivity``) and what each
format takes in bytes. Comes out: a path of assignments from everything in int4 to everything in int8, each step the
one that buys the most quality for its bytes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from exporter.quantize import experts, formats
from exporter.quantize.sensitivity import Costs

EMBEDDING = "input embedding"
"""The name of the input embedding among linear layers."""
PROGRAM_BYTES = 30_000
"""Of a file beside its weights, for each file; see ``LAYER_BYTES``."""
LAYER_BYTES = 3_000
"""Of a file beside its weights, for each linear layer: its delegate's graph and the padding between weights. XNNPACK
files of the sample model (29 linear layers) have 77 KB beside their weights."""


_MARGIN = 1.1
"""Of what a file has beside its weights: a size budget is filled by this estimate, and must not be exceeded."""


@dataclass(frozen=True)
class Assignment:
    """A format for every linear layer and the input embedding."""

    linears: dict[str, str]
    """Name in the unfolded model to ``int4``, ``int8`` or ``fp32``."""
    embedding: str
    """As in ``formats.EMBEDDINGS``."""
    size_bytes: int
    """Estimate of the file."""

    @property
    def in_int8(self) -> list[str]:
        return [name for name, fmt in self.linears.items() if fmt == "int8"]


@dataclass(frozen=True, kw_only=True)
class _Step:
    names: tuple[str, ...]
    """What is raised by it: one linear layer, all experts' of one decoder layer, or the embedding."""
    gain: float
    """Nats."""
    size: int
    """Bytes."""


class Ladder:
    """The path from the smallest assignment to the most faithful one.

    Args:
        model: unfolded, its embedding in full precision.
        costs: of ``int4`` and ``int8`` for each linear layer; those of the embedding under ``EMBEDDING`` as ``4w``
            and ``8w``, if it may change.
        embedding: the largest format that the embedding may have.
        beside: bytes of a file that come with formats of linear layers, beside their weights.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        costs: Costs,
        embedding: str,
        beside: Callable[[dict[str, str]], int] = lambda linears: 0,
    ) -> None:
        self._beside = beside
        self._linears = {name: m for name, m in model.named_modules() if isinstance(m, nn.Linear) and name in costs}
        self._costs, self._units = costs, experts.units(model)
        self._table = cast(torch.Tensor, model.get_input_embeddings().weight)
        rest = sum(p.numel() for p in model.parameters()) - sum(m.weight.numel() for m in self._linears.values())
        rest -= self._table.numel()
        self._fixed = int(4 * rest + (PROGRAM_BYTES + LAYER_BYTES * len(self._linears)) * _MARGIN)
        self._embeddings = self._worthwhile(embedding)

    @cached_property
    def _steps(self) -> list[_Step]:
        together: dict[str, list[str]] = {}
        for name in self._linears:
            if "int4" in self._costs[name]:
                together.setdefault(self._units.get(name, name), []).append(name)
        steps = []
        for names in together.values():
            gain = sum(self._costs[name]["int4"] - self._costs[name]["int8"] for name in names)
            size = sum(self._linear_bytes(name, "int8") - self._linear_bytes(name, "int4") for name in names)
            steps.append(_Step(names=tuple(names), gain=gain, size=size))
        for smaller, larger in pairwise(self._embeddings):
            gain, size = self._raise_embedding(smaller, larger)
            steps.append(_Step(names=(f"{EMBEDDING} {larger}",), gain=gain, size=size))
        return sorted(steps, key=lambda step: (-step.gain / step.size, step.names))

    def __len__(self) -> int:
        """Steps of the path; assignments are numbered from 0 (the smallest) to this."""
        return len(self._steps)

    def rung(self, number: int) -> Assignment:
        """The assignment after the first ``number`` steps."""
        return self._with({name for step in self._steps[:number] for name in step.names})

    def within(self, size_bytes: int) -> Assignment | None:
        """The most faithful assignment of a file of at most that size: steps are taken in order, leaving out those
        that no longer fit. None where not even the smallest fits."""
        taken = self._with(set())
        if taken.size_bytes > size_bytes:
            return None
        raised: set[str] = set()
        for step in self._steps:
            more = self._with(raised | set(step.names))
            if more.size_bytes <= size_bytes:
                raised.update(step.names)
                taken = more
        return taken

    def cheapest(self, cost: float) -> int:
        """The first rung that is predicted to cost at most so many nats; the last one where none is."""
        return next((n for n in range(len(self)) if self.predicted(self.rung(n)) <= cost), len(self))

    def highest(self, size_bytes: int | None) -> int | None:
        """The last rung of at most that size; None where not even the first fits."""
        if size_bytes is None:
            return len(self)
        return next((n for n in range(len(self), -1, -1) if self.rung(n).size_bytes <= size_bytes), None)

    def plain(self) -> Assignment:
        """Everything in int4 that can be, the embedding as it may be at most."""
        return self._with({f"{EMBEDDING} {fmt}" for fmt in self._embeddings})

    def predicted(self, assignment: Assignment) -> float:
        """The sum of what each layer costs alone, in nats."""
        total = sum(self._costs[name].get(fmt, 0.0) for name, fmt in assignment.linears.items())
        return total + self._costs.get(EMBEDDING, {}).get(assignment.embedding, 0.0)

    def _with(self, raised: set[str]) -> Assignment:
        linears = {
            name: "int8" if name in raised or "int4" not in self._costs[name] else "int4" for name in self._linears
        }
        embedding = [fmt for fmt in self._embeddings if fmt == self._embeddings[0] or f"{EMBEDDING} {fmt}" in raised][
            -1
        ]
        size = self._fixed + self._embedding_bytes(embedding) + self._beside(linears)
        size += sum(self._linear_bytes(name, fmt) for name, fmt in linears.items())
        return Assignment(linears=linears, embedding=embedding, size_bytes=size)

    def _worthwhile(self, largest: str) -> list[str]:
        """The formats of the embedding from the smallest to ``largest``, each buying more for its bytes than the
        next: a step that would come only after the one behind it is left out."""
        if EMBEDDING not in self._costs:
            return [largest]
        known = [fmt for fmt in self._costs[EMBEDDING] if formats.takes(formats.EMBEDDINGS[fmt], self._table.shape[1])]
        found: list[str] = []
        for fmt in sorted(known, key=self._embedding_bytes):
            while len(found) > 1 and self._rate(found[-1], fmt) >= self._rate(found[-2], found[-1]):
                found.pop()
            found.append(fmt)
        return found

    def _rate(self, smaller: str, larger: str) -> float:
        gain, size = self._raise_embedding(smaller, larger)
        return gain / size

    def _raise_embedding(self, smaller: str, larger: str) -> tuple[float, int]:
        cost = self._costs[EMBEDDING]
        return cost[smaller] - cost[larger], self._embedding_bytes(larger) - self._embedding_bytes(smaller)

    def _linear_bytes(self, name: str, fmt: str) -> int:
        out, width = self._linears[name].weight.shape
        return formats.linear_bytes(out, width, fmt)

    def _embedding_bytes(self, fmt: str) -> int:
        rows, width = self._table.shape
        return formats.embedding_bytes(rows, width, fmt)
