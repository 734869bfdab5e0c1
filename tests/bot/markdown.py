"""What a reader of Markdown sees: text in, its tables, folds and images out."""

from __future__ import annotations

from collections.abc import Iterator

from markdown_it import MarkdownIt
from markdown_it.token import Token

GFM = MarkdownIt("gfm-like", {"linkify": False})


def tables(source: str) -> list[list[list[str]]]:
    """Every table's rows, head included, as they are rendered without markup."""
    found: list[list[list[str]]] = []
    tokens = GFM.parse(source)
    for place, token in enumerate(tokens):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][-1].append(tokens[place + 1].content.strip())
    return found


def shown(source: str) -> str:
    """The text with entities resolved and without markup."""
    return "\n".join("".join(_words(token)) for token in GFM.parse(source) if token.type == "inline")


def images(source: str) -> list[tuple[str, str]]:
    """Address and alternative text of every image."""
    inline = [child for token in GFM.parse(source) for child in token.children or []]
    return [(str(one.attrs["src"]), one.content) for one in inline if one.type == "image"]


def _words(token: Token) -> Iterator[str]:
    for child in token.children or []:
        yield child.content if child.type in ("text", "code_inline") else " " if child.type == "softbreak" else ""
