"""Greedy answers of a written file beside the original's, and whether an answer falls into repetition.

Goes in: the eager model once, then each file as its step function. Comes out: how many answers are the original's
token by token, how many repeat themselves where the original's do not, and a few of them in words. At quality that is
lost, greedy text is luck: files are judged by KL and perplexity (``exporter.quality``), answers are for people.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from exporter import texts
from exporter.backends import ShapePolicy
from exporter.errors import MissingTokenizer
from exporter.generation import generate
from exporter.guard import guarded, quiet, shown
from exporter.report import Answer
from exporter.schedule import Step, feed
from exporter.texts import chat

NEW_TOKENS = 48
"""Tokens of one answer; those that fall into repetition have shown it by then."""
LEAST_TOKENS = 16
"""Of an answer; a context with less room behind a question has no answer to it."""
SHOWN = 4
"""Answers that a report has in words."""
_LONGEST = 300
_SHORT_PERIOD, _LONG_PERIOD = 8, 20
_SHORT_TIMES, _LONG_TIMES, _LEAST = 4.0, 2.5, 8


@dataclass(frozen=True, kw_only=True)
class Question:
    """One question with the original's answer."""

    text: str
    ids: list[int]
    """The prompt's tokens."""
    room: int
    """The most tokens of an answer, fewer than ``NEW_TOKENS`` where the context is short."""
    answer: list[int]
    """Without the token that ended it."""


@dataclass(frozen=True, kw_only=True)
class Answers:
    """What comparing a file's answers with the original's gave."""

    total: int = 0
    same: int = 0
    repeating: int = 0
    shown: list[Answer] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def repeats(tokens: Sequence[int]) -> bool:
    """Whether a text falls into repetition: whether some stretch of it is the same few tokens over and over.

    A stretch has period n when each of its tokens is the one n places before it. It counts when n is at most 8 and it
    goes through the n tokens four times and over eight tokens or more, or when n is at most 20 and it goes through them
    two and a half times: a sentence that comes back within an answer's ``NEW_TOKENS`` has no time for more. So
    "fashion, fashion, fashion, fashion" repeats; a list whose items differ and the digits of 1,000,000 do not.
    """
    for period in range(1, min(_LONG_PERIOD, len(tokens) - 1) + 1):
        times = _SHORT_TIMES if period <= _SHORT_PERIOD else _LONG_TIMES
        needed = max(times * period, _LEAST) - period
        run = 0
        for number in range(period, len(tokens)):
            run = run + 1 if tokens[number] == tokens[number - period] else 0
            if run >= needed:
                return True
    return False


def prompts(
    tokenizer: Any, contents: Sequence[str], most_tokens: int, vocab_size: int
) -> tuple[list[tuple[str, list[int]]], bool]:
    """``contents`` that fit into ``most_tokens``, with the tokens of their prompts; and whether a template made them.

    Where there is no chat template, or none that does, a text stands as it is and the model goes on from it.
    """
    rendered = chat.prompts(tokenizer, contents)
    found = []
    for content, text in zip(contents, rendered or [f"{content}\n" for content in contents], strict=True):
        try:
            ids = texts.encode(tokenizer, text, vocab_size, special=rendered is None)
        except MissingTokenizer:
            continue  # a template may write tokens that the model does not have
        if 1 <= len(ids) <= most_tokens:
            found.append((content, ids))
    return found, rendered is not None


def ask(
    model: Any, tokenizer: Any, questions: Sequence[str], *, eos_ids: Collection[int], max_seq_len: int, vocab_size: int
) -> list[Question]:
    """The eager model's greedy answers; questions that leave no room for one in the context are left out."""
    asked, _ = prompts(tokenizer, questions, max_seq_len - LEAST_TOKENS, vocab_size)
    if not asked:
        return []
    # One length for all: some models have no position beyond their context, not even one whose token is dropped.
    room = min(NEW_TOKENS, max_seq_len - max(len(ids) for _, ids in asked))
    answers = generate(model, [ids for _, ids in asked], new_tokens=room, eos_ids=eos_ids)
    return [
        Question(text=text, ids=ids, room=room, answer=[token for token in answer if token not in eos_ids])
        for (text, ids), answer in zip(asked, answers, strict=True)
    ]


def measure(
    step: Step,
    shape_policy: ShapePolicy,
    questions: Sequence[Question],
    *,
    tokenizer: Any,
    eos_ids: Collection[int],
    seconds: float,
    progress: Callable[[float, str], None] = lambda fraction, message: None,
) -> Answers:
    """Have a file answer until ``seconds`` are over; an answer that is not whole by then does not count."""
    until = time.perf_counter() + seconds
    given: list[tuple[Question, list[int]]] = []
    for number, question in enumerate(questions):
        progress(number / len(questions), f"question {number + 1} of {len(questions)}")
        answer = _answer(step, shape_policy, question, eos_ids, until)
        if answer is None:
            break
        given.append((question, answer))
    worst = [_told(tokenizer, question, answer) for question, answer in given]
    # A person wants to see what went wrong; a stable sort keeps the questions' order among their likes.
    worst.sort(key=lambda one: (not one.repeats, one.same))
    left_out = []
    if len(given) < len(questions):
        left_out = [f"answers: {len(given)} of {len(questions)} questions, {max(seconds, 0):,.0f} s were left"]
    return Answers(
        total=len(given),
        same=sum(one.same for one in worst),
        repeating=sum(one.repeats for one in worst),
        shown=worst[:SHOWN],
        left_out=left_out,
    )


def _answer(
    step: Step, shape_policy: ShapePolicy, question: Question, eos_ids: Collection[int], until: float
) -> list[int] | None:
    """Greedy tokens without the one that ends them; None when the time is over first."""
    prompt = torch.tensor([question.ids])
    length = len(question.ids)
    if shape_policy == "dynamic":
        if time.perf_counter() > until:
            return None
        row = feed(step, prompt, [length])[-1]
    else:
        for place in range(length):
            if time.perf_counter() > until:
                return None
            row = step(prompt[:, place : place + 1], torch.tensor([place]))[-1]
    answer: list[int] = []
    while (token := int(row.argmax())) not in eos_ids:
        answer.append(token)
        if len(answer) == question.room:
            break
        if time.perf_counter() > until:
            return None
        row = step(torch.tensor([[token]]), torch.tensor([length + len(answer) - 1]))[-1]
    return answer


def _told(tokenizer: Any, question: Question, answer: list[int]) -> Answer:
    return Answer(
        prompt=shown(question.text, _LONGEST),
        original=_words(tokenizer, question.answer),
        file=_words(tokenizer, answer),
        same=answer == question.answer,
        repeats=repeats(answer) and not repeats(question.answer),
    )


def _words(tokenizer: Any, tokens: list[int]) -> str:
    """What the tokens say, fit for a report: one line of printable characters, cut to ``_LONGEST``."""
    try:
        with guarded(MissingTokenizer, "The tokenizer cannot decode its own tokens"), quiet():
            return shown(tokenizer.decode(tokens, skip_special_tokens=True), _LONGEST)
    except MissingTokenizer as error:  # files are judged by tokens; words are for show
        return f"({error.what})"
