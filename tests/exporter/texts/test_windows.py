"""Runs of tokens that texts share: what is an overlap, and how long the runs are."""

from __future__ import annotations

from exporter.texts import windows
from tests.exporter.loaded import Loaded


def test_overlaps() -> None:
    found = windows.Windows(6)
    found.add([1, 2, 3, 4, 5, 6, 7, 8])
    assert found.overlaps([9, 2, 3, 4, 5, 6, 7, 9])
    assert not found.overlaps([9, 2, 3, 4, 5, 6, 9, 7, 8])
    assert not found.overlaps([2, 3, 4, 5, 6])
    assert not found.overlaps([])
    longer = windows.Windows(13)
    longer.add([1, 2, 3, 4, 5, 6, 7])
    longer.add([8, 9])
    assert longer.overlaps([0, 1, 2, 3, 4, 5, 6, 7, 0]), "a text shorter than a window is looked for as a whole"
    assert not longer.overlaps([1, 2, 3, 4, 5, 6, 0, 8, 9])


def test_windows_are_longer_where_tokens_are_shorter(sample: Loaded, tiny: Loaded) -> None:
    assert windows.LENGTH <= windows.length(sample.tokenizer) < 30 < windows.length(tiny.tokenizer)
