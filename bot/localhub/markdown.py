"""Cards and comments to safe HTML: YAML front matter, markdown, sanitizing, and the blocks of a rendered diff.

Everything here is hostile text. markdown-it turns it into HTML, nh3 then keeps an allow-list of elements
and attributes only; the pages' Content-Security-Policy is the second wall behind it.
"""

from __future__ import annotations

import difflib
import re
from dataclasses import dataclass
from typing import Any, Literal
from urllib.parse import quote, urlsplit

import nh3
import yaml
from markdown_it import MarkdownIt

_FRONT_MATTER = re.compile(r"\A\ufeff?---[ \t]*\r?\n(.*?)(?:\r?\n)?^---[ \t]*(?:\r?\n|\Z)", re.DOTALL | re.MULTILINE)
MAX_YAML = 256 * 1024
MAX_RENDERED = 1024 * 1024
_ALLOWED = """
    a abbr b blockquote br caption center code col colgroup dd del details div dl dt em h1 h2 h3 h4 h5
    h6 hr i img ins kbd li ol p pre q s samp small span strike strong sub summary sup table tbody td
    tfoot th thead tr u ul
"""
_ATTRIBUTES = {
    "a": {"href", "title"},
    "img": {"src", "alt", "title", "width", "height"},
    "td": {"align", "colspan", "rowspan"},
    "th": {"align", "colspan", "rowspan"},
    "ol": {"start"},
    "details": {"open"},
}
_SCHEMES = {"http", "https", "mailto"}
_MARKDOWN = MarkdownIt("commonmark", {"html": True}).enable(["table", "strikethrough"])


@dataclass(frozen=True)
class Card:
    """A README.md taken apart: its front matter (text and mapping) and the markdown under it."""

    front_matter: str
    data: dict[str, Any]
    error: str
    """Why the front matter cannot be read; empty when it can."""
    body: str


@dataclass(frozen=True)
class Block:
    """One block of a rendered diff: HTML, and what became of it; ``gap`` stands for unchanged blocks left out."""

    kind: Literal["same", "added", "removed", "gap"]
    html: str


class _Loader(yaml.SafeLoader):
    """YAML without aliases, so that a small text cannot unfold into a huge one."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not taken")
        return super().compose_node(parent, index)


def parse_card(text: str) -> Card:
    """A card's parts; a bad front matter is reported in ``error``, never raised."""
    match = _FRONT_MATTER.match(text)
    if not match:
        return Card("", {}, "", text)
    front, body = match[1], text[match.end() :]
    if len(front) > MAX_YAML:
        return Card(front, {}, "the metadata is too long", body)
    try:
        data = yaml.load(front, _Loader)  # noqa: S506 - a SafeLoader's subclass
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        return Card(front, {}, " ".join(str(error).split())[:300], body)
    if data is None:
        data = {}
    if not isinstance(data, dict):
        return Card(front, {}, "the metadata must be a mapping", body)
    return Card(front, data, "", body)


def tags(data: dict[str, Any]) -> list[str]:
    """The tags that a card's metadata gives its repository, in the Hub's form, each once."""
    found: list[str] = []
    for key, prefix in (("tags", ""), ("language", ""), ("library_name", ""), ("license", "license:")):
        value = data.get(key)
        found += [f"{prefix}{item}" for item in (value if isinstance(value, list) else [value]) if _plain(item)]
    pipeline = data.get("pipeline_tag")
    return list(dict.fromkeys(found + ([pipeline] if isinstance(pipeline, str) else [])))


def _plain(item: object) -> bool:
    return isinstance(item, str | int | float) and not isinstance(item, bool) and len(str(item)) < 200


def render(text: str, base: str = "") -> str:
    """Markdown as safe HTML; relative links and images lead below ``base`` (a path that ends in a slash)."""
    return sanitize(_MARKDOWN.render(text[:MAX_RENDERED]), base)


def sanitize(html: str, base: str = "") -> str:
    def attribute(tag: str, name: str, value: str) -> str | None:
        if name in ("href", "src"):
            return _address(value, base, image=tag == "img")
        return value

    return nh3.clean(
        html, tags=set(_ALLOWED.split()), attributes=_ATTRIBUTES, attribute_filter=attribute, url_schemes=_SCHEMES,
        link_rel="noopener noreferrer nofollow",
    )  # fmt: skip


def _address(value: str, base: str, *, image: bool) -> str | None:
    try:
        parts = urlsplit(value.strip())
    except ValueError:
        return None
    if parts.scheme or parts.netloc or value.startswith("#"):
        return None if image else value  # an image from elsewhere would tell its server who looks
    path = value.strip().removeprefix("./")
    if not base or path.startswith("/") or ".." in path.split("/"):
        return None if image else "#"
    return base + quote(path, safe="/%?=&#")


def blocks(text: str) -> list[str]:
    """The markdown source of each top-level block."""
    lines = text[:MAX_RENDERED].splitlines(keepends=True)
    spans = [token.map for token in _MARKDOWN.parse(text[:MAX_RENDERED]) if token.level == 0 and token.map]
    if not spans:
        return [text.rstrip()] if text.strip() else []
    starts = [0, *sorted({span[0] for span in spans if span[0] > spans[0][0]})]
    return ["".join(lines[start:end]).rstrip() for start, end in zip(starts, [*starts[1:], len(lines)], strict=True)]


def rendered_diff(old: str, new: str, base: str = "", context: int = 1) -> list[Block]:
    """What changed between two markdown texts, block by block, each block rendered; unchanged ones are cut short."""
    before, after = blocks(old), blocks(new)
    result: list[Block] = []
    matcher = difflib.SequenceMatcher(a=before, b=after, autojunk=False)
    opcodes = matcher.get_opcodes()
    for position, (kind, a0, a1, b0, b1) in enumerate(opcodes):
        if kind == "equal":
            first, last = position == 0, position == len(opcodes) - 1
            head = 0 if first else min(context, b1 - b0)
            tail = 0 if last else min(context, b1 - b0 - head)
            hidden = b1 - b0 - head - tail
            result += [Block("same", render(text, base)) for text in after[b0 : b0 + head]]
            if hidden:
                result.append(Block("gap", f"{hidden} unchanged block{'s' if hidden > 1 else ''}"))
            result += [Block("same", render(text, base)) for text in after[b1 - tail : b1]]
            continue
        # Neighbours of one kind are one block to look at, and references between them resolve.
        result += [Block("removed", render("\n\n".join(before[a0:a1]), base))] if a1 > a0 else []
        result += [Block("added", render("\n\n".join(after[b0:b1]), base))] if b1 > b0 else []
    return result
