"""The output layer and the input embedding in parts: they compute the same, and the tokens that matter come first."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from exporter import quantize
from exporter.quantize import formats, vocabulary
from exporter.quantize.assignment import Assignment
from exporter.quantize.formats import SplitEmbedding
from exporter.quantize.linears import unfold
from exporter.quantize.vocabulary import SplitOutput
from tests.exporter.models import KINDS
from tests.exporter.quantize.conftest import Subject, logits, random_text


@pytest.mark.parametrize("bias", [False, True])
def test_an_output_layer_in_parts_computes_the_same(bias: bool) -> None:
    torch.manual_seed(0)
    whole = nn.Linear(32, 50, bias=bias)
    rows = list(torch.randperm(50).tensor_split([3, 20]))
    parts = SplitOutput.of(whole, rows)
    x = torch.randn(2, 7, 32)
    assert torch.allclose(parts(x), whole(x), atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(parts.rows, rows, strict=True))


def test_an_embedding_in_parts_computes_the_same() -> None:
    table = nn.Embedding(50, 32)
    order = torch.randperm(50, generator=torch.Generator().manual_seed(0))
    both = [nn.Embedding.from_pretrained(table.weight.detach()[rows]) for rows in (order[:4], order[4:])]
    parts = SplitEmbedding(*both, order)
    ids = torch.arange(50).reshape(2, 25)
    assert torch.equal(parts(ids), table(ids))


def test_what_is_likely_to_be_said_and_hurt_comes_first(sample: Subject) -> None:
    tokens = vocabulary.look(sample.model, sample.text.sequences)
    base = vocabulary.split(sample.model, tokens)
    output = base.get_output_embeddings()
    assert isinstance(output, SplitOutput)
    ids = sample.text.sequences[0]
    assert torch.allclose(logits(base, ids), logits(sample.model, ids), atol=1e-4)
    counts = [len(some) for some in output.rows]
    assert sum(counts) == len(output.place) == len(torch.unique(torch.cat(output.rows)))
    said = torch.bincount(torch.cat(sample.text.sequences, dim=1)[0], minlength=len(output.place))
    a_row = [float(said[some].float().mean()) for some in output.rows]
    assert a_row[0] > 2 * a_row[2] > 10 * a_row[-1]
    assert said[tokens.often[:100]].sum() > 0.95 * said.topk(100).values.sum()
    assert sample.model.get_output_embeddings() is not output, "the given model stays as it was"


def test_few_rows_in_int8_take_most_of_the_cost_away(sample: Subject) -> None:
    tokens = vocabulary.look(sample.model, sample.text.sequences)
    costly = torch.cat(cast(SplitOutput, vocabulary.split(sample.model, tokens).get_output_embeddings()).rows)
    weight: Any = sample.model.get_output_embeddings().weight.detach()
    rounded = {fmt: formats.rounded_nearest(weight, fmt).dequantized() for fmt in ("int4", "int8")}

    def cost(rows: torch.Tensor) -> float:
        mixed = rounded["int4"].clone()
        mixed[rows] = rounded["int8"][rows]
        work, _ = unfold(sample.model)
        work.get_output_embeddings().weight = nn.Parameter(mixed, requires_grad=False)
        return sample.cost(work)

    share = len(costly) // 6
    everything, chosen, cheapest = cost(costly[:0]), cost(costly[:share]), cost(costly[-share:])
    # Measured: 0.42; its 2,048 tokens are nearly all in use.
    assert chosen < 0.5 * everything
    assert cheapest > 0.9 * everything


def test_parts_of_one_format_come_together(sample: Subject) -> None:
    base = vocabulary.split(sample.model, vocabulary.look(sample.model, sample.text.sequences))
    rows = cast(SplitOutput, base.get_output_embeddings()).rows
    count = len(rows)
    linears = {"model.layers.0.mlp.up_proj": "int4"} | {f"lm_head.parts.{n}": "int4" for n in range(count)}
    chosen = Assignment(linears | {"lm_head.parts.0": "int8", "lm_head.parts.2": "int8"}, "8w", 7)
    model, found = vocabulary.together(base, chosen)
    output = cast(SplitOutput, model.get_output_embeddings())
    assert found == replace(
        chosen,
        linears={"model.layers.0.mlp.up_proj": "int4", "lm_head.parts.0": "int8", "lm_head.parts.1": "int4"},
    )
    assert torch.equal(output.rows[0], torch.cat([rows[0], rows[2]]))
    (words,) = vocabulary.told(model, found)
    assert words.startswith(f"the output layer has {len(rows[0]) + len(rows[2]):,} of {len(output.place):,} tokens")
    same, whole = vocabulary.together(base, Assignment(linears, "8w", 7))
    assert type(same.get_output_embeddings()) is torch.nn.Linear
    assert torch.equal(same.get_output_embeddings().weight, sample.model.get_output_embeddings().weight)
    assert whole.linears == {"model.layers.0.mlp.up_proj": "int4", "lm_head": "int4"}
    assert vocabulary.told(same, whole) == []


def test_a_place_for_each_row_is_counted(sample: Subject) -> None:
    tokens = vocabulary.look(sample.model, sample.text.sequences)
    base = vocabulary.split(sample.model, tokens)
    rows = len(cast(SplitOutput, base.get_output_embeddings()).place)
    one = Assignment({"lm_head.parts.0": "int8", "lm_head.parts.1": "int8"}, "8w", 0)
    assert vocabulary.place_bytes(base, one.linears) == 0
    assert vocabulary.place_bytes(base, one.linears | {"lm_head.parts.1": "int4"}) == 4 * rows
    assert vocabulary.place_bytes(sample.model, {"lm_head": "int4"}) == 0


def test_a_small_vocabulary_is_left_whole(load: Callable[..., PreTrainedModel]) -> None:
    model = load()
    assert vocabulary.split(model, vocabulary.look(model, random_text().sequences)) is model


def test_logits_that_are_no_numbers_leave_it_whole(sample: Subject) -> None:
    broken, _ = unfold(sample.model)
    broken.get_output_embeddings().weight = nn.Parameter(
        torch.full_like(cast(torch.Tensor, sample.model.get_output_embeddings().weight), torch.inf), requires_grad=False
    )
    tokens = vocabulary.look(broken, sample.text.sequences[:3])
    assert tokens.uncertain is None
    assert vocabulary.split(broken, tokens) is broken
    assert len(tokens.often) == len(torch.unique(tokens.often))


@pytest.mark.parametrize("kind", list(KINDS))
def test_a_rehearsal_has_both_in_parts_where_they_can_be(kind: str, load: Callable[..., PreTrainedModel]) -> None:
    model = load(kind)
    with torch.no_grad():
        found = quantize.get("8da4w").apply(model, quantize.Request(embedding="8w"))
    assert isinstance(found.model.get_output_embeddings(), SplitOutput) == (
        type(model.get_output_embeddings()) is nn.Linear
    )
    # Gemma's embedding multiplies what it gives: another class, which stays whole.
    assert isinstance(found.model.get_input_embeddings(), SplitEmbedding) == (
        type(model.get_input_embeddings()) is nn.Embedding
    )
