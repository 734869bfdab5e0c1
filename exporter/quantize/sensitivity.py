"""What rounding each linear layer does to the model's output, in nats, for all layers from one backward pass a text.

Goes in: an eager model, a few token sequences and the formats to compare. Comes out: for each linear layer and format
the mean KL that rounding this layer alone would cost. To second order, the KL that a small change of one layer's
output makes is half the expected square of the change of a sampled token's log-probability, when the token is drawn
from the model itself (the Fisher information; Amari, "Natural Gradient Works Efficiently in Learning", 1998). So one
forward and one backward pass give, for every layer at once, what a forward pass for each layer would measure; a test
holds the two together. Time and memory are linear in layers and tokens.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel

from exporter.quantize import formats
from exporter.quantize.blocks import UnknownStructure, decoder_layers
from exporter.quantize.compensated import nearest, some_rows
from exporter.quantize.experts import calibrating, roundable
from exporter.quantize.linears import unfold
from exporter.quantize.memory import give_back

TOKENS = 1536
"""Of all sequences together; ranks of SmolLM2-135M's layers hardly move with more."""
LENGTH = 128
"""The most of one sequence: activations of every layer are kept until its backward pass."""
SEED = 1

Costs = dict[str, dict[str, float]]
"""Name of a linear layer -> format -> mean KL in nats."""


