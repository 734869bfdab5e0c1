"""What a model writes by itself: seeded samples from the beginnings that it is given.

Goes in: an eager causal LM and token sequences to begin with. Comes out: each with what the model wrote after it; none
where the model writes nothing of use (random weights, logits that are no numbers). Made for any architecture: a batch
is fed in step, every sequence from its own position 0, without padding or a mask; while the batch is at a token that
a sequence begins with, that token is taken instead of a sample.

Answers and the text that files are judged on come from ``exporter.generation``, which pads: it takes uneven prompts in
one pass and the most likely token too, where here a pass over the weights is made for each token by which they differ,
and entropies tell what is of no use.
"""

from __future__ import annotations

import inspect
import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from transformers import PreTrainedModel

from exporter.errors import NotEnoughMemory
from exporter.guard import shown

_LOG = logging.getLogger(__name__)
TEMPERATURE = 0.8
NEW_TOKENS = 192
"""The most that is written after one beginning."""
LARGEST_BATCH = 32
_CACHE_SHARE = 0.6
"""Of the bytes of the model's own weights, what keys and values of a batch may take."""
_USUAL = 0.8
"""Of the longest sequence, what one is likely to have; a second batch of few rows would double the passes."""
_ENOUGH = 0.85
"""Of the tokens that are asked for: a last batch of few rows costs as many passes over the weights as a full one."""
_LEAST_DISTINCT = 0.5
"""Of all runs of four tokens, what must differ: loops have fewer, prose has nearly all."""
_MOST_ENTROPY = 0.75
"""Of the logarithm of the vocabulary's size, what a model that knows any language stays below."""
_LEAST_WRITTEN = 8
"""Tokens; what is shorter says nothing."""


@dataclass
class _Row:
    """One sequence in the making."""

    start: list[int]
    ids: list[int] = field(default_factory=list)
    entropy: float = 0.0
    """Sum over sampled positions, in nats."""

    @property
    def written(self) -> int:
        return len(self.ids) - len(self.start)


class Unusable(Exception):
    """The model writes nothing that calibration could take; the text says why."""


def samples(
    model: PreTrainedModel,
    starts: Sequence[list[int]],
    *,
    tokens: int,
    longest: int,
    kept: int,
    vocab_size: int,
    ends: Sequence[int],
    seed: int,
    progress: Callable[[float], None] = lambda fraction: None,
) -> list[list[int]]:
    """Sequences that begin with ``starts``, in this order, until they have about ``tokens`` together or starts run out.

    The same model, starts and seed give the same result on the same machine with the same number of threads.

    Args:
        starts: token ids, each at least one and fewer than ``longest``.
        longest: the most tokens of a sequence, its beginning included.
        kept: the most tokens of a sequence that count towards ``tokens``.
        ends: tokens after which a sequence ends.

    Raises:
        Unusable: the model fails, its logits are no numbers, or nothing that it wrote is of use.
        NotEnoughMemory: the machine could not hold keys and values of one batch.
    """
    generator = torch.Generator().manual_seed(seed)
    found: list[_Row] = []
    written = 0

    def counted(rows: list[_Row]) -> int:
        return sum(min(len(row.ids), kept) for row in rows)

    try:
        with torch.no_grad(), _one_expert_at_a_time(model):
            size = _batch_size(model, starts[0], longest)
            while len(found) < len(starts) and written < tokens * _ENOUGH:
                # No more rows than are missing, by the length of earlier ones.
                usual = written / len(found) if found else _USUAL * min(longest, kept)
                count = min(size, math.ceil((tokens - written) / usual))
                rows = [_Row(start=start) for start in starts[len(found) : len(found) + count]]

                def tell(rows: list[_Row] = rows, earlier: int = written) -> None:
                    progress(min(1.0, (earlier + counted(rows)) / tokens))

                _fill(model, rows, longest, vocab_size, frozenset(ends), generator, tell)
                found += rows
                written += counted(rows)
    except Unusable:
        raise
    except MemoryError:
        raise NotEnoughMemory("The model's own text cannot be generated: out of memory.") from None
    except Exception as error:  # any architecture's forward may fail in its own way
        if "can't allocate memory" in str(error):
            raise NotEnoughMemory(f"The model's own text cannot be generated: {shown(error)}.") from None
        _LOG.debug("generation", exc_info=True)
        raise Unusable(f"it fails: {type(error).__name__}: {shown(error)}") from error
    used = [row.ids for row in found if not _useless(row, vocab_size)]
    if not used:
        raise Unusable("what it writes is noise or repeats itself")
    return used


