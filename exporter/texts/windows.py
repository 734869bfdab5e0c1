"""What two texts share: runs of tokens that occur in both, so that none is judged on what it was made with.

Goes in: token sequences. Comes out: whether one has a run of tokens in common with texts that were taken up before.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from exporter import texts

LENGTH = 13
"""Tokens of a run that counts: shorter ones are set phrases that everybody writes."""
_SHORTEST = 6
"""Tokens of a text that is looked for at all: of shorter ones, any page has some."""
_WORDS_TOKENS = 1.5
"""Tokens a word of English, up to which ``LENGTH`` holds; half of them with tokens twice as short is no phrase."""


class Windows:
    """The runs of ``length`` tokens in all texts that were taken up; of shorter texts, the text itself."""

    def __init__(self, length: int = LENGTH) -> None:
        self.length = length
        self._runs: dict[int, set[tuple[int, ...]]] = {}

    def add(self, ids: Sequence[int]) -> None:
        """Take up a text."""
        size = min(self.length, len(ids))
        if size >= _SHORTEST:
            self._runs.setdefault(size, set()).update(_runs(ids, size))

    def overlaps(self, ids: Sequence[int]) -> bool:
        """Whether a sequence has a run in common with any text that was taken up."""
        return any(not runs.isdisjoint(_runs(ids, size)) for size, runs in self._runs.items())


def length(tokenizer: Any) -> int:
    """Tokens of a run for this tokenizer: ``LENGTH``, and as many more as its tokens are shorter than usual.

    Thirteen bytes of a byte-level tokenizer are two words, which independent texts share all the time.
    """
    sample = texts.read("evaluation/docs_2")
    per_word = len(texts.encode(tokenizer, sample, None, special=False)) / len(sample.split())
    return max(LENGTH, round(LENGTH * per_word / _WORDS_TOKENS))


def of_evaluation(tokenizer: Any, own: Iterable[str] = ()) -> Windows:
    """Everything that files are verified, judged or shown on: whole texts, whatever part of them is used.

    Args:
        own: what was kept of the owner's texts for evaluation.

    Raises:
        MissingTokenizer: the tokenizer fails on ordinary text.
    """
    found = Windows(length(tokenizer))
    for text in (*texts.judged(), *own):
        ids = texts.encode(tokenizer, text, None, special=False)
        # The first token depends on what stands before it.
        found.add(ids if len(ids) > found.length else ids[1:])
    return found


def _runs(ids: Sequence[int], size: int) -> Iterable[tuple[int, ...]]:
    return zip(*(ids[offset:] for offset in range(size)), strict=False)
