"""GitHub's OpenAPI description: which operation a request is, what that declares, and a small description of a few.

In: the description and recorded exchanges. Out: operations, undeclared names, and a reduced description that prism
starts with in seconds rather than half a minute.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

UPLOADS = "/api/uploads"
# Parameters in which GitHub takes a plain slash though the description does not say so (x-multi-segment).
SLASHED = {"ref", "branch", "tag", "sha", "commit_sha"}


@dataclass(frozen=True)
class Operation:
    """A method and a path template of the description."""

    method: str
    template: str
    declared: dict[str, Any]

    @property
    def query(self) -> set[str]:
        return {one["name"] for one in self.declared["parameters"] if one["in"] == "query"}


class Spec:
    def __init__(self, path: Path) -> None:
        self.document: dict[str, Any] = json.loads(path.read_text())
        self._patterns = [(template, _pattern(template)) for template in self.document["paths"]]
        # The more of a template is literal, the better it fits; what can span slashes fits last.
        self._patterns.sort(key=lambda pair: (len(re.findall(r"\{", pair[0])), -len(pair[0])))

    def operation(self, method: str, path: str) -> tuple[Operation, str] | None:
        """The operation of a request and its path with the slashes inside parameters encoded, or None."""
        path = path.removeprefix(UPLOADS)
        for template, pattern in self._patterns:
            found = pattern.fullmatch(path)
            declared = self.document["paths"][template].get(method.lower())
            if found and declared:
                shared = self.document["paths"][template].get("parameters", [])
                parameters = [self.resolve(one) for one in [*shared, *declared.get("parameters", [])]]
                encoded = template
                for name, value in found.groupdict().items():
                    encoded = encoded.replace(f"{{{name}}}", quote(unquote(value), safe=""))
                return Operation(method, template, {**declared, "parameters": parameters}), encoded
        return None

    def resolve(self, value: Any) -> Any:
        while isinstance(value, dict) and "$ref" in value:
            value = self._at(value["$ref"])
        return value

    def _at(self, reference: str) -> Any:
        found: Any = self.document
        for part in reference.removeprefix("#/").split("/"):
            found = found[part]
        return found

    def undeclared(self, operation: Operation, query: Iterable[str], body: Any) -> Iterator[str]:
        """Names in a request that the operation does not know: validators let them pass, GitHub ignores them."""
        for name in sorted(set(query) - operation.query):
            yield f"query parameter {name}"
        content = self.resolve(operation.declared.get("requestBody", {})).get("content", {})
        if body is not None and "application/json" in content:
            yield from self._unknown(content["application/json"]["schema"], body, "")

    def _unknown(self, schema: Any, value: Any, where: str) -> Iterator[str]:
        variants = list(self._variants(schema))
        if isinstance(value, list):
            items = [one["items"] for one in variants if "items" in one]
            for one in value if items else []:
                yield from self._unknown({"anyOf": items}, one, f"{where}[]")
        if not isinstance(value, dict):
            return
        known: dict[str, list[Any]] = {}
        for one in variants:
            for name, inner in one.get("properties", {}).items():
                known.setdefault(name, []).append(inner)
        if not known or any(one.get("additionalProperties") for one in variants):
            return  # anything goes here, as in a dispatch's payload
        for name, inner in value.items():
            if name in known:
                yield from self._unknown({"anyOf": known[name]}, inner, f"{where}.{name}")
            else:
                yield f"body property {where}.{name}"

    def _variants(self, schema: Any) -> Iterator[dict[str, Any]]:
        schema = self.resolve(schema)
        yield schema
        for key in ("anyOf", "oneOf", "allOf"):
            for one in schema.get(key, []):
                yield from self._variants(one)

    def reduced(self, operations: Iterable[Operation]) -> dict[str, Any]:
        """A description of these operations alone, with what they refer to.

        Rewritten for a validator: alternatives need not exclude one another (several of GitHub's do not), and no
        operation has a server of its own (the uploads).
        """
        paths: dict[str, Any] = {}
        for one in operations:
            declared = {key: value for key, value in one.declared.items() if key not in ("servers", "externalDocs")}
            paths.setdefault(one.template, {})[one.method.lower()] = declared
        document = {key: self.document[key] for key in ("openapi", "info")} | {"paths": paths, "components": {}}
        left, seen = list(_references(paths)), set()
        while left:
            reference = left.pop()
            if reference in seen:
                continue
            seen.add(reference)
            value = self._at(reference)
            *parents, name = reference.removeprefix("#/").split("/")
            place = document
            for parent in parents:
                place = place.setdefault(parent, {})
            place[name] = value
            left += _references(value)
        reduced: dict[str, Any] = _loosened(document)
        return reduced


@cache
def _pattern(template: str) -> re.Pattern[str]:
    def part(match: re.Match[str]) -> str:
        name = match[1]
        wide = name in SLASHED or name in ("path", "basehead", "tree_sha")
        return f"(?P<{name}>{'.+' if wide else '[^/]+'})"

    return re.compile(re.sub(r"\\\{(\w+)\\\}", part, re.escape(template)))


def _references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for inner in value.values():
            yield from _references(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _references(inner)


def _loosened(value: Any) -> Any:
    if isinstance(value, dict):
        return {
            "anyOf" if key == "oneOf" else key: _loosened(inner) for key, inner in value.items() if key != "examples"
        }
    if isinstance(value, list):
        return [_loosened(inner) for inner in value]
    return value
