"""The configuration's page has every key and no other, and its examples are files that ptebot takes."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from bot import config
from bot.config import Config, Model

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "action" / "configuration.md").read_text(encoding="utf-8")
EXAMPLES = re.findall(r"^```yaml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


def test_every_key_is_told() -> None:
    keys = {field.alias or name for kind in (Config, Model) for name, field in kind.model_fields.items()}
    assert set(re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE)) == keys


@pytest.mark.parametrize("text", EXAMPLES)
def test_examples_are_valid(text: str, tmp_path: Path) -> None:
    path = tmp_path / ".ptebot.yml"
    path.write_text(text, encoding="utf-8")
    assert config.load(path, required=True).all_models()


def test_the_example_names_the_schema() -> None:
    named = re.search(r"\$schema=https://raw\.githubusercontent\.com/ptebot/ptebot/main/(\S+)", EXAMPLES[0])
    assert named is not None
    assert (ROOT / named[1]).exists()
