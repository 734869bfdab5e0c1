"""Text of unknown origin shows as itself: no markup, no HTML, no mention, no second line."""

from __future__ import annotations

import html
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bot.publish import markdown

GFM = MarkdownIt("gfm-like", {"linkify": False})
HOSTILE = [
    "<script>alert(1)</script>",
    "[click](javascript:alert(1))",
    "![x](http://evil.example/pixel.png)",
    "`code` and *stars* and __bold__ and ~~gone~~",
    "a | b | c",
    "one\n\n# Title\n\n| x |",
    "<!-- ptebot:end -->",
    "@everyone see #1 and $$x$$",
    "http://evil.example and www.evil.example",
    "&lt;b&gt; \\*",
    "- item",
    "1. item",
    "===",
    "\u202egnp.exe\u200b\x1b[31m\x00",
]


@pytest.mark.parametrize("value", HOSTILE)
def test_hostile_text_is_inert(value: str) -> None:
    rendered = GFM.render(markdown.text(value))
    assert re.fullmatch(r"<p>[^<]*</p>\n", rendered), rendered
    assert _seen(rendered[3:-5]) == markdown.one_line(value)
    source = markdown.text(value)
    assert "://" not in source and "www." not in source and "@" not in source
    assert "|" not in source and "<" not in source and "\n" not in source


def _seen(rendered: str) -> str:
    """What a reader sees of it; zero-width spaces are ours, for ``one_line`` takes out all others."""
    return html.unescape(re.sub(r"</?code>", "", rendered)).replace("\u200b", "")


@pytest.mark.parametrize(
    ("value", "wanted"),
    [
        ("@octocat", r"@\u200boctocat"),
        ("fixes #1", r"fixes #\u200b1"),
        ("acme/tiny#12", r"acme/tiny#\u200b12"),
        ("Closes GH-7 and gh-8", r"Closes GH-\u200b7 and gh-\u200b8"),
        ("resolves https://github.com/acme/tiny/issues/1", r"resolves https:\u200b//github.com/acme/tiny/issues/1"),
        ("acme/tiny@1234567", r"acme/tiny@\u200b<code>1234567</code>"),
        ("see deadbeef0, " + "a" * 40, rf"see <code>deadbeef0</code>, <code>{'a' * 40}</code>"),
        ("sha 0123456789abcdefg and abcdef", "sha 0123456789abcdefg and abcdef"),
    ],
)
def test_github_finds_no_reference_once_entities_are_resolved(value: str, wanted: str) -> None:
    """github.com/gjtorikian/html-pipeline: mentions and references are looked for in the text of rendered HTML."""
    rendered = GFM.render(markdown.text(value))
    assert html.unescape(rendered) == f"<p>{wanted}</p>\n".replace(r"\u200b", "\u200b")


@settings(max_examples=150, deadline=None, derandomize=True)
@given(st.text(max_size=60))
def test_any_text_renders_as_itself_in_a_table(value: str) -> None:
    table = markdown.table(["a", "b"], [[markdown.text(value), markdown.code(value)]])
    rendered = GFM.render(f"{table}\n")
    cells = re.findall(r"<td>(.*?)</td>", rendered, re.DOTALL)
    assert len(cells) == 2, rendered
    shown = [_seen(cell) for cell in cells]
    assert shown == [markdown.one_line(value).strip()] * 2


def test_a_long_text_is_cut() -> None:
    assert markdown.text("x" * 500) == "x" * 399 + "…"


def test_a_name_stays_readable() -> None:
    assert markdown.text("tiny_model 1.5.1 (8da4w, x86-64): ok") == "tiny_model 1.5.1 (8da4w, x86-64): ok"
    assert markdown.code("aten::add.out") == "`aten::add.out`"
    assert markdown.code("a`b") == "a&#96;b"


def test_links_lead_to_plain_paths_only() -> None:
    assert markdown.link("a.pte", "executorch/x/a.pte") == "[`a.pte`](executorch/x/a.pte)"
    for target in ("../a", "a/../b", "/a", "a b", "javascript:x", "a)b", "a//b", "./a", "https://x/y", ""):
        assert "](" not in markdown.link("a", target)


def test_a_code_block_cannot_be_closed_from_inside() -> None:
    source = "echo ```\n```\n# not a title\x1b[0m"
    rendered = MarkdownIt("commonmark").render(markdown.block(source, "sh"))
    assert rendered.startswith('<pre><code class="language-sh">') and rendered.count("<pre>") == 1
    assert "<h1>" not in rendered and "\x1b" not in rendered
