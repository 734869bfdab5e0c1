"""The built-in texts: what files are verified on, what quality is judged on, and what calibration takes.

Goes in: a model's own tokenizer and its context length. Comes out: named token sequences.
- parity (``prose.txt``, ``code.txt``, ``scripts.txt``): plain prose, a prompt through the model's chat template where
  it has one, code, non-Latin scripts, and one text that reaches the end of the context
- quality (``evaluation/``): docs, code, prompts that the original answers, and short questions
- calibration (``calibration/``): docs in many languages and forms, code, and prompts; read by exporter/calibration.py

Calibration drops whatever it shares with the texts of the other two, so nothing is judged on what it was made with.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch

from exporter.errors import MissingTokenizer
from exporter.guard import guarded, quiet
from exporter.texts import chat

_LOG = logging.getLogger(__name__)
MAX_TOKENS = 96
"""Tokens of each short text; enough for several hundred compared positions over all texts and schedules."""
EVALUATION_TOKENS = 384
"""Tokens of each text that quality is judged on."""
MOST_OWN = 4
"""Texts of the owner's that quality is judged on."""
_EVALUATION = {"docs": ("docs_1", "docs_2"), "code": ("code_1", "code_2")}
BUILT_IN = sum(map(len, _EVALUATION.values()))
"""Built-in texts that quality is judged on, the chat ones left out."""


@dataclass(frozen=True, kw_only=True)
class Text:
    """One tokenized text."""

    name: str
    ids: torch.Tensor
    """[1, T] int64."""
    sha256: str
    """Of the text's UTF-8 bytes before tokenization."""
    kind: str = "parity"
    """``docs``, ``code``, ``chat`` or ``own`` for a text that quality is judged on."""


def read(name: str) -> str:
    """One of the built-in texts, e.g. ``prose`` or ``evaluation/docs_1``."""
    return files(__package__).joinpath(f"{name}.txt").read_text(encoding="utf-8")


def short_texts(tokenizer: Any, max_seq_len: int, vocab_size: int | None = None) -> list[Text]:
    """The short texts, each cut to ``MAX_TOKENS`` and to the context.

    A chat template that gives no usable prompt is left out: the model can be exported without.

    Args:
        vocab_size: tokens that the model has embeddings for; None: as many as the tokenizer gives.

    Raises:
        MissingTokenizer: the tokenizer cannot encode a text: it fails, gives fewer than two tokens, or tokens that
            the model does not have.
    """
    limit = min(MAX_TOKENS, max_seq_len)
    texts = [
        _text(name, read(name), encode(tokenizer, read(name), vocab_size)[:limit])
        for name in ("prose", "code", "scripts")
    ]
    if (prompt := chat.prompt(tokenizer)) is not None:
        try:
            texts.insert(1, _text("chat", prompt, encode(tokenizer, prompt, vocab_size, special=False)[:limit]))
        except MissingTokenizer as error:
            _LOG.warning("No chat text: %s", error.what)
    return texts


def context_end_text(tokenizer: Any, max_seq_len: int, vocab_size: int | None = None) -> Text:
    """A text of exactly ``max_seq_len`` tokens: prose, code and scripts over and over.

    Raises:
        MissingTokenizer: as ``short_texts``.
    """
    whole = "\n\n".join((read("prose"), read("code"), read("scripts")))
    ids: list[int] = []
    while len(ids) < max_seq_len:
        more = encode(tokenizer, whole, vocab_size, special=not ids)
        if not more:
            raise MissingTokenizer("The tokenizer gives no tokens for plain English prose.")
        ids += more
    return _text("context end", whole, ids[:max_seq_len])


def evaluation(tokenizer: Any, max_seq_len: int, vocab_size: int | None, own: Sequence[str] = ()) -> list[Text]:
    """The texts that quality is judged on, each cut to ``EVALUATION_TOKENS`` and to the context.

    Two of kind ``docs``, two of kind ``code``, and up to four of kind ``own``: passages of ``own``, which is what
    calibration kept of the owner's texts for this (``calibration.own_evaluation``). Names are unique: ``docs 1``.

    Raises:
        MissingTokenizer: as ``short_texts``; a passage of the owner's that gives fewer than two tokens is left out.
    """
    limit = min(EVALUATION_TOKENS, max_seq_len)
    found = [
        _text(f"{kind} {number}", text, encode(tokenizer, text, vocab_size)[:limit], kind)
        for kind, names in _EVALUATION.items()
        for number, text in enumerate((read(f"evaluation/{name}") for name in names), start=1)
    ]
    for text in own:
        # Of a long text the beginning suffices: a tokenizer's time may grow faster than the text.
        ids = encode(tokenizer, text[: EVALUATION_TOKENS * 40], vocab_size)[:limit]
        if len(ids) >= 2 and len(found) < BUILT_IN + MOST_OWN:
            found.append(_text(f"own {len(found) - BUILT_IN + 1}", text, ids, "own"))
    return found


def evaluation_prompts() -> list[str]:
    """What a user says; quality of kind ``chat`` is judged on the original's own answers to these."""
    return read("evaluation/chat_prompts").splitlines()


def questions() -> list[str]:
    """Short questions for greedy answers of a file and the original side by side."""
    return read("evaluation/questions").splitlines()


def calibration_prompts() -> list[str]:
    """What a user says; calibration takes the model's own answers to these."""
    return read("calibration/chat_prompts").splitlines()


def judged() -> list[str]:
    """All built-in text that files are verified, judged or shown on, which calibration must not take."""
    names = ["prose", "code", "scripts", *(f"evaluation/{name}" for names in _EVALUATION.values() for name in names)]
    return [*map(read, names), chat.QUESTION, *evaluation_prompts(), *questions()]


def encode(tokenizer: Any, text: str, vocab_size: int | None, *, special: bool = True) -> list[int]:
    """A text's tokens, with what the tokenizer puts around every text (``special``) or without.

    Raises:
        MissingTokenizer: the tokenizer fails, or gives a token that the model does not have (``vocab_size``).
    """
    with guarded(MissingTokenizer, "The tokenizer fails on ordinary text"), quiet():
        ids = [int(number) for number in tokenizer(text, add_special_tokens=special)["input_ids"]]
    if vocab_size is not None and ids and max(ids) >= vocab_size:
        raise MissingTokenizer(f"The tokenizer gives token {max(ids)}; the model has {vocab_size} embeddings.")
    return ids


def _text(name: str, text: str, ids: list[int], kind: str = "parity") -> Text:
    if len(ids) < 2:
        raise MissingTokenizer(f"The tokenizer gives {len(ids)} tokens for the text {name!r}; at least 2 are needed.")
    digest = hashlib.sha256(text.encode()).hexdigest()
    return Text(name=name, ids=torch.tensor([ids], dtype=torch.long), sha256=digest, kind=kind)
