"""Answers side by side: what counts as repetition, what is the same, and what text of a model may look like."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import torch

from exporter import answers
from exporter.answers import NEW_TOKENS, SHOWN, Question, repeats
from exporter.schedule import Step
from exporter.tokenizer import load
from tests.exporter.conftest import ROOT

EOS = 2
VOCABULARY = 400


@pytest.fixture(scope="module")
def tokens() -> Callable[[str], list[int]]:
    """A text as the sample model's tokenizer has it."""
    from exporter import checkpoint, source
    from exporter.spec import ModelRef

    directory = ROOT / "examples" / "sample-model"
    tokenizer = load(source.files_of(directory), checkpoint.inspect(directory, ModelRef()).config)
    return lambda text: tokenizer(text, add_special_tokens=False)["input_ids"]


@pytest.mark.parametrize(
    "text",
    [
        "The capital of France is Paris, capital of culture, fashion" + ", fashion" * 12,
        "The capital is fashion" + " fashion" * 12,
        "That is a fine question. I am a model." + " I am happy to help." * 4,
        "a\n" * 12,
        "x = x + 1; " * 6,
        "No" + " no" * 20 + ". It ends well.",
    ],
)
def test_repetition_is_seen(text: str, tokens: Callable[[str], list[int]]) -> None:
    assert repeats(tokens(text))


@pytest.mark.parametrize(
    "text",
    [
        "",
        "Paris",
        "The capital of France is Paris.",
        "1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15",
        "one, two, three, four, five, six, seven, eight, nine, ten",
        "1,000,000",
        "It is very, very, very large.",
        "Monday is a day. Tuesday is a day. Wednesday is a day. Thursday is a day. Friday is a day.",
        "Breakfast, lunch and dinner. Breakfast is the first, lunch the second, and dinner the last of them.",
        "Row, row, row your boat, gently down the stream.",
    ],
)
def test_ordinary_text_does_not_repeat(text: str, tokens: Callable[[str], list[int]]) -> None:
    assert not repeats(tokens(text))


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        ([7] * 7, False),
        ([7] * 8, True),
        ([1, 2] * 3 + [1], False),
        ([1, 2] * 4, True),
        ([1, 2, 3, 4, 5, 6, 7, 8] * 3 + [1, 2, 3, 4, 5, 6, 7], False),
        ([1, 2, 3, 4, 5, 6, 7, 8] * 4, True),
        (list(range(9)) * 2 + [0, 1, 2, 3], False),
        (list(range(9)) * 2 + [0, 1, 2, 3, 4], True),
        (list(range(20)) * 2 + list(range(9)), False),
        (list(range(20)) * 2 + list(range(10)), True),
        (list(range(21)) * 4, False),
        (list(range(100, 130)) + [1, 2] * 4 + list(range(200, 210)), True),
    ],
)
def test_the_bounds_of_repetition_are_those_of_the_definition(made: list[int], expected: bool) -> None:
    assert repeats(made) is expected


class Words:
    """Decodes token n as the n-th of ``said``."""

    said: dict[int, str] = {}  # noqa: RUF012 (a default that nobody changes)

    def decode(self, tokens: list[int], skip_special_tokens: bool) -> str:
        assert skip_special_tokens
        return " ".join(self.said.get(token, str(token)) for token in tokens)


def _file(said: dict[int, list[int]], slow: float = 0.0, clock: list[float] | None = None) -> Step:
    """A file that answers the prompt whose last token is ``n`` with ``said[n]``; it checks what it is fed."""
    fed: list[int] = []

    def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        if position[0] == 0:
            fed.clear()
        if clock is not None:
            clock[0] += slow * len(position)
        assert position.tolist() == list(range(len(fed), len(fed) + ids.shape[1]))
        fed.extend(ids[0].tolist())
        out = torch.zeros(ids.shape[1], VOCABULARY)
        asked = next(number for number, token in enumerate(fed) if token in said or number == len(fed) - 1)
        answer = said.get(fed[asked], [])
        given = len(fed) - asked - 1
        out[-1, answer[given] if given < len(answer) else EOS] = 1.0
        return out

    return step


