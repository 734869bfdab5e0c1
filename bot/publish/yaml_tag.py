"""Adds one tag to a card's YAML front matter as a textual edit: everything else keeps its bytes.

Stage 5 of the way of one request, pure. In: a card's text. Out: the text with the tag in ``tags``. Key
order, comments, quotes, anchors, indentation and line endings stay, because only the place where the tag
belongs is touched; PyYAML's marks tell where that is. Every edit is parsed again and must differ from the
original by the tag alone; what cannot be edited so is refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import yaml

from bot.errors import CardInvalid

FRONT_MATTER = re.compile(r"\A(\s*---[ \t]*(?:\r\n|\r|\n))([\s\S]*?)((?<=[\r\n])---[ \t]*(?:\r\n|\r|\n|\Z))")
"""Opening line, YAML with its last line ending, closing line: what huggingface_hub's repocard.py takes for
metadata, and two delimiters with nothing between them."""
MAX_YAML_CHARACTERS = 256 * 1024
_BAD_YAML = (yaml.YAMLError, ValueError, TypeError, LookupError, AttributeError, ArithmeticError, RecursionError)
"""What PyYAML's safe loader raises on bad input: its own errors, and those of its constructors
(``!!int ""`` is an IndexError, ``!!timestamp x`` an AttributeError, ``2024-99-99`` a ValueError)."""


def add_tag(text: str, tag: str) -> str:
    """``text`` with ``tag`` in its front matter's ``tags``; the same text when it is there already.

    Raises:
        CardInvalid: the front matter is not YAML, not a mapping, gives ``tags`` twice or in a form that
            cannot take one more word without changing something else.
    """
    match = FRONT_MATTER.match(text)
    if match is None:
        newline = newline_of(text)
        lines = ["---", "tags:", f"- {tag}", "---", ""]
        return newline.join(lines) + (newline if text else "") + text
    block = match.group(2)
    head, tail = text[: match.start(2)], text[match.end(2) :]
    before = _load(block)
    if before is None:
        before = {}
    if not isinstance(before, dict):
        raise CardInvalid("The front matter of README.md is not a mapping of keys to values.")
    wanted = _wanted(before, tag)
    if not wanted:
        return text
    for edited in _candidates(block, tag, newline_of(text)):
        if _is_only_change(edited, before, wanted) and _still_front_matter(head, edited, tail):
            return head + edited + tail
    raise CardInvalid(
        f"The tags in the front matter of README.md cannot take {tag!r} without changing something else.",
        remedy=f"Add `{tag}` to `tags` by hand, in a plain list, and run the command again.",
    )


def newline_of(text: str) -> str:
    """The line ending that most lines of ``text`` have; ``\\n`` for a text without one."""
    pairs = text.count("\r\n")
    return "\r\n" if pairs * 2 > text.count("\n") else "\n"


def _load(block: str) -> Any:
    if len(block) > MAX_YAML_CHARACTERS:
        raise CardInvalid(f"The front matter of README.md is longer than {MAX_YAML_CHARACTERS:,} characters.")
    try:
        return yaml.safe_load(block)
    except _BAD_YAML as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 2}" if mark is not None else ""
        raise CardInvalid(f"The front matter of README.md is not valid YAML{where}.") from None


def _wanted(before: dict[Any, Any], tag: str) -> list[list[Any]]:
    """What ``tags`` may be after the edit; empty when nothing is to be done."""
    tags = before.get("tags")
    if tags is None:
        return [[tag]]
    if isinstance(tags, str):
        return [] if tags == tag else [[tags, tag]]
    if isinstance(tags, list):
        return [] if tag in tags else [[*tags, tag], [tag, *tags]]
    raise CardInvalid("The front matter of README.md has `tags` that are neither a list nor a word.")


@dataclass(frozen=True)
class _Found:
    root: yaml.MappingNode | None
    key: yaml.Node | None
    value: yaml.Node | None


def _find(block: str) -> _Found:
    root = yaml.compose(block, Loader=yaml.SafeLoader)
    if not isinstance(root, yaml.MappingNode):
        return _Found(None, None, None)
    pairs = [(key, value) for key, value in root.value if isinstance(key, yaml.ScalarNode) and key.value == "tags"]
    if len(pairs) > 1:
        raise CardInvalid("The front matter of README.md gives `tags` twice.")
    return _Found(root, *(pairs[0] if pairs else (None, None)))


def _candidates(block: str, tag: str, newline: str) -> Iterator[str]:
    """Edited blocks, the nicest first; the caller takes the first that changes nothing else."""
    found = _find(block)
    if found.root is None or found.key is None or found.value is None:
        yield from _new_key(block, found.root, tag, newline)
    elif isinstance(found.value, yaml.SequenceNode):
        yield from _longer_list(block, found.value, tag, newline)
    elif isinstance(found.value, yaml.ScalarNode):
        start, end = found.value.start_mark.index, found.value.end_mark.index
        raw = block[start:end]
        if found.value.tag == "tag:yaml.org,2002:null":
            yield block[:start] + ("" if raw else " ") + f"[{tag}]" + block[end:]
        else:
            yield block[:start] + f"[{raw}, {tag}]" + block[end:]


def _new_key(block: str, root: yaml.MappingNode | None, tag: str, newline: str) -> Iterator[str]:
    if root is not None and root.flow_style:
        last = root.end_mark.index - 1
        yield block[:last].rstrip() + (", " if root.value else "") + f"tags: [{tag}]" + block[last:]
        return
    indent = " " * (root.start_mark.column if root is not None else 0)
    lines = f"{indent}tags:{newline}{indent}- {tag}{newline}"
    yield block + lines
    if root is not None:
        first = root.start_mark.index - root.start_mark.column
        yield block[:first] + lines + block[first:]


def _longer_list(block: str, tags: yaml.SequenceNode, tag: str, newline: str) -> Iterator[str]:
    """At the list's end, else at its start (where a last item is an alias or has parts of its own)."""
    start = tags.start_mark.index
    if tags.flow_style:
        first = block.index("[", start) + 1
        if tags.value:
            end = tags.value[-1].end_mark.index
            yield block[:end] + ", " + _quoted_alike(tags, tag) + block[end:]
        yield block[:first] + _quoted_alike(tags, tag) + (", " if tags.value else "") + block[first:]
        return
    last = tags.value[-1]
    dash = re.search(r"[^\S\r\n]*-[^\S\r\n]+\Z", block[: last.start_mark.index])
    if dash is not None and isinstance(last, yaml.ScalarNode) and last.style not in ("|", ">"):
        line_end = re.compile(r"\r\n|\r|\n|\Z").search(block, last.end_mark.index)
        assert line_end is not None  # noqa: S101 - for the type checker: \Z always matches
        line = dash.group() + _quoted_alike(tags, tag) + (line_end.group() or newline)
        yield block[: line_end.end()] + line + block[line_end.end() :]
    indent = " " * tags.start_mark.column
    yield block[:start] + f"- {tag}{newline}{indent}" + block[start:]


