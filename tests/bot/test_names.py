"""The copied names are the exporter's."""

from __future__ import annotations

from typing import get_args, get_type_hints

from bot import names
from bot.web.forms import CACHE_WORDS, PRECISION_WORDS
from exporter import backends, quantize
from exporter.spec import ExportSpec


def test_names_are_those_of_the_tables() -> None:
    assert tuple(backends.TABLE) == names.BACKENDS
    assert tuple(quantize.TABLE) == names.PRECISIONS


def test_names_are_those_that_a_spec_takes() -> None:
    takes = get_type_hints(ExportSpec)
    assert {*get_args(takes["embedding"])} == {*names.EMBEDDINGS}
    assert {*get_args(takes["cache"])} == {*names.CACHES}


def test_a_person_is_told_what_each_means() -> None:
    assert {*PRECISION_WORDS} == {*names.PRECISIONS} and {*CACHE_WORDS} == {"", *names.CACHES}
