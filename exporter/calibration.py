"""Calibration text: what recipes look at while they choose roundings, and nothing that files are judged on.

Goes in: the model, its tokenizer, the spec (owner's files) and a seed. Comes out: token sequences from three sources:
1. what the model itself writes after short prompts in several languages, through its chat template where it has one
2. built-in text: docs in many languages and forms, and code
3. the first four fifths of the owner's files; the rest is for evaluation (``own_evaluation``)

Every sequence that shares a run of tokens with text that files are verified, judged or shown on is left out.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy
import torch
from transformers import PreTrainedModel

from exporter import texts
from exporter.errors import MissingTokenizer
from exporter.quantize import Calibration
from exporter.report import CalibrationUsed
from exporter.spec import ExportSpec
from exporter.texts import chat, owner, sampling, windows

_LOG = logging.getLogger(__name__)
TOKENS = 10_000
"""Of all sequences together, at most."""
SEQUENCE_TOKENS = 256
"""The most of one sequence."""
_OWN_SHARE = 0.5
"""Of the tokens, at most, when the owner names text."""
_GENERATED_SHARE = 0.5
"""Of what the owner's text leaves."""
_DOCS_SHARE = 0.65
"""Of the built-in text; the rest is code."""
_HELD_OUT = slice(4, None, 10)
_LEAST_SEQUENCE = 16
"""Tokens; a remainder that is shorter is left out, except where the context itself is."""
_LONGEST_PROMPT = 1_024
"""Tokens; longer ones, of templates with long instructions, cost more than their answers are worth."""
_LEAST_PROMPTS = 8
"""Prompts that must fit into the context for the chat template to be used."""
_SLICES, _SLICE_CHARACTERS = 40, 6_000
"""Of an owner's text that is longer than both together: so many places are looked at, so much at each."""
_PASSAGES = 4
"""Of the owner's texts, what quality is judged on, at most."""
_PASSAGE_CHARACTERS = 16_000
_BUILT_IN = {"docs": "calibration/docs", "code": "calibration/code"}


@dataclass(frozen=True)
class _Sequence:
    source: str
    ids: tuple[int, ...]


def check(spec: ExportSpec, model_dir: Path) -> None:
    """Read the owner's texts once, before anything is done.

    Raises:
        InvalidCalibration: one of them cannot be used; says which, why and where.
    """
    owner.read(spec.calibration, model_dir)