def _fill(
    model: PreTrainedModel,
    rows: list[_Row],
    longest: int,
    vocab_size: int,
    ends: frozenset[int],
    generator: torch.Generator,
    tell: Callable[[], None],
) -> None:
    """Write every row of a batch to its end."""
    position = min(len(row.start) for row in rows)
    active = list(rows)
    for row in active:
        row.ids = row.start[:position]
    feed = torch.tensor([row.ids for row in active], dtype=torch.long)
    cache = None
    while active:
        logits, cache = _forward(model, feed, cache)
        logits = logits[:, :vocab_size]
        if not bool(torch.isfinite(logits.amax(dim=1)).all()) or bool(logits.isnan().any()):
            raise Unusable("its logits are no numbers")
        drawn = torch.multinomial(torch.softmax(logits / TEMPERATURE, dim=1), 1, generator=generator)[:, 0].tolist()
        entropies = torch.distributions.Categorical(logits=logits, validate_args=False).entropy().tolist()
        kept = []
        for index, row in enumerate(active):
            if position < len(row.start):
                row.ids.append(row.start[position])
            else:
                row.ids.append(drawn[index])
                row.entropy += entropies[index]
            ended = row.written > 0 and row.ids[-1] in ends
            if not ended and row.written < NEW_TOKENS and len(row.ids) < longest:
                kept.append(index)
        position += 1
        tell()
        if len(kept) < len(active):
            active = [active[index] for index in kept]
            if active:
                cache.batch_select_indices(torch.tensor(kept))
        feed = torch.tensor([[row.ids[-1]] for row in active], dtype=torch.long)


def _forward(model: PreTrainedModel, ids: torch.Tensor, cache: Any) -> tuple[torch.Tensor, Any]:
    """Logits [B, vocab] after the last of ``ids`` [B, S], and the cache with them in it."""
    last = {"logits_to_keep": 1} if "logits_to_keep" in inspect.signature(model.forward).parameters else {}
    made = model(input_ids=ids, past_key_values=cache, use_cache=True, **last)
    return made.logits[:, -1].float(), made.past_key_values


def _batch_size(model: PreTrainedModel, start: list[int], longest: int) -> int:
    """Sequences at a time, so that keys and values stay small beside the weights."""
    probe = torch.tensor([start[:4]], dtype=torch.long)
    cache = _forward(model, probe, None)[1]
    a_token = sum(layer.keys.nbytes + layer.values.nbytes for layer in cache.layers) / probe.shape[1]
    weights = sum(parameter.nbytes for parameter in model.parameters())
    return max(1, min(LARGEST_BATCH, int(weights * _CACHE_SHARE / (a_token * longest))))


@contextmanager
def _one_expert_at_a_time(model: PreTrainedModel) -> Iterator[None]:
    """Run mixtures of experts by transformers' plain loop: batched products gather a copy of the weights per token."""
    if not hasattr(model, "get_experts_implementation") or not model._can_set_experts_implementation():
        yield
        return
    before = model.get_experts_implementation()
    model.set_experts_implementation("eager")
    try:
        yield
    finally:
        model.set_experts_implementation(before)


def _useless(row: _Row, vocab_size: int) -> bool:
    if row.written < _LEAST_WRITTEN or row.entropy / row.written > _MOST_ENTROPY * math.log(vocab_size):
        return True
    runs = list(zip(*(row.ids[len(row.start) + offset :] for offset in range(4)), strict=False))
    return len(set(runs)) < _LEAST_DISTINCT * len(runs)
