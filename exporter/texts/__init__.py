"""The texts that files are verified on: written for this purpose, and never used for calibration.

Goes in: a model's own tokenizer and its context length. Comes out: named token sequences: plain prose, a
prompt through the model's chat template where it has one, code, non-Latin scripts, and one text that reaches
the end of the context.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from importlib.resources import files
from typing import Any

import torch

from exporter.errors import MissingTokenizer

MAX_TOKENS = 96
"""Tokens of each short text; enough for several hundred compared positions over all texts and schedules."""
_CHAT = [{"role": "user", "content": "Why do lakes freeze from the top? Explain it to a child in two sentences."}]


@dataclass(frozen=True, kw_only=True)
class Text:
    """One tokenized text."""

    name: str
    ids: torch.Tensor
    """[1, T] int64."""
    sha256: str
    """Of the text's UTF-8 bytes before tokenization."""


def read(name: str) -> str:
    """One of the built-in texts: ``prose``, ``code`` or ``scripts``."""
    return files(__package__).joinpath(f"{name}.txt").read_text(encoding="utf-8")


def short_texts(tokenizer: Any, max_seq_len: int) -> list[Text]:
    """The short texts, each cut to ``MAX_TOKENS`` and to the context.

    Raises:
        MissingTokenizer: the tokenizer gives fewer than two tokens for a text.
    """
    limit = min(MAX_TOKENS, max_seq_len)
    chosen = [("prose", read("prose")), ("code", read("code")), ("scripts", read("scripts"))]
    texts = [_tokenize(tokenizer, name, text, limit) for name, text in chosen]
    if getattr(tokenizer, "chat_template", None):
        prompt = tokenizer.apply_chat_template(_CHAT, tokenize=False, add_generation_prompt=True)
        texts.insert(1, _tokenize(tokenizer, "chat", prompt, limit, special=False))
    return texts


def context_end_text(tokenizer: Any, max_seq_len: int) -> Text:
    """A text of exactly ``max_seq_len`` tokens: prose, code and scripts over and over."""
    whole = "\n\n".join((read("prose"), read("code"), read("scripts")))
    ids: list[int] = []
    while len(ids) < max_seq_len:
        more = tokenizer(whole, add_special_tokens=not ids)["input_ids"]
        if not more:
            raise MissingTokenizer("The tokenizer gives no tokens for plain English prose.")
        ids += more
    return Text(
        name="context end",
        ids=torch.tensor([ids[:max_seq_len]], dtype=torch.long),
        sha256=hashlib.sha256(whole.encode()).hexdigest(),
    )


def _tokenize(tokenizer: Any, name: str, text: str, limit: int, *, special: bool = True) -> Text:
    ids = tokenizer(text, add_special_tokens=special)["input_ids"][:limit]
    if len(ids) < 2:
        raise MissingTokenizer(f"The tokenizer gives {len(ids)} tokens for the text {name!r}; at least 2 are needed.")
    return Text(name=name, ids=torch.tensor([ids], dtype=torch.long), sha256=hashlib.sha256(text.encode()).hexdigest())
