"""Rotation: the model's hidden states turned by an orthogonal matrix that merges into the weights.

Goes in: an eager model and a few tokens. Comes out: the same function of token ids, whose hidden states have no
outstanding channels, so that rounding them to int8, and the weights that read and write them to int4, loses less.
Nothing is left to do at run time. What reads hidden states behind a norm is turned by Q, with the norm's weight merged
into it, and what writes them by its transpose: a norm by root mean square alone does not see a rotation.

Source: Ashkboos et al., "QuaRot: Outlier-Free 4-Bit Inference in Rotated LLMs" (2024), its first rotation. Measured on
SmolLM2-135M (mean KL): int8 activations alone 0.0200 -> 0.0084, an int4 embedding alone 0.0139 -> 0.0074, 8da4w as a
whole 0.0915 -> 0.0768.
"""

from __future__ import annotations

import gc
import logging
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from exporter.quantize import Request
from exporter.quantize.blocks import UnknownStructure, Walk, is_norm
from exporter.quantize.compensated import some_rows
from exporter.quantize.equalize import divide_norm
from exporter.quantize.linears import share_copy, untie
from exporter.quantize.memory import give_back

_LOG = logging.getLogger(__name__)
TOLERANCE = 1e-3
"""Of a standard deviation of the logits, at most, that a rotation may change them by: it is rounded in float32."""
_TOKENS = 32
_SEED = 0
_LARGEST_FACTOR = 64
"""Rows of one factor of Q: the fewer, the less work; any number is orthogonal."""


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What is turned, by full names."""

    readers: dict[str, str]
    """Linear layer -> the norm whose output it is given."""
    writers: list[str]
    """Linear layers whose outputs are added to the hidden states."""


@dataclass(frozen=True, kw_only=True)
class Turned:
    """A model to quantize."""

    model: PreTrainedModel
    rotated: bool
    in_place: bool = False
    """Whether it is the given model itself, which gets its values again: what is not needed may be let go of."""

    def title(self, words: str) -> str:
        """What was done, for the report."""
        return f"{words}, in rotated hidden states" if self.rotated else words


@contextmanager
def rotated(model: PreTrainedModel, request: Request, ids: torch.Tensor) -> Iterator[Turned]:
    """The model turned; or as it was, where its architecture does not allow it.

    Behind the block ``model`` is as it was. With ``request.restore`` it is itself turned for that time, which saves
    the memory of a copy; without, a copy is.

    Args:
        ids: [1, T] int64, tokens to see by that the function is the same.
    """
    ids = ids[:, :_TOKENS]
    give_back()
    plan = _plan(model, ids)
    if plan is None:
        yield Turned(model=model, rotated=False)
        return
    with torch.no_grad():
        expected = model(ids, use_cache=False).logits
        work = model if request.restore is not None else share_copy(model)
        try:
            _turn(work, plan)
            give_back()
            difference = (work(ids, use_cache=False).logits - expected).abs().max()
            if bool(difference <= TOLERANCE * expected.std()):
                yield Turned(model=work, rotated=True, in_place=work is model)
                return
        finally:
            if request.restore is not None:
                gc.collect()  # copies that share its tensors
                give_back()
                request.restore(model)
    _LOG.debug("rotated, it computes something else: %s", float(difference))
    yield Turned(model=model, rotated=False)


def factors(width: int) -> list[torch.Tensor]:
    """Orthogonal matrices whose Kronecker product is the rotation [width, width]: Hadamard's wherever there are some.

    All entries of a Hadamard matrix have one size, so that it spreads a channel most evenly. Those of two's powers are
    Sylvester's; a prime p of the width makes, with 4 from its twos, one of Paley's first construction where 4 p - 1 is
    prime too, and a seeded random orthogonal matrix where not. The sign of each row is random, or hidden states that
    are all alike would become a single large channel.

    torchao has some of these matrices too, in a prototype (torchao.prototype.spinquant) that may go with any release,
    and fails on widths that it has no table for.
    """
    generator = torch.Generator().manual_seed(_SEED)
    odd, found = width, list[torch.Tensor]()
    while odd % 2 == 0:
        odd //= 2
    twos = width // odd
    for prime in _primes(odd):
        if twos % 4 == 0 and _primes(4 * prime - 1) == [4 * prime - 1]:
            twos //= 4
            found.append(_paley(4 * prime - 1) / math.sqrt(4 * prime))
        else:
            random = torch.randn(prime, prime, generator=generator, dtype=torch.float64)
            found.append(torch.linalg.qr(random)[0])
    while twos > 1:
        size = min(twos, _LARGEST_FACTOR)
        twos //= size
        found.append(_sylvester(size) / math.sqrt(size))
    signs = [torch.randint(2, (len(factor), 1), generator=generator) * 2.0 - 1.0 for factor in found]
    return [(factor * sign).float().contiguous() for factor, sign in zip(found, signs, strict=True)]


def _primes(number: int) -> list[int]:
    """Prime factors, the smallest first."""
    found, prime = list[int](), 2
    while prime * prime <= number:
        while number % prime == 0:
            found.append(prime)
            number //= prime
        prime += 1
    return [*found, number] if number > 1 else found


def _sylvester(size: int) -> torch.Tensor:
    """The Hadamard matrix of a power of two."""
    made = torch.ones(1, 1, dtype=torch.float64)
    while len(made) < size:
        made = torch.kron(made, torch.tensor([[1.0, 1.0], [1.0, -1.0]], dtype=torch.float64))
    return made


def _paley(q: int) -> torch.Tensor:
    """A Hadamard matrix of order q + 1, for a prime q that leaves 3 when divided by 4 (Paley, 1933)."""
    squares = {number * number % q for number in range(1, q)}
    character = torch.tensor([0.0] + [1.0 if number in squares else -1.0 for number in range(1, q)]).double()
    places = torch.arange(q)
    made = torch.ones(q + 1, q + 1, dtype=torch.float64)
    made[1:, 0] = -1.0
    made[1:, 1:] = character[(places.unsqueeze(0) - places.unsqueeze(1)) % q] + torch.eye(q, dtype=torch.float64)
    return made


def turn(rows: torch.Tensor, by: list[torch.Tensor]) -> torch.Tensor:
    """``rows`` [..., width] times the Kronecker product of ``by``."""
    shape = rows.shape
    for factor in by:
        # The first of the factors that are left goes over the slowest of the places, which comes last then.
        rows = rows.reshape(*shape[:-1], len(factor), -1).transpose(-1, -2) @ factor
    return rows.reshape(shape)


def _plan(model: PreTrainedModel, ids: torch.Tensor) -> _Plan | None:
    """None where hidden states cannot be turned; nothing is changed."""
    table, output = model.get_input_embeddings(), model.get_output_embeddings()
    if (
        not isinstance(table, nn.Embedding)
        or type(output) is not nn.Linear
        or table.embedding_dim != output.in_features
    ):
        return None
    width = output.in_features
    names = {module: name for name, module in model.named_modules()}
    readers: dict[str, str] = {}
    writers: list[str] = []
    try:
        with torch.no_grad():
            walk = Walk(model, [ids])
            for number, layer in enumerate(walk.layers):
                linears = [name for name, module in layer.named_modules() if type(module) is nn.Linear]
                fed = walk.norms_before(number, linears)
                if not _only_these(layer, {*linears}, {*fed.values()}, width):
                    return None
                prefix = f"{walk.prefix}.{number}."
                for name in linears:
                    norm = fed.get(name)
                    if norm is not None and len(cast(torch.Tensor, layer.get_submodule(norm).weight)) == width:
                        readers[prefix + name] = prefix + norm
                    elif cast(nn.Linear, layer.get_submodule(name)).out_features == width:
                        writers.append(prefix + name)
                walk.advance(number)
    except UnknownStructure:
        return None
    last = [m for m, name in names.items() if is_norm(m) and not name.startswith(f"{walk.prefix}.")]
    if len(last) != 1 or not _by_root_mean_square(last[0], width):
        return None
    readers[names[output]] = names[last[0]]
    return _Plan(readers=readers, writers=writers)


def _only_these(layer: nn.Module, linears: set[str], feeding: set[str], width: int) -> bool:
    """Whether a decoder layer has no weights but plain linear layers, norms before them, and norms of heads."""
    for name, module in layer.named_modules():
        own = list(module.parameters(recurse=False))
        if not own or name in linears:
            continue
        if not is_norm(module):
            return False
        if len(own[0]) == width and (name not in feeding or not _by_root_mean_square(module, width)):
            return False
    return True


def _by_root_mean_square(norm: nn.Module, width: int) -> bool:
    return len(cast(torch.Tensor, norm.weight)) == width and _weight(norm, width) is not None


def _weight(norm: nn.Module, width: int) -> torch.Tensor | None:
    """[width]: what the norm multiplies channels by; None where it does more than that and dividing by the size."""
    probe = torch.randn(4, width, generator=torch.Generator().manual_seed(0)) + 0.5
    plain = probe * probe.square().mean(-1, keepdim=True).rsqrt()
    with torch.no_grad():
        ratios = norm(probe) / plain
    same = torch.allclose(ratios, ratios[:1].expand_as(ratios), rtol=1e-3, atol=1e-6)
    return ratios[0] if same else None


def _turn(model: PreTrainedModel, plan: _Plan) -> None:
    """In place: parameters of ``model`` are replaced, their tensors stay as they were."""
    untie(model)
    table = cast(nn.Embedding, model.get_input_embeddings())
    by = factors(table.embedding_dim)
    table.weight = _turned(table.weight, None, by)
    weights = {norm: _weight(model.get_submodule(norm), table.embedding_dim) for norm in set(plan.readers.values())}
    for name, norm in reversed(plan.readers.items()):  # the largest first, the output layer
        linear, weight = cast(nn.Linear, model.get_submodule(name)), weights[norm]
        linear.weight = _turned(linear.weight, weight, by)
    for name in plan.writers:
        linear = cast(nn.Linear, model.get_submodule(name))
        linear.weight = _parameter(turn(linear.weight.T, by).T)
        if isinstance(linear.bias, nn.Parameter):
            linear.bias = _parameter(turn(linear.bias, by))
    for norm, weight in weights.items():
        if weight is not None:
            divide_norm(model.get_submodule(norm), weight)


def _turned(weight: torch.Tensor, scales: torch.Tensor | None, by: list[torch.Tensor]) -> nn.Parameter:
    """``weight`` [rows, width], its columns times ``scales``, turned; some rows at a time."""
    found = torch.empty_like(weight, memory_format=torch.contiguous_format)
    step = some_rows(weight)
    for first in range(0, len(weight), step):
        rows = weight.detach()[first : first + step]
        found[first : first + step] = turn(rows if scales is None else rows * scales, by)
    return _parameter(found)


def _parameter(tensor: torch.Tensor) -> nn.Parameter:
    return nn.Parameter(tensor.detach().contiguous(), requires_grad=False)
