"""Tokenizers that are missing, broken or ask for what they must not have."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import Tokenizer, models, pre_tokenizers

from exporter import checkpoint
from exporter.errors import MissingTokenizer, PtebotError, RemoteCodeRequired
from exporter.spec import ModelRef
from tests.exporter.conftest import ModelCopy


def _refusal(directory: Path) -> PtebotError:
    with pytest.raises(PtebotError) as caught:
        checkpoint.inspect(directory, ModelRef())
    assert caught.value.what.isprintable()
    return caught.value


def _settings(directory: Path, **changes: Any) -> None:
    path = directory / "tokenizer_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_no_tokenizer(model_copy: ModelCopy) -> None:
    directory = model_copy()
    (directory / "tokenizer.json").unlink()
    error = _refusal(directory)
    assert type(error) is MissingTokenizer
    assert "tokenizer.json" in error.what


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[]",
        b"not json",
        b'{"version": "1.0", "model": {"type": "BPE", "vocab": {"a": 1}, "merges": ["a b"]}}',
        b'{"version": "9", "model": {"type": "Other"}}',
        b'{"model": {"type": "WordLevel", "vocab": {}, "unk_token": "x"}, "added_tokens": 5}',
        b"version https://git-lfs.github.com/spec/v1\n",
        b"\x00" * 100,
    ],
)
def test_a_tokenizer_that_cannot_be_read(text: bytes, model_copy: ModelCopy) -> None:
    directory = model_copy()
    (directory / "tokenizer.json").write_bytes(text)
    assert type(_refusal(directory)) is MissingTokenizer


@pytest.mark.parametrize("text", ["", "[]", "{", '{"extra_special_tokens": 7}', '{"added_tokens_decoder": {"x": 1}}'])
def test_settings_that_cannot_be_read(text: str, model_copy: ModelCopy) -> None:
    directory = model_copy()
    (directory / "tokenizer_config.json").write_text(text)
    assert type(_refusal(directory)) is MissingTokenizer


def test_a_tokenizer_alone_is_enough(model_copy: ModelCopy) -> None:
    directory = model_copy()
    for name in ("tokenizer_config.json", "chat_template.jinja"):
        (directory / name).unlink()
    words = checkpoint.load_tokenizer(checkpoint.inspect(directory, ModelRef()))
    assert words.decode(words("Ünïcode text").input_ids) == "Ünïcode text"


@pytest.mark.parametrize("auto_map", [{"AutoTokenizer": ["tokenization_x.X", None]}, ["tokenization_x.X", None]])
def test_own_code_is_refused(auto_map: Any, model_copy: ModelCopy) -> None:
    directory = model_copy()
    (directory / "tokenization_x.py").write_text("raise SystemExit('ran')")
    _settings(directory, auto_map=auto_map)
    assert type(_refusal(directory)) is RemoteCodeRequired


def test_files_elsewhere_are_not_opened(model_copy: ModelCopy, tmp_path: Path) -> None:
    other = Tokenizer(models.WordLevel({"elsewhere": 0}, unk_token="elsewhere"))
    other.pre_tokenizer = pre_tokenizers.Whitespace()
    other.save(str(tmp_path / "other.json"))
    directory = model_copy()
    _settings(
        directory,
        tokenizer_file=str(tmp_path / "other.json"),
        vocab_file=str(tmp_path / "other.json"),
        fast_tokenizer_files=["../other.json", "tokenizer.0.0.1.json"],
        name_or_path=str(tmp_path),
        init_inputs=[str(tmp_path / "other.json")],
    )
    ckpt = checkpoint.inspect(directory, ModelRef())
    words = checkpoint.load_tokenizer(ckpt)
    assert len(words) == 384
    assert str(tmp_path) not in json.dumps(words.init_kwargs, default=str)
    (directory / "tokenizer.json").unlink()
    assert type(_refusal(directory)) is MissingTokenizer


def test_a_tokenizer_of_another_model(model_copy: ModelCopy) -> None:
    directory = model_copy()
    other = json.loads((directory / "tokenizer.json").read_text())
    vocab = other["model"]["vocab"]
    vocab.update({token: number + 1000 for token, number in vocab.items()})
    (directory / "tokenizer.json").write_text(json.dumps(other))
    error = _refusal(directory)
    assert type(error) is MissingTokenizer
    assert "384 embeddings" in error.what


def test_a_tokenizer_without_words(model_copy: ModelCopy) -> None:
    directory = model_copy()
    Tokenizer(models.WordLevel({"[UNK]": 0}, unk_token="[UNK]")).save(str(directory / "tokenizer.json"))
    (directory / "tokenizer_config.json").write_text('{"unk_token": "[UNK]"}')
    assert type(_refusal(directory)) is MissingTokenizer
