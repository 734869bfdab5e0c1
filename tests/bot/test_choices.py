"""Layers made one: who goes first, and what a budget belongs to."""

from __future__ import annotations

from typing import Any

import pytest

from bot.choices import FIELDS, Layer, Mismatch, apart, merge, option
from exporter.spec import ExportSpec

COMMENT, FILE, SETTINGS = "the comment", "the file", "the settings"
DEFAULT = {"precisions": ("fp32", "8da4w")}


def merged(comment: dict[str, Any], file: dict[str, Any], settings: dict[str, Any] = DEFAULT) -> dict[str, Any]:
    return merge([Layer(COMMENT, comment), Layer(FILE, file), Layer(SETTINGS, settings)])


def test_every_field_is_one_of_a_spec() -> None:
    assert {*FIELDS} <= {*ExportSpec.__dataclass_fields__} - {"model", "rehearse"}


def test_each_field_comes_from_the_first_layer_that_says_it() -> None:
    found = merged({"cache": None, "embedding": "4w"}, {"cache": "int8", "embedding": "8w", "bounds": {}})
    assert found == {"cache": "int8", "embedding": "4w", "bounds": {}, **DEFAULT}


AUTO = {"precisions": ("auto",)}


@pytest.mark.parametrize(
    ("comment", "file", "budget"),
    [
        ({**AUTO, "max_kl": 0.1}, {}, {"max_kl": 0.1}),
        (AUTO, {"max_kl": 0.1}, {"max_kl": 0.1}),
        ({"max_size": 10**8}, {**AUTO, "max_kl": 0.1}, {"max_size": 10**8}),
        ({**AUTO, "max_size": 10**8}, {**AUTO, "max_kl": 0.1}, {"max_size": 10**8}),
        ({}, {**AUTO, "max_kl": 0.1, "max_size": 10**8}, {"max_kl": 0.1, "max_size": 10**8}),
        ({"precisions": ("fp32", "auto")}, {**AUTO, "max_kl": 0.1}, {"max_kl": 0.1}),
    ],
)
def test_a_budget_is_taken_whole(comment: dict[str, Any], file: dict[str, Any], budget: dict[str, Any]) -> None:
    found = merged(comment, file)
    assert {name: found[name] for name in ("max_kl", "max_size") if name in found} == budget


def test_what_is_allowed_to_auto_means_nothing_to_other_precisions_asked_above() -> None:
    found = merged({"precisions": ("fp32",)}, {**AUTO, "max_kl": 0.1})
    assert found == {"precisions": ("fp32",)}


@pytest.mark.parametrize(
    ("comment", "file", "said"),
    [
        (AUTO, {}, "precision auto needs a budget: max-kl .* or max-size .*; the comment asked for it without one"),
        ({}, AUTO, "the file asked for it without one"),
        ({"max_kl": 0.1}, {}, "max-kl of the comment: it is a budget of precision auto, and fp32, 8da4w is asked for"),
        ({}, {"precisions": ("8da4w",), "max_size": 10**8}, "max-size of the file: .* 8da4w is asked for"),
    ],
)
def test_what_does_not_go_together_names_the_place(comment: dict[str, Any], file: dict[str, Any], said: str) -> None:
    with pytest.raises(Mismatch, match=said):
        merged(comment, file)


def test_one_layer_alone() -> None:
    assert apart({**AUTO, "max_kl": 0.1}) is None and apart(AUTO) is None and apart({"max_kl": 0.1}) is None
    assert apart({"precisions": ("fp32",), "max_size": 10**8}, option) == (
        "max_size",
        "it is a budget of --precision auto, which is not asked for",
    )
