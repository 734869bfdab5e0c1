"""Cards taken apart and made safe: front matter, tags, links, and the blocks of a rendered diff."""

from __future__ import annotations

import time

import pytest

from bot.localhub.markdown import Card, blocks, parse_card, render, rendered_diff, tags


@pytest.mark.parametrize(
    ("text", "data", "body"),
    [
        ("# plain", {}, "# plain"),
        ("---\na: 1\n---\nbody", {"a": 1}, "body"),
        ("---\r\na: 1\r\n---\r\nbody", {"a": 1}, "body"),
        ("---\n---\nbody", {}, "body"),
        ("\ufeff---\na: 1\n---\nbody", {"a": 1}, "body"),
        ("---\na: 1\n---", {"a": 1}, ""),
        ("---\nnever closed", {}, "---\nnever closed"),
        ("\n---\na: 1\n---\n", {}, "\n---\na: 1\n---\n"),
    ],
)
def test_front_matter(text: str, data: dict, body: str) -> None:
    card = parse_card(text)
    assert (card.data, card.body, card.error) == (data, body, "")


@pytest.mark.parametrize(
    "front",
    ["a: [", "- a\n- b", "just text", "a: !!python/object/apply:os.system [id]", "a: &x 1\nb: *x", "\t: x", "a: \x00",
     "x" * 300_000, "? " * 3000],
)  # fmt: skip
def test_bad_front_matter_is_reported_not_raised(front: str) -> None:
    card = parse_card(f"---\n{front}\n---\nbody")
    assert card.error
    assert (card.data, card.body) == ({}, "body")


def test_a_small_card_cannot_unfold_into_a_huge_one() -> None:
    lines = ["a: &a [x,x,x,x,x,x,x,x,x]"] + [
        f"{c}: &{c} [{','.join(['*' + p] * 9)}]" for p, c in zip("abcdefg", "bcdefgh", strict=True)
    ]
    start = time.process_time()
    assert "aliases" in parse_card("---\n" + "\n".join(lines) + "\n---\n").error
    assert time.process_time() - start < 1


def test_tags_of_odd_metadata() -> None:
    data = {"tags": ["a", 5, None, {"x": 1}, "a", ["b"]], "language": "en", "license": ["mit"], "pipeline_tag": 3}
    assert tags(data) == ["a", "5", "en", "license:mit"]
    assert tags({"tags": "single", "pipeline_tag": "text-generation"}) == ["single", "text-generation"]


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("[a](b/c.md)", 'href="/o/r/resolve/main/b/c.md"'),
        ("[a](./b.md)", 'href="/o/r/resolve/main/b.md"'),
        ("[a](https://x.org/y)", 'href="https://x.org/y"'),
        ("[a](#part)", 'href="#part"'),
        ("[a](../../x)", 'href="#"'),
        ("[a](/api/x)", 'href="#"'),
        ("[a](//evil/x)", "evil/x"),
        ("![a](i.png)", 'src="/o/r/resolve/main/i.png"'),
        ("![a](data:image/png;base64,AA)", "<img"),
    ],
)
def test_links(source: str, expected: str) -> None:
    html = render(source, "/o/r/resolve/main/")
    assert expected in html
    assert "data:" not in html


def test_code_stays_code() -> None:
    html = render("```html\n<script>alert('x')</script>\n```\n")
    assert "&lt;script&gt;" in html
    assert "<script" not in html


@pytest.mark.parametrize(
    "text", ["[" * 20_000, "> " * 5000 + "x", "*a " * 20_000, "<a" * 20_000, "|" * 20_000, "`" * 20_001]
)
def test_hostile_text_does_not_take_forever(text: str) -> None:
    start = time.process_time()
    render(text)
    assert time.process_time() - start < 5


def test_blocks_cover_the_whole_text() -> None:
    text = "# a\n\npara one\npara two\n\n- x\n- y\n\n```\ncode\n\nmore\n```\n\n| a |\n|---|\n| b |\n"
    found = blocks(text)
    assert [block.split("\n")[0] for block in found] == ["# a", "para one", "- x", "```", "| a |"]


def test_a_rendered_diff_shows_what_changed_and_cuts_the_rest() -> None:
    old = "\n\n".join(f"paragraph {number}" for number in range(10))
    new = old.replace("paragraph 4", "paragraph four") + "\n\nlast"
    kinds = [block.kind for block in rendered_diff(old, new)]
    assert kinds == ["gap", "same", "removed", "added", "same", "gap", "same", "added"]
    assert rendered_diff(old, old)[0].kind == "gap"
    assert rendered_diff("", "") == []
    assert [block.kind for block in rendered_diff("", "a")] == ["added"]


def test_a_card_without_metadata_is_a_card() -> None:
    assert parse_card("") == Card("", {}, "", "")
