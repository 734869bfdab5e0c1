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
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import torch
from torch import nn
from transformers import PreTrainedModel

from exporter.quantize import formats
from exporter.quantize.compensated import nearest
from exporter.quantize.experts import calibrating, roundable
from exporter.quantize.linears import unfold

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
    handles = []
    with torch.enable_grad():
        start = model.get_input_embeddings()
        # Something in the graph has to want a gradient, and weights must not: theirs would take the model's size.
        handles.append(start.register_forward_hook(lambda module, args, out: out.detach().requires_grad_()))
        for name, module in linears.items():
            handles.append(module.register_forward_hook(partial(_kept, name, scales, sums[name])))
        try:
            logits = model(ids, use_cache=False).logits[0].float()
        finally:
            for handle in handles:
                handle.remove()
        if not bool(torch.isfinite(logits).all()):
            return  # nothing to draw from; calibration tells which layer's inputs are not finite
        with torch.no_grad():
            drawn = torch.multinomial(logits.softmax(-1), 1, generator=generator)
        logits.log_softmax(-1).gather(1, drawn).sum().backward()


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
            # sum over outputs of g (W' - W) x, one number a token
            through = gradient @ weight
            for fmt in sums:
                rounded = nearest(weight, scales[name, fmt], formats.LIMITS[fmt]).dequantized()
                change = ((gradient @ rounded - through) * entering).sum(-1)
                sums[fmt] += 0.5 * float(change.square().sum())

    if out.requires_grad:
        out.register_hook(on_gradient)


def of_embedding(
    model: PreTrainedModel, sequences: list[torch.Tensor], wanted: tuple[str, ...], often: torch.Tensor | None = None
) -> dict[str, float]:
    """Format of the input embedding to what rounding it alone costs, mean KL in nats, measured by running the model.

    Args:
        often: as for ``formats.quantize_embedding``.
    """
    texts = spread(sequences)[::3]
    costs = {}
    for fmt in wanted:
        work, _ = unfold(model)
        formats.quantize_embedding(work, fmt, often)
        total, positions = 0.0, 0
        with torch.no_grad(), calibrating(work):
            for ids in texts:
                expected = model(ids, use_cache=False).logits[0].float().log_softmax(-1)
                got = work(ids, use_cache=False).logits[0].float().log_softmax(-1)
                total += float((expected.exp() * (expected - got)).sum())
                positions += ids.shape[1]
        costs[fmt] = max(total / positions, 0.0)
    return costs