def _quoted_alike(tags: yaml.SequenceNode, tag: str) -> str:
    """The tag in the quotes that the list's last word has."""
    last = tags.value[-1] if tags.value else None
    quote = last.style if isinstance(last, yaml.ScalarNode) and last.style in ("'", '"') else ""
    return f"{quote}{tag}{quote}"


def _is_only_change(edited: str, before: dict[Any, Any], wanted: list[list[Any]]) -> bool:
    try:
        after = yaml.safe_load(edited)
    except _BAD_YAML:
        return False
    if not isinstance(after, dict):
        return False
    try:
        return any(_same(after, {**before, "tags": tags}, set()) for tags in wanted)
    except RecursionError:
        return False


def _same(one: Any, other: Any, seen: set[tuple[int, int]]) -> bool:
    """Equality with types; each pair once, since aliases can make equality exponential or endless."""
    if type(one) is not type(other):
        return False
    if isinstance(one, dict | list | set | tuple):
        pair = (id(one), id(other))
        if pair in seen:
            return True
        seen.add(pair)
    if isinstance(one, dict):
        return set(one) == set(other) and all(_same(value, other[key], seen) for key, value in one.items())
    if isinstance(one, list | tuple):
        return len(one) == len(other) and all(_same(a, b, seen) for a, b in zip(one, other, strict=True))
    return bool(one == other) or (one != one and other != other)  # noqa: PLR0124 - not a number equals nothing


def _still_front_matter(head: str, edited: str, tail: str) -> bool:
    match = FRONT_MATTER.match(head + edited + tail)
    return match is not None and match.group(2) == edited
