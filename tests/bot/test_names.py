"""The copied names are the exporter's."""

from __future__ import annotations

from bot import names
from exporter import backends, quantize


def test_names_are_those_of_the_tables() -> None:
    assert tuple(backends.TABLE) == names.BACKENDS
    assert tuple(quantize.TABLE) == names.PRECISIONS
