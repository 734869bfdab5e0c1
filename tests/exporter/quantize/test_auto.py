"""What auto says of its search: figures that a person can compare with the budget, and with the file's own row."""

from __future__ import annotations

from collections.abc import Callable

import torch
from transformers import PreTrainedModel

from exporter.quantize import Request, auto
from exporter.quantize.assignment import Assignment, Ladder
from exporter.quantize.linears import unfold
from exporter.quantize.sensitivity import measure


def test_a_size_that_misses_by_little_is_told_apart_from_the_smallest(load: Callable[..., PreTrainedModel]) -> None:
    model = load("llama-untied")
    ladder = Ladder(unfold(model)[0], measure(model, [torch.tensor([[1, 2, 3, 4]])]), "8w")
    smallest = ladder.rung(0).size_bytes
    said = auto._too_small(ladder, Request(embedding="8w", max_size=smallest - 1))
    assert f"{smallest - 1:,} bytes" in said
    assert f"{smallest:,}." in said


def test_parts_of_the_output_layer_are_told_where_they_are_counted() -> None:
    linears = {"model.q_proj": "int4", "lm_head.parts.0": "int8", "lm_head.parts.1": "int4"}
    said = auto._words(Assignment(linears, "8w", 1))
    assert said == "1 of 3 linear layers in int8 (the output layer counts as 2), embedding 8w"
    assert auto._words(Assignment({"model.q_proj": "int4"}, "4w", 1)) == "0 of 1 linear layers in int8, embedding 4w"
