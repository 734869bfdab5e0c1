"""The page about comment commands is held to the grammar that it describes."""

from __future__ import annotations

import re
from pathlib import Path

from bot.triggers import comments, values
from bot.triggers.comments import parse

PAGE = (Path(__file__).parents[3] / "docs" / "action" / "comment-commands.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```text\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)


def test_the_grammar_and_its_words_are_the_code_s() -> None:
    assert BLOCKS[0] == comments.GRAMMAR
    explained = re.search(r"<!-- explained -->\n(.*?)<!-- end -->", PAGE, re.DOTALL)
    assert explained is not None and explained[1] == comments.EXPLAINED
    assert f"{comments.MOST_CHARACTERS:,} characters" in PAGE


def test_every_example_is_a_command() -> None:
    examples = BLOCKS[1].splitlines()
    used: set[str] = set()
    for example in examples:
        found = parse(example)
        assert found is not None and found.problem is None, example
        used |= {values.KEYS[name].field for name in re.findall(r"([a-z-]+)=", example)}
    assert used == {key.field for key in values.KEYS.values()}, "each setting is shown"


def test_what_the_page_says_of_odd_commands() -> None:
    assert parse("/ptebot") == parse("/ptebot help")
    for comment in (" /ptebot help", "> /ptebot help", "/Ptebot help", "/ptebothelp"):
        assert parse(comment) is None
