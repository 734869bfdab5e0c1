"""Job summaries: what a maintainer reads, and nothing that a model, an event or a service could make of it."""

from __future__ import annotations

import html
import re
from collections import Counter
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from markdown_it import MarkdownIt

from bot.action import summary
from bot.action.matrix import MOST_ROWS, Speed, prose
from bot.action.status import broken, ignored, judge
from bot.action.summary import LIMIT, Story, render, write
from bot.publish.loop import Preview, Published
from exporter.errors import NotACausalLM
from exporter.report import Report, Status
from tests.bot.action.mermaid import diagrams, drawn
from tests.bot.reports import cell, failed, parity, report

GFM = MarkdownIt("gfm-like", {"linkify": False, "html": True})
URL = "https://huggingface.co/acme/tiny/discussions/3"
ALLOWED = {"h2", "h3", "p", "strong", "em", "code", "pre", "a", "table", "thead", "tbody", "tr", "th", "td"}
ALLOWED |= {"ul", "li", "br", "sub", "blockquote", "details", "summary"}
PREVIEW = Preview(
    title="Add ExecuTorch files",
    description="Words\n```sh\nls\n```\n</details>\n# Title\n",
    card_diff="--- README.md\n+++ README.md\n+\tnew ``` ````\n+# @octocat #1\n",
    files=[("executorch/xnnpack/tiny.pte", 5100), ("old.pte", None)],
)
EVIL = [
    "<script>alert(1)</script>",
    "</td></tr></table><img src=x onerror=alert(1)>",
    "[click](https://evil.example)",
    "![x](https://evil.example/pixel.png)",
    "@octocat and #1 and acme/tiny#2 and me@evil.example",
    "https://evil.example www.evil.example",
    "a | b | c",
    "one\n\n# Title\n\n> [!NOTE]\n> x",
    "```\n# out\n```mermaid\nx\n```",
    "</details></sub>",
    "`code` `@octocat` `` ` `` `<b>`",
    "**bold** __bold__ ~~gone~~ <!-- hidden",
    "\u202e\u200b\x1b[31m&#64;octocat &amp;",
]
evil = st.one_of(st.sampled_from(EVIL), st.text(max_size=30), st.text("`@#<>[]()|*_&;-\n a1", max_size=30))


