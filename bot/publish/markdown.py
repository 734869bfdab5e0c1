"""Text of unknown origin as Markdown that shows it and nothing else. Pure; stage 5 of the way of one request.

Names, reasons and notes come from model repositories and from an exporter that read them. ``text`` makes
them inert in any Markdown context, the Hub's and GitHub's: no markup, no HTML, no mention, no link, no reference to
an issue or a commit, no line of their own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Sequence

_ACTIVE = re.compile(r"[&<>`*\[\]|~\\@#$!]|(?<![A-Za-z0-9])_|_(?![A-Za-z0-9])|:(?=//)|(?<=[Ww]{3})\.")
"""What CommonMark, GitHub's extensions and the Hub's own (mentions, references, formulas) give a meaning to; an
underscore between letters has none."""
_APART = re.compile(r"&#(?:64|35);|(?<![0-9A-Za-z])[Gg][Hh]-(?=[0-9])|&#58;(?=//)|(?<=[Ww]{3})&#46;")
"""What GitHub looks for after entities are resolved: mentions, references to issues, addresses of issues. A character
that nobody sees is put behind it."""
_COMMIT = re.compile(r"(?<![0-9A-Za-z])[0-9a-f]{7,40}(?![0-9A-Za-z])")
"""What GitHub links to a commit where there is such a one; in a code span it does not."""
_BLOCK_START = re.compile(r"\A(?:[-+](?=\s|\Z)|[-=]+\Z|\d+[.)](?=\s|\Z))")
_PLAIN_CODE = re.compile(r"(?!.*://)[A-Za-z0-9 ._+/:=,-]+")
_UNSEEN = {"Cc", "Cf", "Co", "Cn", "Cs", "Zl", "Zp"}
"""Unicode categories that a reader cannot see: controls, bidi and zero-width marks, private use, surrogates."""
SAFE_PATH = re.compile(r"(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._+-]+(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._+-]+)*")
"""Paths that may stand in a link: no traversal, nothing that needs quoting."""
_SAFE_URL = re.compile(r"https?://[A-Za-z0-9.-]+(?::\d{1,5})?(?:/[A-Za-z0-9._~%+-]+)+")
"""Addresses that may: no credentials, no query, nothing that could end the link."""


def one_line(value: object, limit: int = 400) -> str:
    """``value`` on one line without unseen characters, cut after ``limit`` characters."""
    spaced = (" " if character.isspace() else character for character in str(value))
    seen = " ".join("".join(one for one in spaced if unicodedata.category(one) not in _UNSEEN).split())
    return seen if len(seen) <= limit else seen[: limit - 1].rstrip() + "…"


def text(value: object, limit: int = 400) -> str:
    """``value`` as inert inline text: every character that could start markup becomes an entity."""
    line = one_line(value, limit)
    inert = _ACTIVE.sub(lambda found: f"&#{ord(found.group())};", line)
    inert = _COMMIT.sub(r"`\g<0>`", _APART.sub(r"\g<0>&#8203;", inert))
    return _BLOCK_START.sub(lambda found: "".join(f"&#{ord(character)};" for character in found.group()), inert)


def code(value: object, limit: int = 200) -> str:
    """``value`` as a code span where it is a plain name, else as inert text."""
    line = one_line(value, limit)
    return f"`{line}`" if _PLAIN_CODE.fullmatch(line) else text(line, limit)


def link(label: str, target: str) -> str:
    """A link to a path of the same repository; just the label when the path is not a plain one."""
    return f"[{code(label)}]({target})" if SAFE_PATH.fullmatch(target) else text(label)


def address(label: str, url: str) -> str:
    """A link to an address on the web; just the label where it is not a plain one."""
    return f"[{code(label)}]({url})" if _SAFE_URL.fullmatch(url) else text(label)


def block(source: str, language: str = "") -> str:
    """A fenced code block that ``source`` cannot close."""
    lines = ["".join(c for c in line if unicodedata.category(c) not in _UNSEEN) for line in source.splitlines()]
    longest = max((len(run) for run in re.findall(r"`+", source)), default=0)
    fence = "`" * max(3, longest + 1)
    return "\n".join([f"{fence}{language}", *lines, fence])


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """A pipe table of cells that are Markdown already."""
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in lines)


def details(heading: str, *bodies: str) -> str:
    """A fold of Markdown with a heading of ours; '' where nothing is in it."""
    inside = "\n\n".join(body for body in bodies if body)
    return f"<details><summary>{heading}</summary>\n\n{inside}\n\n</details>" if inside else ""