def _questions(said: dict[int, list[int]], room: int = NEW_TOKENS) -> list[Question]:
    return [
        Question(text=f"question {last}?", ids=[5, 6, last], room=room, answer=answer[:room])
        for last, answer in said.items()
    ]


def _measure(step: Step, questions: list[Question], policy: Any = "dynamic", **options: Any) -> answers.Answers:
    given: dict[str, Any] = {"tokenizer": Words(), "eos_ids": (EOS,), "seconds": 60.0, **options}
    return answers.measure(step, policy, questions, **given)


ORIGINAL = {10: [20, 21, 22], 11: [23], 12: [24, 25] * 40, 13: [26, 27, 28, 29], 14: [], 15: [30, 31]}


@pytest.mark.parametrize("policy", ["dynamic", "single"])
def test_the_same_file_says_the_same(policy: Any) -> None:
    calls: list[int] = []
    file = _file(ORIGINAL)

    def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        calls.append(ids.shape[1])
        return file(ids, position)

    found = _measure(step, _questions(ORIGINAL), policy)
    assert (found.total, found.same, found.repeating) == (6, 6, 0)
    assert found.left_out == []
    assert max(calls) == (3 if policy == "dynamic" else 1)


def test_the_worst_are_shown_first() -> None:
    """Repetition is the file's fault only where the original does not repeat too."""
    said = {**ORIGINAL, 11: [23, 9], 12: [24, 25] * 30, 15: [30] + [31, 32] * 40}
    found = _measure(_file(said), _questions(ORIGINAL))
    assert (found.total, found.same, found.repeating) == (6, 4, 1)
    assert len(found.shown) == SHOWN
    assert [(one.prompt, one.same, one.repeats) for one in found.shown] == [
        ("question 15?", False, True),
        ("question 11?", False, False),
        ("question 10?", True, False),
        ("question 12?", True, False),
    ]
    assert (found.shown[1].original, found.shown[1].file) == ("23", "23 9")


def test_an_answer_ends_where_the_room_ends() -> None:
    found = _measure(_file({10: list(range(20, 120))}), _questions({10: list(range(20, 120))}, room=7))
    assert found.same == 1
    assert found.shown[0].file == "20 21 22 23 24 25 26"


@pytest.mark.parametrize("policy", ["dynamic", "single"])
def test_a_slow_file_answers_fewer_and_says_so(policy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(time, "perf_counter", lambda: clock[0])
    # 3 + 3 tokens for the first, 3 + 1 for the second, and the third does not end in time.
    found = _measure(_file(ORIGINAL, 1.0, clock), _questions(ORIGINAL), policy, seconds=15.0)
    assert (found.total, found.same) == (2, 2)
    assert found.left_out == ["answers: 2 of 6 questions, 15 s were left"]
    none = _measure(_file(ORIGINAL, 1.0, clock), _questions(ORIGINAL), policy, seconds=-3.0)
    assert (none.total, none.shown) == (0, [])
    assert none.left_out == ["answers: 0 of 6 questions, 0 s were left"]


def test_text_of_a_model_is_one_short_line_of_printable_characters() -> None:
    tokenizer = Words()
    tokenizer.said = {20: "a\nb\t\x1b[31mred\x00\u202eevil\u2028", 21: "x" * 500}
    found = _measure(_file(ORIGINAL), _questions(ORIGINAL), tokenizer=tokenizer).shown[0]
    assert found.file.startswith("a b ?[31mred??evil ")
    assert found.file.endswith("...")
    assert len(found.file) == 300
    assert found.file.isprintable()


def test_a_tokenizer_that_cannot_decode_spoils_words_alone() -> None:
    class Broken:
        def decode(self, *given: Any, **options: Any) -> str:
            raise KeyError("no such piece")

    found = _measure(_file(ORIGINAL), _questions(ORIGINAL), tokenizer=Broken())
    assert found.same == 6
    assert "cannot decode" in found.shown[0].file


def test_logits_that_are_no_numbers_are_an_answer_all_the_same() -> None:
    file = _file(ORIGINAL)
    found = _measure(lambda ids, position: file(ids, position) * torch.nan, _questions(ORIGINAL))
    assert found.total == 6
    assert found.same < 6


def test_no_questions() -> None:
    assert _measure(_file(ORIGINAL), []) == answers.Answers()