class Page(HTMLParser):
    """The tags, the links and the visible text of a rendered summary, code aside."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.links: list[str | None] = []
        self.prose: list[str] = []
        self._code = 0
        self.feed(GFM.render(source))
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self._code += tag == "code"
        if tag == "a":
            self.links.append(dict(attrs).get("href"))
        else:
            self.attributes += [pair for pair in attrs if not (tag == "code" and pair[0] == "class")]

    def handle_endtag(self, tag: str) -> None:
        self._code -= tag == "code"

    def handle_data(self, data: str) -> None:
        if not self._code:
            self.prose.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment hides {data!r}")

    @property
    def text(self) -> str:
        return "".join(self.prose)


def story(text: str, **fields: Any) -> Story:
    """A story with ``text`` wherever something from outside stands."""
    one = report(
        [
            cell(text or "x", "8da4w", content=b"x", verdict="damaged", notes=[text, text]),
            cell("xnnpack", text or "x", content=b"x"),
            failed("openvino", text or "x", failed_stage=text, reason=text, parity=parity("fp32", passed=False)),
            failed(text or "x", status=Status.SKIPPED, reason=text),
        ],
        revision=text,
        toolchain={text: text},
        generator=text,
    )
    preview = Preview(title=text, description=text, card_diff=text, files=[(text, 1)])
    base: dict[str, Any] = {
        "ended": judge(one, "any"),
        "subject": text,
        "why": text,
        "report": one,
        "published": Published(operation="created", pr_url=URL, pr_num=3, reason=text, preview=preview),
        "notices": (text,),
        "output": text,
        "error": NotACausalLM(text, remedy=text),
    }
    return Story(**(base | fields))


@settings(deadline=None, max_examples=60)
@given(text=evil)
def test_hostile_text_is_shown_and_nothing_else(text: str) -> None:
    page = Page(render(story(text)))
    assert {*page.tags} <= ALLOWED
    assert page.attributes == [] and {*page.links} <= {URL}
    assert not re.search(r"@[\w-]|#\d|\w@\w|https?://", page.text), page.text
    counted, plain = Counter(page.tags), Counter(Page(render(story("plain"))).tags)
    assert counted["tr"] == plain["tr"] and counted["td"] == plain["td"]
    assert counted["pre"] <= plain["pre"] and counted["details"] <= plain["details"], "blocks are ours"


@pytest.mark.parametrize("text", EVIL)
def test_known_attacks(text: str) -> None:
    for one in (story(text), story(text, report=None), story(text, error=ValueError(text)), story(text, ignored=text)):
        page = Page(render(one))
        assert {*page.tags} <= ALLOWED and {*page.links} <= {URL}
        assert "octocat" not in re.findall(r"@(\w+)", page.text)


def test_a_published_export() -> None:
    one = report(
        [cell("portable"), cell("xnnpack", "8da4w", verdict="damaged"), failed(parity=parity("fp32", passed=False))]
    )
    published = Published(operation="created", pr_url=URL, pr_num=3)
    speeds = {("xnnpack", "8da4w"): Speed(prefill=1012.34, decode=91.2)}
    text = render(
        Story(
            ended=judge(one, "all"),
            subject="acme/tiny",
            why="push to main",
            report=one,
            published=published,
            output="ptebot-out",
            speeds=speeds,
        )
    )
    assert text.startswith("## ⚠️ acme/tiny: 2 of 3 files proven\n\n**A pull request was opened:** [pull request 3](")
    assert f"]({URL})" in text and "push to main · revision `111111111111` · 1,000 parameters" in text
    page = Page(text)
    for said in (
        "1.1×10⁻⁵\xa0≤\xa00.001",
        "3.5,\xa0bound\xa0≤\xa00.001",
        "2×10⁻⁴\xa0≤\xa00.01",
        "perplexity\xa018.29\xa0→\xa028.29",
        "14\xa0delegates",
        "1,012.3",
        "🛑\xa0damaged",
        "What to do: Leave this backend out",
        "Quantization damaged this model",
        "Look at the pull request and merge it",
    ):
        assert said in page.text, said
    assert "fail" not in text.split("### ")[0].replace("❌&nbsp;failed", "").replace("failed", ""), "no alert"
    assert len(diagrams(text)) == 2 and "torch" in text


def test_the_whole_page_is_drawn(tmp_path: Path) -> None:
    found = drawn(diagrams(render(story("plain", error=None))), tmp_path)
    assert len(found) == 3 and not any("error" in one for one in found)


@pytest.mark.parametrize(
    ("one", "heading", "says"),
    [
        (
            Story(ended=judge(None, "all"), subject="acme/tiny", published=Published(operation="unchanged")),
            "✅ acme/tiny: nothing to do",
            "Model, settings and toolchain are those of the files that are there already.",
        ),
        (
            Story(
                ended=judge(None, "all"),
                published=Published(operation="none", reason="pull request 3 was closed", pr_url=URL, pr_num=3),
            ),
            "✅ nothing to do",
            "**No pull request was opened:** [pull request 3]",
        ),
        (Story(ended=ignored(), ignored="nothing in models/ moved", why="push"), "➖ Nothing was asked for", "models/"),
        (
            Story(ended=broken(NotACausalLM("It says BertModel.")), subject="a/b", error=NotACausalLM("It says Bert.")),
            "❌ a/b: Not a causal language model",
            "> It says Bert.\n>\n> **What to do:** Give a decoder-only language model",
        ),
        (
            Story(ended=broken(KeyError("x")), error=KeyError("x")),
            "❌ Unexpected failure",
            "> KeyError: 'x'\n>\n> **What to do:** This is a defect of ptebot",
        ),
        (
            Story(ended=judge(report([failed()]), "all"), report=report([failed()]), subject="a/b"),
            "❌ a/b: no file passed",
            "Exit code 3.",
        ),
    ],
)
def test_other_ends(one: Story, heading: str, says: str) -> None:
    text = render(one)
    assert text.startswith(f"## {heading}\n")
    assert says in text
    assert "None" not in text.replace("None of 1", "")


def test_a_fork_gets_a_notice_and_a_preview() -> None:
    one = report()
    text = render(
        Story(
            ended=judge(one, "all"),
            report=one,
            published=Published(operation="created", preview=PREVIEW),
            dry_run=True,
            forked=True,
        )
    )
    assert "> [!IMPORTANT]\n> This code comes from a fork" in text
    assert "**Dry run:** a pull request would be opened; nothing was published." in text
    assert "### The pull request that would be opened" in text
    rendered = GFM.render(text)
    shown = re.findall(r"<pre><code class=\"language-(\w+)\">(.*?)</code></pre>", rendered, re.DOTALL)
    assert [language for language, _ in shown] == ["mermaid", "mermaid", "markdown", "diff"]
    assert "&lt;/details&gt;\n# Title" in shown[2][1]
    assert "+   new ``` ````\n+# @octocat #1" in shown[3][1], "tabs stay visible, fences stay inside"
    assert rendered.count("</details>") == rendered.count("<details>") == 4


def test_code_in_our_own_words_stays_code() -> None:
    one = report([cell(), failed()])
    assert "<code>fail-on: all</code>" in GFM.render(render(Story(ended=judge(one, "any"), report=one)))


@settings(deadline=None)
@given(text=st.text("`a1 -<*é", max_size=24))
@example(text="`a`1234567 1234567`b`")
def test_prose_shows_code_and_text(text: str) -> None:
    page = Page(prose(text))
    assert {*page.tags} <= {"p", "code"}
    rendered = re.sub(r"<[^>]+>", "", GFM.render(prose(text)))
    seen = html.unescape(rendered).replace("\u200b", "").replace("`", "").split()
    assert "".join(seen) == "".join(text.replace("`", "").split())


def test_a_summary_is_never_too_large(tmp_path: Path) -> None:
    long = "ü" * 60_000
    cells = [failed(f"b{number}", reason="ü" * 900, notes=["ü" * 400] * 10) for number in range(MOST_ROWS + 40)]
    one = report([cell(), cell("portable"), *cells])
    preview = Preview(title="t", description=long * 5, card_diff=long * 5, files=[(f"{n}.pte", n) for n in range(9000)])
    huge = Story(
        ended=judge(one, "any"), report=one, published=Published(operation="created", preview=preview), dry_run=True
    )
    text = render(huge)
    assert 100_000 < len(text.encode()) < LIMIT
    assert "more in `report.json`" in text and "more characters are not shown" in text
    small = render(huge, limit=30_000)
    assert len(small.encode()) <= 30_000
    assert "*Left out, because GitHub shows 1 MiB: “Changes of README.md”, “Description”" in small
    assert small.startswith("## ⚠️ 2 of 102 files proven") and Page(small).tags
    for limit in (0, 10, 60, 400, 2000):
        assert len(render(huge, limit=limit).encode()) <= limit
    path = tmp_path / "summary.md"
    path.write_bytes(b"x" * (LIMIT - 20_000) + b"\n")
    write({"GITHUB_STEP_SUMMARY": str(path)}, huge)
    assert LIMIT - 20_000 < path.stat().st_size < LIMIT and "Left out" in path.read_text()


def test_it_is_appended_where_github_says(tmp_path: Path) -> None:
    path = tmp_path / "summary.md"
    path.write_text("before\n")
    one = Story(ended=ignored(), ignored="nothing moved")
    write({"GITHUB_STEP_SUMMARY": str(path)}, one)
    assert path.read_text() == f"before\n{summary.render(one)}"
    write({}, one)


def test_sizes_of_numbers() -> None:
    def shown(one: Report) -> str:
        return render(Story(ended=judge(one, "all"), report=one))

    assert "1,000 parameters" in shown(report())
    assert "5,100 bytes" in shown(report([cell(content=b"x" * 5100)]))
    assert "3 min 07 s" in shown(report(seconds=187.2))
