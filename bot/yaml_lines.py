"""YAML of unknown origin as plain data, with the line of every part. Pure; stage 1.

Only what a configuration needs is read: mappings with text keys, lists, and scalars of YAML 1.2's core schema (so
``no`` is a word and ``1e-6`` a number). Anchors, aliases and tags are refused, since a few bytes of them can stand
for gigabytes or for other types; a key that stands twice is refused, since one of the two would be lost.
"""

from __future__ import annotations

import re
from typing import Any

import yaml
from yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

MOST_CHARACTERS = 64 << 10
DEEPEST = 8
Place = tuple[str | int, ...]
"""Keys and indices from the document down to a part."""


class Unreadable(Exception):
    """Not YAML that is taken; the text says why, and ``line`` (from 1) where, if anywhere."""

    def __init__(self, why: str, line: int | None = None) -> None:
        super().__init__(why)
        self.line = line


class _Loader(yaml.SafeLoader):
    """Scalars as in YAML 1.2's core schema (https://yaml.org/spec/1.2.2/, 10.3.2), without octal and hexadecimal."""


_Loader.yaml_implicit_resolvers = {}
_NUMBER = list("-+.0123456789")
_Loader.add_implicit_resolver("tag:yaml.org,2002:null", re.compile(r"(?:~|null|)\Z"), ["~", "n", ""])
_Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile(r"(?:true|false)\Z"), ["t", "f"])
_Loader.add_implicit_resolver("tag:yaml.org,2002:int", re.compile(r"[-+]?[0-9]{1,18}\Z"), _NUMBER)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(r"[-+]?(?:\.[0-9]{1,30}|[0-9]{1,30}(?:\.[0-9]{0,30})?)(?:[eE][-+]?[0-9]{1,3})?\Z"),
    _NUMBER,
)


def load(text: str) -> tuple[Any, dict[Place, int]]:
    """The one document in ``text`` (None where it is empty), and the line of every part, from 1.

    Raises:
        Unreadable: too large or too deep, no YAML, more than one document, or something that is not taken.
    """
    if len(text) > MOST_CHARACTERS:
        raise Unreadable(f"it has {len(text):,} characters; at most {MOST_CHARACTERS:,} are read")
    lines: dict[Place, int] = {}
    try:
        _check(text)
        root = yaml.compose(text, Loader=_Loader)
        return (None if root is None else _plain(root, (), lines)), lines
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark is not None else None
        raise Unreadable(f"it is no YAML: {error.problem or error.context}", line) from None
    except yaml.YAMLError as error:
        raise Unreadable(f"it is no YAML: {str(error).splitlines()[0]}") from None


def _check(text: str) -> None:
    """Look at the events alone, which are made one by one, before anything is built of them."""
    depth = 0
    for event in yaml.parse(text, Loader=_Loader):
        mark = event.start_mark
        line = mark.line + 1 if mark is not None else None
        if isinstance(event, yaml.AliasEvent) or getattr(event, "anchor", None):
            raise Unreadable("anchors and aliases are not taken", line)
        if getattr(event, "tag", None):
            raise Unreadable("tags are not taken", line)
        if isinstance(event, yaml.CollectionStartEvent):
            depth += 1
            if depth > DEEPEST:
                raise Unreadable("it is nested too deep", line)
        elif isinstance(event, yaml.CollectionEndEvent):
            depth -= 1


def _plain(node: Node, place: Place, lines: dict[Place, int]) -> Any:
    lines.setdefault(place, node.start_mark.line + 1)
    if isinstance(node, MappingNode):
        found: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = key_node.start_mark.line + 1
            if not isinstance(key_node, ScalarNode):
                raise Unreadable("a key has to be a word", line)
            key = str(key_node.value)
            if key in found:
                raise Unreadable(f"{key!r} stands twice", line)
            lines[*place, key] = line
            found[key] = _plain(value_node, (*place, key), lines)
        return found
    if isinstance(node, SequenceNode):
        return [_plain(item, (*place, index), lines) for index, item in enumerate(node.value)]
    return _scalar(node)


def _scalar(node: Node) -> Any:
    value = str(node.value)
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return value == "true"
    return int(value) if kind == "int" else float(value) if kind == "float" else value
