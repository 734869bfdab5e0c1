"""Puts our section into an owner's README.md and leaves every other byte alone. Pure; stage 5.

In: the card's bytes (or None) and a section between its markers. Out: the card's new bytes. The section
replaces the one that is there, or goes to the end; the front matter gets the tag ``executorch``. Markers
are looked for with a CommonMark parser, so that one inside a code block is the owner's text. The result is
parsed again: a card in which the section would be swallowed by something left open is refused.
"""

from __future__ import annotations

import re

from markdown_it import MarkdownIt
from markdown_it.token import Token

from bot.errors import CardInvalid
from bot.publish.yaml_tag import FRONT_MATTER, add_tag, newline_of

BEGIN = "<!-- ptebot:begin -->"
END = "<!-- ptebot:end -->"
TAG = "executorch"
MAX_CARD_BYTES = 2 * 1024 * 1024
_BOM = "\ufeff"
_LINE = re.compile(r"[^\r\n]*(?:\r\n?|\n|\Z)")
"""Lines as CommonMark counts them; str.splitlines knows more line endings than it does."""


def splice(readme: bytes | None, section: str, *, front_matter: bool = True) -> bytes:
    """The card with ``section`` in it and the tag in its front matter; the same bytes when both are there.

    Args:
        readme: the owner's README.md; None where there is none.
        section: lines ending in ``\\n``, the first ``BEGIN`` and the last ``END``.
        front_matter: whether it is made where there is none; on GitHub it would be shown as a table.

    Raises:
        CardInvalid: not UTF-8; larger than 2 MiB; markers given twice, unbalanced or changed by hand;
            front matter that cannot take the tag; a code block or comment that is never closed.
    """
    bom, text = _decode(readme)
    with_tag = add_tag(text, TAG) if front_matter or FRONT_MATTER.match(text) else text
    newline = newline_of(text)
    ours = newline.join(section.strip("\n").split("\n"))
    start, end = _span(with_tag)
    if start is None or end is None:
        spliced = with_tag + _gap(with_tag, newline) + ours + newline
    else:
        spliced = with_tag[:start] + ours + with_tag[end:]
    if not _stands(spliced, ours):
        raise CardInvalid(
            "README.md ends inside a code block, a comment or an HTML block that is never closed.",
            remedy="Close it in README.md and run the command again.",
        )
    return (bom + spliced).encode()


def current_section(readme: bytes) -> str | None:
    """Our section in a card, markers included, with ``\\n`` as line ending; None when it has none.

    Raises:
        CardInvalid: as ``splice``.
    """
    _, text = _decode(readme)
    start, end = _span(text)
    return None if start is None or end is None else re.sub(r"\r\n?", "\n", text[start:end])


def _decode(readme: bytes | None) -> tuple[str, str]:
    if readme is None:
        return "", ""
    if len(readme) > MAX_CARD_BYTES:
        raise CardInvalid(f"README.md has {len(readme):,} bytes; at most {MAX_CARD_BYTES:,} are taken.")
    try:
        text = readme.decode("utf-8")
    except UnicodeDecodeError as error:
        raise CardInvalid(f"README.md is not UTF-8: byte {error.start} cannot be read.") from None
    return (_BOM, text[1:]) if text.startswith(_BOM) else ("", text)


def _stands(text: str, ours: str) -> bool:
    """Whether a reader of ``text`` sees our section, and nothing but it, between the markers."""
    try:
        start, end = _span(text)
    except CardInvalid:
        return False
    return start is not None and text[start:end] == ours


def _gap(text: str, newline: str) -> str:
    """What makes the end of ``text`` a blank line."""
    if not text or re.search(r"(?:\n|\r(?!\n))[ \t]*(?:\r\n|\n|\r)\Z", text):
        return ""
    return newline if text.endswith(("\n", "\r")) else newline * 2


def _span(text: str) -> tuple[int, int] | tuple[None, None]:
    """Where our section stands: from its begin marker to the end of its end marker."""
    front = FRONT_MATTER.match(text)
    offset = front.end() if front else 0
    begins, ends = _markers(text[offset:], first_line=len(_line_starts(text[:offset])))
    if not begins and not ends:
        return None, None
    if len(begins) != 1 or len(ends) != 1 or ends[0] < begins[0]:
        raise CardInvalid(
            f"README.md has {len(begins)} begin and {len(ends)} end markers of ptebot where it should have one of "
            "each, in this order.",
            remedy=f"Remove the lines {BEGIN} and {END}, and what stands between them, and run the command again.",
        )
    starts = _line_starts(text[offset:])
    start, last = offset + starts[begins[0]], offset + starts[ends[0]]
    return start + text[start:].index(BEGIN), last + text[last:].index(END) + len(END)


def _line_starts(text: str) -> list[int]:
    return [line.start() for line in _LINE.finditer(text)]


def _markers(body: str, *, first_line: int) -> tuple[list[int], list[int]]:
    """Lines of begin and end markers outside code, counted from 0 in ``body``; it begins at ``first_line``."""
    found: dict[str, list[int]] = {BEGIN: [], END: []}
    for token in MarkdownIt("commonmark").parse(body):
        for marker, lines in found.items():
            if not _mentions(token, marker):
                continue
            if token.type != "html_block" or token.level or token.content.strip() != marker or not token.map:
                line = first_line + (token.map[0] if token.map else 0)
                raise CardInvalid(
                    f"A marker of ptebot in the body of README.md (line {line}) does not stand on a line of its own.",
                    remedy=f"Put {marker} on a line of its own, or remove ptebot's section, and run the command again.",
                )
            lines.append(token.map[0])
    return found[BEGIN], found[END]


def _mentions(token: Token, marker: str) -> bool:
    """Whether a marker stands in the token as HTML; in code it is text."""
    if token.type == "html_block":
        return marker in token.content
    return any(child.type == "html_inline" and marker in child.content for child in token.children or ())