def own_evaluation(names: Sequence[str], model_dir: Path) -> list[str]:
    """Up to four passages of what the owner's texts have after the part that calibrates; [] without such texts.

    Raises:
        InvalidCalibration: as ``check``.
    """
    found = owner.read(names, model_dir)
    each = max(1, _PASSAGES // max(len(found), 1))
    passages = []
    for text in found[:_PASSAGES]:
        tail = text.evaluation
        count = max(1, min(each, len(tail) // _PASSAGE_CHARACTERS))
        starts = [len(tail) * index // count for index in range(count)]
        passages += [tail[start : start + _PASSAGE_CHARACTERS] for start in starts]
    return passages


def prepare(
    model: PreTrainedModel,
    tokenizer: Any,
    spec: ExportSpec,
    model_dir: Path,
    *,
    max_seq_len: int,
    vocab_size: int,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
    seed: int = 0,
    tokens: int = TOKENS,
    judged: Iterable[Sequence[int]] = (),
) -> Calibration:
    """The calibration text for one model, the same for the same input on the same machine.

    A model that writes nothing of use, and a chat template that cannot be rendered, cost the generated part only.

    Args:
        model: in evaluation mode, full precision; left as it was.
        max_seq_len: the context; no sequence is longer.
        vocab_size: rows of the model's embedding.
        progress: (fraction of this work, message)
        seed: of the model's sampling.
        tokens: of all sequences together, at most.
        judged: more token sequences that quality is judged on: the original's own answers, without their prompts, which
            share the chat template's words with every prompt.

    Raises:
        InvalidCalibration: as ``check``.
        MissingTokenizer: the tokenizer fails on ordinary text or gives tokens that the model does not have.
    """
    own = owner.read(spec.calibration, model_dir)
    made = _Made(tokenizer, min(SEQUENCE_TOKENS, max_seq_len), vocab_size)
    kept_apart = windows.of_evaluation(tokenizer, own_evaluation(spec.calibration, model_dir))
    for ids in judged:
        kept_apart.add(list(ids))
    notes: list[str] = []

    def clean(found: list[_Sequence], what: str) -> list[_Sequence]:
        left = [one for one in found if not kept_apart.overlaps(one.ids)]
        if len(left) < len(found):
            _LOG.info("%d of %d sequences of %s share text with evaluation", len(found) - len(left), len(found), what)
        if found and not left:
            notes.append(f"no calibration with {what}: all of it is in the text that quality is judged on")
        return left

    named = []
    for text in own:
        name = text.name if text.name not in ("generated", "chat", *_BUILT_IN) else f"./{text.name}"
        share = int(tokens * _OWN_SHARE / len(own))
        named += _spread(clean(made.cut(name, *_slices(text.calibration)), name), share)
    left = tokens - _count(named)
    progress(0.0, "the model writes calibration text")
    try:
        # One sequence may go over by its own length.
        wanted = int(left * _GENERATED_SHARE)
        generated = made.generated(model, wanted, max_seq_len, seed, lambda part: progress(part, "calibration text"))
        generated = _first(clean(generated, "the model's own text"), wanted)
    except sampling.Unusable as why:
        generated = []
        notes.append(f"no calibration text of the model's own: {why}")
        _LOG.warning("No calibration text of the model's own: %s", why)
    left -= _count(generated)
    docs, code = (clean(made.cut(kind, texts.read(name)), kind) for kind, name in _BUILT_IN.items())
    code = _spread(code, max(int(left * (1 - _DOCS_SHARE)), left - _count(docs)))
    docs = _spread(docs, left - _count(code))
    progress(1.0, "calibration text is ready")
    return _calibration([*generated, *docs, *code, *named], seed, notes)


class _Made:
    """Sequences for one tokenizer, each at most ``longest`` tokens and begun as the tokenizer begins a text."""

    def __init__(self, tokenizer: Any, longest: int, vocab_size: int) -> None:
        self.tokenizer, self.longest, self.vocab_size = tokenizer, longest, vocab_size
        self.prefix = self._prefix()

    def cut(self, source: str, *parts: str) -> list[_Sequence]:
        """Texts one after the other, in sequences of ``longest`` tokens."""
        room = self.longest - len(self.prefix)
        found = []
        for part in parts:
            ids = texts.encode(self.tokenizer, part, self.vocab_size, special=False)
            pieces = [ids[start : start + room] for start in range(0, len(ids), room)]
            least = min(_LEAST_SEQUENCE, room)
            found += [_Sequence(source, (*self.prefix, *piece)) for piece in pieces if len(piece) >= least]
        return found

    def generated(
        self, model: PreTrainedModel, wanted: int, max_seq_len: int, seed: int, progress: Callable[[float], None]
    ) -> list[_Sequence]:
        """What the model writes, about ``wanted`` tokens with the prompts; raises sampling.Unusable."""
        starts = self._prompts(max_seq_len) or self._beginnings()
        longest = max(self.longest, min(max_seq_len, max(map(len, starts)) + sampling.NEW_TOKENS))
        found = sampling.samples(
            model,
            starts,
            tokens=wanted,
            longest=longest,
            kept=self.longest,
            vocab_size=self.vocab_size,
            ends=_ends(model, self.tokenizer),
            seed=seed,
            progress=progress,
        )
        return [_Sequence("generated", self._end_of(ids)) for ids in found]

    def _end_of(self, ids: list[int]) -> tuple[int, ...]:
        """A sequence itself, or its last part where the prompt alone takes much of it."""
        if len(ids) <= self.longest:
            return tuple(ids)
        return (*self.prefix, *ids[len(ids) - self.longest + len(self.prefix) :])

    def _prompts(self, max_seq_len: int) -> list[list[int]] | None:
        rendered = chat.prompts(self.tokenizer, texts.calibration_prompts())
        if rendered is None:
            return None
        try:
            found = [texts.encode(self.tokenizer, text, self.vocab_size, special=False) for text in rendered]
        except MissingTokenizer as error:
            _LOG.warning("No prompts through the chat template: %s", error.what)
            return None
        most = min(_LONGEST_PROMPT, max_seq_len - self.longest // 4)
        found = [ids for ids in found if 0 < len(ids) <= most]
        return found if len(found) >= _LEAST_PROMPTS else None

    def _beginnings(self) -> list[list[int]]:
        """The first words of built-in paragraphs, for models that continue text."""
        paragraphs = [part for name in _BUILT_IN.values() for part in texts.read(name).split("\n\n") if len(part) > 150]
        room = max(1, min(24, self.longest // 4))
        found = []
        for part in paragraphs:
            ids = texts.encode(self.tokenizer, part, self.vocab_size, special=False)[:room]
            found.append([*self.prefix, *ids])
        # Subjects stand in the file one after the other: every seventh mixes them.
        return [found[index] for first in range(7) for index in range(first, len(found), 7) if found[index]]

    def _prefix(self) -> tuple[int, ...]:
        """Tokens that the tokenizer puts before every text; models may be useless without them."""
        plain = texts.encode(self.tokenizer, "one two", self.vocab_size, special=False)
        whole = texts.encode(self.tokenizer, "one two", self.vocab_size)
        for offset in range(len(whole) - len(plain) + 1):
            if plain and whole[offset : offset + len(plain)] == plain and offset < self.longest // 2:
                return tuple(whole[:offset])
        return ()


def _ends(model: PreTrainedModel, tokenizer: Any) -> list[int]:
    """Tokens that end what the model writes."""
    for place in (model.generation_config, model.config, tokenizer):
        value = getattr(place, "eos_token_id", None)
        ids = [one for one in (value if isinstance(value, list) else [value]) if type(one) is int]
        if ids:
            return ids
    return []


def _slices(text: str) -> list[str]:
    """A text, or places spread over one that is too long to be read whole; they begin and end between words."""
    if len(text) <= _SLICES * _SLICE_CHARACTERS:
        return [text]
    found = []
    for index in range(_SLICES):
        start = index * (len(text) - _SLICE_CHARACTERS) // (_SLICES - 1)
        found += text[start : start + _SLICE_CHARACTERS].split(maxsplit=1)[-1:]
    return found


def _spread(found: list[_Sequence], tokens: int) -> list[_Sequence]:
    """As many of the sequences as make at most ``tokens``, evenly spread over all."""
    if _count(found) <= tokens:
        return found
    # Sequences are of about one length; a number that is too large by a few is cut at its end.
    number = max(1, tokens * len(found) // max(_count(found), 1))
    if number == 1 and tokens >= _LEAST_SEQUENCE:
        return [replace(found[0], ids=found[0].ids[:tokens])]
    return _first([found[index * len(found) // number] for index in range(number)], tokens)


def _first(found: list[_Sequence], tokens: int) -> list[_Sequence]:
    chosen: list[_Sequence] = []
    for one in found:
        if tokens < len(one.ids):
            break
        chosen.append(one)
        tokens -= len(one.ids)
    return chosen


def _count(found: Sequence[_Sequence]) -> int:
    return sum(len(one.ids) for one in found)


def _calibration(found: list[_Sequence], seed: int, notes: list[str]) -> Calibration:
    """Of every source, the fifth sequence is held out and every tenth after it."""
    picked: set[int] = set()
    for source in {one.source for one in found}:
        picked.update([index for index, one in enumerate(found) if one.source == source][_HELD_OUT])
    sequences = [one for index, one in enumerate(found) if index not in picked]
    held_out = [one for index, one in enumerate(found) if index in picked]
    digest = hashlib.sha256()
    sources: dict[str, int] = {}
    for one in (*sequences, *held_out):
        digest.update(numpy.array([*one.ids, -1], dtype="<i8").tobytes())
        sources[one.source] = sources.get(one.source, 0) + len(one.ids)
    used = CalibrationUsed(
        tokens=_count(found), sequences=len(found), sha256=digest.hexdigest(), sources=sources, seed=seed
    )
    return Calibration(
        sequences=[torch.tensor([one.ids], dtype=torch.long) for one in sequences],
        held_out=[torch.tensor([one.ids], dtype=torch.long) for one in held_out],
        used=used,
        notes=notes,
    )
