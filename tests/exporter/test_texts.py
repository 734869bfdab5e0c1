"""The texts that files are verified on: what they are cut to, and templates and tokenizers that misbehave."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import checkpoint, texts
from exporter.errors import MissingTokenizer
from exporter.spec import ModelRef
from exporter.texts import chat
from tests.exporter.conftest import ModelCopy
from tests.exporter.models import VOCABULARY

NAMES = ["prose", "chat", "code", "scripts"]


@pytest.fixture
def tokenizer(_models: Callable[..., Path]) -> Any:
    found = checkpoint.load_tokenizer(checkpoint.inspect(_models("llama"), ModelRef()))
    found.chat_template = str(found.chat_template)
    return found


@pytest.mark.parametrize("context", [2, 16, 64, 96, 97, 2048])
def test_texts_fit_into_the_context(context: int, tokenizer: Any) -> None:
    short = texts.short_texts(tokenizer, context, VOCABULARY)
    assert [text.name for text in short] == NAMES
    for text in (*short, end := texts.context_end_text(tokenizer, context, VOCABULARY)):
        assert text.ids.dtype == torch.int64
        assert text.ids.shape[0] == 1
        assert 2 <= text.ids.shape[1] <= context
        assert 0 <= int(text.ids.min()) <= int(text.ids.max()) < VOCABULARY
        assert len(text.sha256) == 64
    assert all(text.ids.shape[1] <= texts.MAX_TOKENS for text in short)
    assert end.ids.shape[1] == context, "the last position is reached"
    assert len({text.sha256 for text in (*short, end)}) == 5


def test_the_texts_are_of_different_kinds(tokenizer: Any) -> None:
    assert "def " in texts.read("code")
    assert not texts.read("scripts").isascii()
    assert texts.read("prose").isascii()
    assert len(texts.read("prose").split()) > 200, "enough for a context's end that is not mere repetition"
    first = {text.name: tokenizer.decode(text.ids[0]) for text in texts.short_texts(tokenizer, 512)}
    assert first["prose"][:30] == texts.read("prose")[:30]
    assert first["chat"].startswith("<|im_start|>user\nWhy do lakes freeze")


def test_the_chat_prompt_ends_where_the_answer_begins(tokenizer: Any) -> None:
    assert (chat.prompt(tokenizer) or "").endswith("<|im_end|>\n<|im_start|>assistant\n")


def test_a_model_without_a_chat_template_has_no_chat_text(tokenizer: Any) -> None:
    tokenizer.chat_template = None
    assert [text.name for text in texts.short_texts(tokenizer, 64)] == ["prose", "code", "scripts"]


@pytest.mark.parametrize("context", [2, 64, 384, 2048])
def test_what_quality_is_judged_on(context: int, tokenizer: Any) -> None:
    own = ["Word after word of the owner's. " * 100, "Another file. " * 100]
    found = texts.evaluation(tokenizer, context, VOCABULARY, own)
    assert [text.name for text in found] == ["docs 1", "docs 2", "code 1", "code 2", "own 1", "own 2"]
    assert [text.kind for text in found] == ["docs", "docs", "code", "code", "own", "own"]
    for text in found:
        assert text.ids.dtype == torch.int64
        assert text.ids.shape == (1, min(context, texts.EVALUATION_TOKENS)), "long enough for any context"
    assert len({text.sha256 for text in found}) == 6
    assert all(text.kind == "parity" for text in texts.short_texts(tokenizer, context))


def test_built_in_texts_are_long_enough_for_tokens_of_five_letters() -> None:
    for kind in ("docs", "code"):
        for number in (1, 2):
            # Large vocabularies have about that many characters to a token.
            assert len(texts.read(f"evaluation/{kind}_{number}")) > texts.EVALUATION_TOKENS * 5


def test_of_the_owners_texts_four_are_judged_on_and_useless_ones_left_out(tokenizer: Any) -> None:
    own = ["", "x", *(f"{number} is the number of this text. " * 50 for number in range(6))]
    found = [text for text in texts.evaluation(tokenizer, 64, VOCABULARY, own) if text.kind == "own"]
    assert [text.name for text in found] == ["own 1", "own 2", "own 3", "own 4"]
    assert tokenizer.decode(found[0].ids[0]).startswith("0 is the number")


def test_a_long_text_of_the_owners_is_not_read_to_its_end(tokenizer: Any) -> None:
    asked: list[int] = []

    class Counting:
        def __call__(self, text: str, **options: Any) -> Any:
            asked.append(len(text))
            return tokenizer(text, **options)

    texts.evaluation(Counting(), 64, VOCABULARY, ["word " * 1_000_000])
    assert max(asked) < 20_000


def test_prompts_and_questions() -> None:
    assert texts.questions()[0] == "What is the capital of France? Answer in one sentence."
    assert len(texts.questions()) == 12
    assert len(texts.evaluation_prompts()) == 4
    prompts = texts.calibration_prompts()
    assert len(prompts) >= 40
    assert 0.4 < sum(prompt.isascii() for prompt in prompts) / len(prompts) < 0.7, "English and others"
    lines = [*prompts, *texts.evaluation_prompts(), *texts.questions()]
    assert len(set(lines)) == len(lines)
    assert all(line == line.strip() and line for line in lines)


def test_many_prompts_through_the_template(tokenizer: Any) -> None:
    found = chat.prompts(tokenizer, ["one", "two", "drei äöü"])
    assert found == [
        f"<|im_start|>user\n{said}<|im_end|>\n<|im_start|>assistant\n" for said in ("one", "two", "drei äöü")
    ]
    assert chat.prompt(tokenizer, "one") == found[0]
    assert chat.prompts(tokenizer, []) is None


def test_a_template_that_fails_on_one_prompt_gives_none(tokenizer: Any, caplog: pytest.LogCaptureFixture) -> None:
    tokenizer.chat_template = "{% if messages[0]['content'] == 'two' %}{{ 1 / 0 }}{% endif %}prompt"
    assert chat.prompts(tokenizer, ["one", "three"]) == ["prompt", "prompt"]
    assert chat.prompts(tokenizer, ["one", "two"]) is None
    tokenizer.chat_template = "{% if messages[0]['content'] == 'two' %}{{ 'x' * 200000 }}{% endif %}prompt"
    assert chat.prompts(tokenizer, ["two", "one"]) is None
    assert "a prompt of 200006 characters" in caplog.text
    tokenizer.chat_template = "{% if messages[0]['content'] == 'one' %}prompt{% endif %}"
    assert chat.prompts(tokenizer, ["one", "two"]) is None
    assert "it gives nothing" in caplog.text


def test_a_prompt_is_the_same_on_any_day(tokenizer: Any) -> None:
    tokenizer.chat_template = "Today is {{ strftime_now('%d %b %Y') }}. {{ messages[0]['content'] }}"
    assert chat.prompt(tokenizer, "Hello") == "Today is 01 Jan 2025. Hello"


HOSTILE = {
    "raises": "{{ raise_exception('no user may speak here') }}",
    "divides by zero": "{{ 1 / 0 }}",
    "is no template": "{% for message in %}",
    "gives nothing": "",
    "gives a space for nothing": "{{ '' }}",
    "names what is not there": "{{ messages[7]['content'].upper() }}",
    "looks for the interpreter": "{{ ''.__class__.__mro__[1].__subclasses__() }}",
    "calls itself": "{% macro again() %}{{ again() }}{% endmacro %}{{ again() }}",
    "gives ten megabytes": "{% for a in range(10000) %}{{ 'x' * 1000 }}{% endfor %}",
    "takes all memory": "{% set s = namespace(x='xxxxxxxx' * 1000000) %}"
    "{% for a in range(60) %}{% set s.x = s.x ~ s.x %}{% endfor %}{{ s.x | length }}",
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_template_that_misbehaves_costs_the_chat_text_only(
    name: str, tokenizer: Any, caplog: pytest.LogCaptureFixture
) -> None:
    tokenizer.chat_template = HOSTILE[name]
    assert [text.name for text in texts.short_texts(tokenizer, 64, VOCABULARY)] == ["prose", "code", "scripts"]
    if HOSTILE[name]:
        assert "No chat text" in caplog.text


def test_an_endless_template_is_ended(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chat, "CPU_SECONDS", 1)
    tokenizer.chat_template = "{% for a in range(90000) %}{% for b in range(90000) %}{% endfor %}{% endfor %}"
    started = os.times().children_user + time.process_time()
    assert chat.prompt(tokenizer) is None
    assert os.times().children_user + time.process_time() - started < 4


def test_a_template_that_waits_is_ended(tokenizer: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Time that passes without work counts too."""
    monkeypatch.setattr(chat, "_WALL_SECONDS", 0.5)
    monkeypatch.setattr(type(tokenizer), "apply_chat_template", lambda *a, **k: time.sleep(60))
    started = time.monotonic()
    assert chat.prompt(tokenizer) is None
    assert time.monotonic() - started < 30


