"""How texts are fed to a file under test: which text in which calls, in what order, and what is cut on a slow one.

Goes in: the verification texts, a shape policy and a time budget. Comes out: the passes that ``exporter.parity``
runs and compares.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import cycle

import torch

from exporter.backends import ShapePolicy
from exporter.texts import Text

Step = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]
"""(input_ids [1, S] int64, cache_position [S] int64) -> logits [S, vocab] float32."""

BUDGET_SECONDS = 300.0
"""Time for one file. What a slow backend cannot do in it is left out, and the report says what and why."""
CONTEXT_END = "context end"
END_TOKENS = 64
"""Positions compared at the end of the context; the text before them is only fed."""
_LEAST = 8
_CHUNKS = (7, 1, 13, 2, 29, 5, 3)


@dataclass(frozen=True, kw_only=True)
class Pass:
    """One text fed in one schedule."""

    text: Text
    schedule: str
    sizes: list[int]
    keep: int
    """Rows compared: of the context end the last ones, else the first ones, which are all unless it was cut."""
    needed: bool = False
    """Whether a file that did not do at least a part of it is not verified."""


def passes(texts: list[Text], end: Text, shape_policy: ShapePolicy) -> list[Pass]:
    """What is fed, in order: every schedule on the first text, each text once, the context's end, a replay of the
    first text; then the remaining schedules of the other texts."""
    first, others = texts[0], texts[1:]
    dynamic = shape_policy == "dynamic"
    whole, rest = ("prefill", ("chunks", "decode")) if dynamic else ("decode", ())
    return [
        *(replace(_pass(first, schedule), needed=True) for schedule in (whole, *rest)),
        *(_pass(text, whole) for text in others),
        _end_pass(end, shape_policy),
        replace(_pass(first, whole), schedule="replay", needed=True),
        *(_pass(text, schedule) for text in others for schedule in rest),
    ]


def _pass(text: Text, schedule: str) -> Pass:
    length = text.ids.shape[1]
    sizes = {"prefill": [length], "chunks": chunks(length), "decode": [1] * length}[schedule]
    return Pass(text=text, schedule=schedule, sizes=sizes, keep=length)


def _end_pass(end: Text, shape_policy: ShapePolicy) -> Pass:
    length = end.ids.shape[1]
    last = min(8, length - 1)
    sizes = [1] * length if shape_policy == "single" else [length - last] + [1] * last
    return Pass(text=end, schedule=CONTEXT_END, sizes=sizes, keep=min(END_TOKENS, length))


class Pace:
    """How long a pass will take on this file, from those before it: seconds for a call of one token, and for a
    token of a longer call."""

    def __init__(self) -> None:
        self.single = self.longer = 0.0

    def learn(self, sizes: list[int], seconds: float) -> None:
        if all(size == 1 for size in sizes):
            self.single = seconds / len(sizes)
        else:
            self.longer = seconds / sum(sizes)

    def expect(self, sizes: list[int]) -> float:
        ones = sum(size == 1 for size in sizes)
        return ones * max(self.single, self.longer) + (sum(sizes) - ones) * (self.longer or self.single)


def within(item: Pass, pace: Pace, seconds: float) -> Pass | None:
    """``item`` cut to what fits into ``seconds``, or None.

    A text fed from its start can be cut, the context's end cannot. What a file must show at the least (every
    schedule and a replay on the first text) is never cut below ``_LEAST`` calls, however long those take.
    """
    expected = pace.expect(item.sizes)
    if expected <= max(seconds, 0.0):
        return item
    if item.schedule == CONTEXT_END:
        return None
    fitting = int(len(item.sizes) * max(seconds, 0.0) / expected)
    if item.needed:
        sizes = item.sizes[: max(fitting, _LEAST)]
        return item if sizes == item.sizes else replace(item, sizes=sizes, keep=sum(sizes))
    return replace(item, sizes=item.sizes[:fitting], keep=sum(item.sizes[:fitting])) if fitting >= _LEAST else None


def feed(step: Step, ids: torch.Tensor, sizes: Sequence[int]) -> torch.Tensor:
    """Logits [T, vocab] for ``ids`` [1, T] fed in calls of the given sizes from position 0."""
    rows, start = [], 0
    for size in sizes:
        rows.append(step(ids[:, start : start + size].contiguous(), torch.arange(start, start + size)))
        start += size
    return torch.cat(rows)


def chunks(length: int) -> list[int]:
    """Uneven chunk sizes that sum to ``length``."""
    sizes: list[int] = []
    for size in cycle(_CHUNKS):
        if sum(sizes) >= length:
            return sizes
        sizes.append(min(size, length - sum(sizes)))
    raise AssertionError("cycle never ends")