def measure(
    model: PreTrainedModel,
    sequences: list[torch.Tensor],
    wanted: tuple[str, ...] = ("int4", "int8"),
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> Costs:
    """The cost of rounding each linear layer of the unfolded ``model`` alone.

    Args:
        sequences: [1, T] int64 each; ``TOKENS`` of them are looked at, spread over the sequences.
        wanted: formats; one that a layer cannot take is left out of its costs.
    """
    work, _ = unfold(model)
    linears = roundable(work)
    sums: Costs = {
        name: {fmt: 0.0 for fmt in wanted if formats.takes(fmt, m.in_features)} for name, m in linears.items()
    }
    texts = spread(sequences)
    scales = {(name, fmt): formats.scales_of(linears[name].weight, fmt) for name, by in sums.items() for fmt in by}
    generator = torch.Generator().manual_seed(SEED)
    positions = 0
    with calibrating(work):
        for number, ids in enumerate(texts):
            progress(number / len(texts), f"sensitivity of layers, text {number + 1} of {len(texts)}")
            positions += ids.shape[1]
            give_back()
            _add(work, linears, ids, scales, sums, generator)
    worst = torch.finfo(torch.float32).max
    return {
        name: {fmt: value / positions if math.isfinite(value) else worst for fmt, value in by.items()}
        for name, by in sums.items()
    }


def spread(sequences: list[torch.Tensor], tokens: int = TOKENS) -> list[torch.Tensor]:
    """The beginnings, [1, T] each with T at most ``LENGTH``, of about so many tokens' sequences from all of them."""
    count = max(1, min(len(sequences), tokens // LENGTH))
    step = len(sequences) / count
    return [sequences[int(number * step)][:, :LENGTH] for number in range(count)]


def _add(
    model: PreTrainedModel,
    linears: dict[str, nn.Linear],
    ids: torch.Tensor,
    scales: dict[tuple[str, str], torch.Tensor],
    sums: Costs,
    generator: torch.Generator,
) -> None:
    """Add half the squared change of each position, summed, for one sequence."""
    with torch.enable_grad(), ExitStack() as stack:
        start = model.get_input_embeddings()
        # Something in the graph has to want a gradient, and weights must not: theirs would take the model's size.
        wanting = start.register_forward_hook(lambda module, args, out: out.detach().requires_grad_())
        stack.callback(wanting.remove)
        for name, module in linears.items():
            stack.callback(module.register_forward_hook(partial(_kept, name, scales, sums[name])).remove)
        stack.enter_context(_recomputed(model))
        logits = model(ids, use_cache=False).logits[0].float()
        if not bool(torch.isfinite(logits).all()):
            return  # nothing to draw from; calibration tells which layer's inputs are not finite
        with torch.no_grad():
            gradient = logits.softmax(-1)
            drawn = torch.cat([torch.multinomial(some, 1, generator=generator) for some in gradient.split(8)])
            # Of the drawn tokens' log-probabilities: one there, less the probabilities.
            gradient.neg_().scatter_add_(1, drawn, torch.ones_like(drawn, dtype=gradient.dtype))
        give_back()
        logits.backward(gradient)


@contextmanager
def _recomputed(model: PreTrainedModel) -> Iterator[None]:
    """Have decoder layers computed once more in the backward pass, so that one's activations are in memory at a time.

    Those of all 30 layers of SmolLM2-135M take 200 MB for 128 tokens. Hooks see no gradient in the first pass.
    """
    try:
        _, layers = decoder_layers(model)
    except UnknownStructure:
        layers = nn.ModuleList()
    try:
        for layer in layers:
            layer.forward = partial(_again, layer.forward)
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _again(forward: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    if not args:
        args = (kwargs.pop("hidden_states"),)
    return checkpoint(partial(forward, **kwargs), *args, use_reentrant=True, preserve_rng_state=False)


def _kept(
    name: str,
    scales: dict[tuple[str, str], torch.Tensor],
    sums: dict[str, float],
    module: nn.Module,
    args: tuple[Any, ...],
    out: torch.Tensor,
) -> None:
    """Keep a layer's input until the gradient of its output is there."""
    entering = args[0].detach().reshape(-1, args[0].shape[-1])

    def on_gradient(gradient: torch.Tensor) -> None:
        weight = cast(torch.Tensor, module.weight)
        gradient = gradient.reshape(-1, gradient.shape[-1])
        with torch.no_grad():
            for fmt in sums:
                sums[fmt] += 0.5 * float(_changes(gradient, weight, scales[name, fmt], fmt, entering).square().sum())

    if out.requires_grad:
        out.register_hook(on_gradient)


def _changes(
    gradient: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, fmt: str, entering: torch.Tensor
) -> torch.Tensor:
    """[tokens]: the sum over outputs of g (W' - W) x, W' the rounded weight; some rows of it at a time."""
    change = torch.zeros(len(entering))
    step = some_rows(weight)
    for first in range(0, len(weight), step):
        rows = slice(first, first + step)
        off = nearest(weight[rows], scales[rows], formats.LIMITS[fmt]).dequantized().sub_(weight[rows])
        change += ((gradient[:, rows] @ off) * entering).sum(-1)
    return change


def of_embedding(
    model: PreTrainedModel, sequences: list[torch.Tensor], wanted: tuple[str, ...], often: torch.Tensor | None = None
) -> dict[str, float]:
    """Format of the input embedding to what rounding it alone costs, mean KL in nats, measured by running the model.

    A format that the embedding would not get is left out. Only rows of tokens that the text has are rounded.

    Args:
        often: as for ``formats.quantize_embedding``.
    """
    texts = spread(sequences)[::3]
    rows = torch.cat([ids.flatten() for ids in texts]).unique()
    work, _ = unfold(model)
    table = work.get_input_embeddings()
    given = [fmt for fmt in wanted if formats.embedding_format(table, fmt) == fmt]
    sums = dict.fromkeys(given, 0.0)
    if not isinstance(table, nn.Embedding) or not given:
        return sums
    tables = {fmt: formats.rows_of_embedding(table, rows, fmt, often) for fmt in given}
    exact = table.weight.detach()[rows]
    table.padding_idx = None  # a row's number, which changes; it matters to gradients only
    table.register_forward_pre_hook(lambda module, args: (torch.searchsorted(rows, args[0]), *args[1:]))
    with torch.no_grad(), calibrating(work):
        for ids in texts:
            give_back()
            expected = _log_probabilities(work, table, exact, ids)
            for fmt, some in tables.items():
                got = _log_probabilities(work, table, some, ids)
                sums[fmt] += sum(float((old.exp() * (old - new)).sum()) for old, new in zip(expected, got, strict=True))
    give_back()
    positions = sum(ids.shape[1] for ids in texts)
    return {fmt: max(value / positions, 0.0) for fmt, value in sums.items()}


def _log_probabilities(
    model: PreTrainedModel, table: nn.Embedding, weight: torch.Tensor, ids: torch.Tensor
) -> torch.Tensor:
    table.weight = nn.Parameter(weight, requires_grad=False)
    logits: torch.Tensor = model(ids, use_cache=False).logits[0]
    logits = logits.float()
    return logits.sub_(logits.logsumexp(-1, keepdim=True))
