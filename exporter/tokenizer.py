"""The model's own tokenizer, loaded from a hostile directory.

Goes in: the directory's files. Comes out: a transformers tokenizer that encodes text into the model's
vocabulary; or a refusal. Stage 3 of the way of one request.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from transformers import AutoTokenizer, PreTrainedConfig, PreTrainedTokenizerBase

from exporter.errors import InvalidModelDirectory, MissingTokenizer, RemoteCodeRequired
from exporter.guard import guarded, quiet
from exporter.source import read_json

VOCABULARIES = (
    *("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tekken.json"),
    *("spiece.model", "sentencepiece.bpe.model", "tiktoken.model"),
)
"""Files that hold a vocabulary; one of them is needed."""
_OTHERS = (
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
)
LARGEST = 256 << 20
"""Bytes of one tokenizer file; the largest in use have some 35 million."""
_SAMPLE = "The year 2024: 17 × 3 = 51, naïve café — 你好 🙂\n"


def names(files: dict[str, Path]) -> list[str]:
    """The tokenizer's files among the directory's."""
    return [name for name in (*VOCABULARIES, *_OTHERS) if name in files]


def load(files: dict[str, Path], config: PreTrainedConfig) -> PreTrainedTokenizerBase:
    """The tokenizer, from copies of its own files with nothing in its settings that names code or other files.

    Args:
        files: the directory's files by name.
        config: of the model: its type tells which tokenizer class is meant where the settings do not.

    Raises:
        MissingTokenizer: there is none, or it cannot be read.
        RemoteCodeRequired: its settings ask for code from the repository.
    """
    if not any(name in files for name in VOCABULARIES):
        raise MissingTokenizer(f"The directory has none of {', '.join(VOCABULARIES)}.")
    settings: dict[str, Any] = {}
    if "tokenizer_config.json" in files:
        try:
            settings = read_json(files["tokenizer_config.json"])
        except InvalidModelDirectory as error:
            raise MissingTokenizer(error.what) from None
    if settings.get("auto_map"):
        raise RemoteCodeRequired("tokenizer_config.json has an auto_map: it asks to run code from the repository.")
    for name in names(files):
        if files[name].stat().st_size > LARGEST:
            raise MissingTokenizer(f"{name} is larger than {LARGEST >> 20} MiB.")
    clean = {key: value for key, value in settings.items() if _harmless(key)}
    with guarded(MissingTokenizer, "The tokenizer cannot be read"), quiet(), TemporaryDirectory() as stage:
        for name in names(files):
            shutil.copyfile(files[name], Path(stage, name))
        Path(stage, "tokenizer_config.json").write_text(json.dumps(clean), encoding="utf-8")
        tokenizer = AutoTokenizer.from_pretrained(stage, config=config, local_files_only=True, trust_remote_code=False)
        tokenizer.name_or_path = ""
        return tokenizer


def _harmless(key: str) -> bool:
    # Paths of the machine that saved it, and names of other files that would be opened as they stand.
    return not key.startswith("_") and not key.endswith(("_file", "_files", "_path", "_object", "_map", "init_inputs"))


def check(tokenizer: PreTrainedTokenizerBase, vocab_size: int) -> None:
    """Encode a little text.

    Raises:
        MissingTokenizer: nothing comes out, or tokens that the model has no embedding for.
    """
    with guarded(MissingTokenizer, "The tokenizer encodes no text"), quiet():
        ids = tokenizer(_SAMPLE, add_special_tokens=False)["input_ids"]
        if not ids or set(ids) == {tokenizer.unk_token_id}:
            raise MissingTokenizer("The tokenizer knows no token of ordinary text.")
        if max(ids) >= vocab_size:
            raise MissingTokenizer(f"The tokenizer gives token {max(ids)}; the model has {vocab_size} embeddings.")
