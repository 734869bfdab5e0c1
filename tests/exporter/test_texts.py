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