def test_a_template_in_the_model_directory_does_not_break_the_reading(model_copy: ModelCopy) -> None:
    """As it arrives: in tokenizer_config.json, and as a file of its own."""
    directory = model_copy()
    settings = json.loads((directory / "tokenizer_config.json").read_text())
    settings["chat_template"] = HOSTILE["raises"]
    (directory / "tokenizer_config.json").write_text(json.dumps(settings))
    (directory / "chat_template.jinja").write_text(HOSTILE["raises"])
    found = checkpoint.load_tokenizer(checkpoint.inspect(directory, ModelRef()))
    assert found.chat_template
    assert [text.name for text in texts.short_texts(found, 64)] == ["prose", "code", "scripts"]


def test_lone_surrogates_of_a_template_are_no_end(tokenizer: Any) -> None:
    tokenizer.chat_template = "a \ud800 b"
    assert chat.prompt(tokenizer) == "a ? b"


def test_a_token_that_the_model_does_not_have_costs_the_chat_text(tokenizer: Any) -> None:
    """Templates name tokens that were added to the tokenizer and never to the model."""
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    extra = tokenizer.convert_tokens_to_ids("<|tool|>")
    tokenizer.chat_template = "<|tool|>" + tokenizer.chat_template
    names = [text.name for text in texts.short_texts(tokenizer, 64, vocab_size=extra)]
    assert names == ["prose", "code", "scripts"]
    assert [text.name for text in texts.short_texts(tokenizer, 64, vocab_size=extra + 1)] == NAMES


class _Odd:
    """A tokenizer in name."""

    chat_template = None

    def __init__(self, answer: Callable[[str], Any]) -> None:
        self.answer = answer

    def __call__(self, text: str, add_special_tokens: bool = True) -> dict[str, Any]:
        return {"input_ids": self.answer(text)}


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (lambda text: [], "0 tokens"),
        (lambda text: [5], "1 tokens"),
        (lambda text: [1, 2, 999], "token 999; the model has 384"),
        (lambda text: 1 / 0, "fails on ordinary text: division by zero"),
        (lambda text: ["a", "b"], "fails on ordinary text"),
    ],
)
def test_a_tokenizer_that_does_not_do_is_refused(answer: Callable[[str], Any], said: str) -> None:
    with pytest.raises(MissingTokenizer, match=said):
        texts.short_texts(_Odd(answer), 64, VOCABULARY)


def test_a_tokenizer_that_gives_nothing_does_not_loop_for_ever() -> None:
    with pytest.raises(MissingTokenizer):
        texts.context_end_text(_Odd(lambda text: []), 64)
