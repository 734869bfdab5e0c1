"""The output layer in parts, by what rounding the row of each token costs, so that few of its rows need eight bits.

Goes in: an eager model and calibration text. Comes out: a copy whose output layer is a ``SplitOutput``, linear layers
over the rows from the costliest to the cheapest, for each of which a format can be chosen; and, when that is done, one
with a part for each format. What a model says is mostly a few thousand of its tokens: of SmolLM2-135M's 49,152 rows
8,192 carry 97 % of the probability on calibration text, and with these in int8 and the rest in int4, rounded to the
nearest, the mean KL is 0.027 where all in int4 cost 0.107 (the first 8,192 by their number: 0.039).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import cast

import torch
from torch import nn
from transformers import PreTrainedModel

from exporter.quantize import formats
from exporter.quantize.assignment import Assignment
from exporter.quantize.compensated import some_rows
from exporter.quantize.experts import calibrating, linear
from exporter.quantize.linears import share_copy, untie
from exporter.quantize.memory import give_back, let_go
from exporter.quantize.sensitivity import spread

TOKENS = 3072
"""Of calibration text, for the probabilities of tokens."""
_LEAST_ROWS = 1024
"""Of an output layer that is split: in a smaller one a row more or less is not worth another kernel's call."""
_PARTS = (1 / 48, 1 / 24, 1 / 12, 1 / 6, 1 / 3, 1.0)
"""Where parts end, as shares of the rows."""
_PLACE_BYTES = 4
"""In a file for each row of a split layer."""


class SplitOutput(nn.Module):
    """A linear layer whose rows lie in several ones, in another order; it computes the same.

    Args:
        weight: [all rows, in], those of the first part first; parts are views of it.
        bias: [all rows] in the same order.
        rows: for each part the rows of the whole layer in it, [rows] int64; every row in one of them.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, rows: Sequence[torch.Tensor]) -> None:
        super().__init__()
        counts = [len(some) for some in rows]
        biases = [None] * len(counts) if bias is None else bias.split(counts)
        self.parts = nn.ModuleList(linear(*both) for both in zip(weight.split(counts), biases, strict=True))
        self.place: torch.Tensor
        self.register_buffer("place", torch.argsort(torch.cat(list(rows))).to(torch.int32))

    @classmethod
    def of(cls, output: nn.Linear, rows: Sequence[torch.Tensor]) -> SplitOutput:
        """``output`` split; it is left as it was."""
        order, bias = torch.cat(list(rows)), output.bias
        return cls(output.weight.detach()[order], None if bias is None else bias.detach()[order], rows)

    def again(self, rows: Sequence[torch.Tensor]) -> SplitOutput:
        """The same layer in other parts, over the same memory where its rows are to lie as they do."""
        weights = [cast(nn.Linear, part).weight.detach() for part in self.parts]
        biases = [cast(nn.Linear, part).bias for part in self.parts]
        bias = None if biases[0] is None else torch.cat([some.detach() for some in biases])
        order = torch.cat(list(rows))
        if not torch.equal(torch.argsort(order), self.place.long()):
            taken = self.place.long()[order]
            return SplitOutput(torch.cat(weights)[taken], None if bias is None else bias[taken], rows)
        return SplitOutput(_whole(weights), bias, rows)

    @property
    def rows(self) -> list[torch.Tensor]:
        """As it was made."""
        order = torch.argsort(self.place)
        return list(order.split([cast(nn.Linear, part).out_features for part in self.parts]))

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        """Logits [..., vocabulary] of [..., width]."""
        together = torch.cat([part(hidden_states) for part in self.parts], dim=-1)
        return together.index_select(-1, self.place)


@dataclass(frozen=True, kw_only=True)
class Tokens:
    """What a model does with the tokens of its vocabulary on calibration text."""

    often: torch.Tensor
    """[rows of the input embedding] int64: tokens from the one that is met most often, read or likely to be said."""
    uncertain: torch.Tensor | None
    """[vocabulary]: the sum over positions of p (1 - p), p the probability of the token; None: no text has any."""
    moments: torch.Tensor | None
    """[width, width]: the sum over positions of x^T x, x what the output layer is given; None as above."""
    positions: int


def look(model: PreTrainedModel, sequences: list[torch.Tensor]) -> Tokens:
    """See what the model reads and says.

    Args:
        sequences: [1, T] int64 each, calibration text.
    """
    output = model.get_output_embeddings()
    read = torch.zeros(len(cast(torch.Tensor, model.get_input_embeddings().weight)))
    entered: list[torch.Tensor] = []
    said, squared, moments, positions = None, None, None, 0
    handle = output.register_forward_pre_hook(lambda module, args: entered.append(args[0]))
    try:
        with torch.no_grad(), calibrating(model):
            for ids in spread(sequences, TOKENS):
                entered.clear()
                give_back()
                logits = model(ids, use_cache=False).logits[0].float()
                if not bool(torch.isfinite(logits).all()):
                    continue  # calibration tells which layer's inputs are not finite
                spoken = logits.softmax(-1)
                said, squared = _sum(said, spoken.sum(0)), _sum(squared, spoken.square_().sum(0))
                for hidden in entered[:1]:
                    moments = _sum(moments, hidden[0].float().T @ hidden[0].float())
                positions += ids.shape[1]
    finally:
        handle.remove()
    give_back()
    if said is not None:
        read[: len(said)] += said[: len(read)]
    for ids in sequences:
        read += torch.bincount(ids[0], minlength=len(read))
    # Tokens are numbered about as often as they are met, which decides between those that never were.
    often = torch.argsort(read, descending=True, stable=True)
    uncertain = None if said is None or squared is None else said - squared
    return Tokens(often=often, uncertain=uncertain, moments=moments, positions=positions)


def _sum(so_far: torch.Tensor | None, more: torch.Tensor) -> torch.Tensor:
    return more if so_far is None else so_far.add_(more)


def split(model: PreTrainedModel, tokens: Tokens, *, spend: bool = False) -> PreTrainedModel:
    """A share-copy with the output layer in parts, or ``model`` itself where that is no use.

    Args:
        spend: whether ``model`` may lose its own output layer's weight, so that there is one in memory.
    """
    output = model.get_output_embeddings()
    if type(output) is not nn.Linear or len(output.weight) < _LEAST_ROWS:
        return model
    if not formats.takes("int4", output.in_features):
        return model
    costs = _row_costs(output, tokens)
    if costs is None:
        return model
    order = torch.argsort(costs, descending=True, stable=True)
    ends = [int(len(order) * share) for share in _PARTS]
    work = _with(model, [order[first:last] for first, last in zip([0, *ends], ends, strict=False)])
    if spend:
        let_go(output)
    give_back()
    return work


def together(base: PreTrainedModel, chosen: Assignment) -> tuple[PreTrainedModel, Assignment]:
    """What ``split`` gave, with one part for each format that its parts have in ``chosen``, and the formats for it."""
    whole = base.get_output_embeddings()
    if not isinstance(whole, SplitOutput):
        return base, chosen
    name = _name(base)
    kept = {key: fmt for key, fmt in chosen.linears.items() if not key.startswith(f"{name}.parts.")}
    rows: dict[str, list[torch.Tensor]] = {}
    for number, some in enumerate(whole.rows):
        rows.setdefault(chosen.linears[f"{name}.parts.{number}"], []).append(some)
    work = share_copy(base)
    if len(rows) == 1:
        work.set_submodule(name, whole.again([torch.arange(len(whole.place))]).parts[0])
        return work, replace(chosen, linears=kept | dict.fromkeys([name], *rows))
    # The costlier ones first: they are fewer.
    parts = {f"{name}.parts.{number}": fmt for number, fmt in enumerate(rows)}
    work.set_submodule(name, whole.again([torch.cat(some) for some in rows.values()]))
    return work, replace(chosen, linears=kept | parts)


def place_bytes(base: PreTrainedModel, linears: dict[str, str]) -> int:
    """What the places of rows take in a file beside the parts themselves, which come together where they are alike."""
    output = base.get_output_embeddings()
    if not isinstance(output, SplitOutput):
        return 0
    prefix = f"{_name(base)}.parts."
    mixed = len({fmt for name, fmt in linears.items() if name.startswith(prefix)}) > 1
    return _PLACE_BYTES * len(output.place) if mixed else 0


def rehearsed(model: PreTrainedModel) -> PreTrainedModel:
    """Two parts, wherever the layer can be split."""
    output = model.get_output_embeddings()
    if type(output) is not nn.Linear or len(output.weight) < 2:
        return model
    return _with(model, list(torch.arange(len(output.weight)).flip(0).tensor_split(2)))


def told(model: PreTrainedModel, chosen: Assignment) -> list[str]:
    """What a person should know of a model whose output layer is split."""
    output = model.get_output_embeddings()
    if not isinstance(output, SplitOutput):
        return []
    name = _name(model)
    counts = {chosen.linears.get(f"{name}.parts.{number}", ""): len(some) for number, some in enumerate(output.rows)}
    if not counts.get("int8"):
        return []
    return [
        f"the output layer has {counts['int8']:,} of {sum(counts.values()):,} tokens in int8: those whose "
        "probabilities rounding would change the most"
    ]


def _with(model: PreTrainedModel, rows: Sequence[torch.Tensor]) -> PreTrainedModel:
    work = share_copy(model)
    untie(work)
    work.set_submodule(_name(work), SplitOutput.of(cast(nn.Linear, work.get_output_embeddings()), rows))
    return work


def _whole(weights: list[torch.Tensor]) -> torch.Tensor:
    """Matrices below one another: the tensor that they are views of, where they are."""
    first, count = weights[0], sum(map(len, weights))
    ends = [some.data_ptr() + some.nbytes for some in weights[:-1]]
    if len({some.untyped_storage().data_ptr() for some in weights}) > 1 or ends != [w.data_ptr() for w in weights[1:]]:
        return torch.cat(weights)
    return first.as_strided((count, first.shape[1]), (first.shape[1], 1))


def _name(model: PreTrainedModel) -> str:
    output = model.get_output_embeddings()
    return next(name for name, module in model.named_modules() if module is output)


def _row_costs(output: nn.Linear, tokens: Tokens) -> torch.Tensor | None:
    """[rows]: what rounding each row to int4 alone costs, about, in nats; None where that is not known.

    To second order KL is half the variance of the logits' change under the model's own probabilities, p (1 - p) d^2 / 2
    for one logit; here p and d are averaged apart, d^2 as the error's length by the second moments of the inputs.
    """
    if tokens.uncertain is None or tokens.moments is None or len(tokens.uncertain) != len(output.weight):
        return None
    errors = []
    for rows in output.weight.detach().split(some_rows(output.weight)):
        off = formats.rounded_nearest(rows, "int4").dequantized() - rows
        errors.append(((off @ tokens.moments) * off).sum(1))
    return 0.5 * tokens.uncertain * torch.cat(errors) / tokens.positions**2
