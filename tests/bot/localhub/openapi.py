"""Check recorded traffic against the Hub's official OpenAPI description."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from jsonschema import Draft202012Validator

from bot.localhub.testing import Exchange

SPEC = Path(__file__).parents[4] / "shared/specs/hf-openapi.json"


def closed(schema: Any) -> Any:
    """A schema with its intersections made satisfiable.

    The description closes each side of an ``allOf`` on its own (``additionalProperties: false``), so that no
    object can ever pass both. What it means is that the intersection as a whole is closed, which JSON Schema
    says with ``unevaluatedProperties``.
    """
    if isinstance(schema, list):
        return [closed(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result = {key: closed(value) for key, value in schema.items() if key != "$schema"}
    if "allOf" in schema:
        result["allOf"] = [closed(_opened(branch)) for branch in schema["allOf"]]
        result["unevaluatedProperties"] = False
    return result


def _opened(branch: dict[str, Any]) -> dict[str, Any]:
    result = {key: value for key, value in branch.items() if key != "additionalProperties"}
    for key in ("anyOf", "oneOf", "allOf"):
        if key in result:
            result[key] = [_opened(item) for item in result[key]]
    return result


@dataclass
class Verdict:
    """What came of checking: ``checked`` counts bodies per operation, ``unknown`` the paths that are not described."""

    checked: dict[str, int] = field(default_factory=dict)
    unknown: set[str] = field(default_factory=set)
    errors: list[str] = field(default_factory=list)


class Description:
    def __init__(self, path: Path = SPEC) -> None:
        spec = json.loads(path.read_text())
        self._components = closed(spec["components"])
        self._operations = []
        for template, methods in spec["paths"].items():
            pattern = re.sub(r"/\\{path\\}$", r"(?:/.*)?", re.escape(template))
            pattern = re.sub(r"\\{\w+\\}", r"[^/]+", pattern)
            for method, operation in methods.items():
                self._operations.append((method.upper(), re.compile(pattern), template, operation))
        # The most literal template wins: /settings before /{name}.
        self._operations.sort(key=lambda item: item[2].count("{"))
        self._validators: dict[tuple[str, str, str], Draft202012Validator] = {}

    def check(self, traffic: list[Exchange]) -> Verdict:
        verdict = Verdict()
        for exchange in traffic:
            self._check(exchange, verdict)
        return verdict

    def _check(self, exchange: Exchange, verdict: Verdict) -> None:
        method = "GET" if exchange.method == "HEAD" else exchange.method
        found = [item for item in self._operations if item[0] == method and item[1].fullmatch(exchange.path)]
        if not found:
            verdict.unknown.add(f"{exchange.method} {re.sub('[0-9a-f]{24,}', '…', exchange.path)}")
            return
        _, _, template, operation = found[0]
        name = f"{method} {template}"
        good = 200 <= exchange.status < 300
        body = operation.get("requestBody", {}).get("content", {}).get("application/json")
        if body and good and exchange.request_json is not None and "ndjson" not in exchange.request_type:
            self._validate(name, "request", body["schema"], _as_json(exchange), verdict)
        responses = operation.get("responses", {})
        described = responses.get(str(exchange.status))
        partial = exchange.status == 206  # any GET may be answered by a part, when a part was asked for
        if good and not partial and responses and described is None and any(code.startswith("2") for code in responses):
            verdict.errors.append(f"{name}: status {exchange.status} is not described")
        answer = (described or {}).get("content", {}).get("application/json")
        if answer and exchange.response_type.startswith("application/json") and exchange.method != "HEAD":
            self._validate(name, f"response {exchange.status}", answer["schema"], _answer(exchange, template), verdict)

    def _validate(self, name: str, what: str, schema: Any, value: Any, verdict: Verdict) -> None:
        key = (name, what, "")
        if key not in self._validators:
            self._validators[key] = Draft202012Validator(closed(schema) | {"components": self._components})
        verdict.checked[f"{name} {what}"] = verdict.checked.get(f"{name} {what}", 0) + 1
        for error in self._validators[key].iter_errors(value):
            where = "/".join(str(part) for part in error.absolute_path)
            verdict.errors.append(f"{name} {what} at {where!r}: {error.message[:500]}")


def _as_json(exchange: Exchange) -> Any:
    """The request's body, as the description means it.

    huggingface_hub sends paths-info as a form instead of JSON; and to leave parts of a webhook as they are, it
    leaves ``domains`` out and sends ``watched: []``, where the description wants both.
    """
    if exchange.request_type.startswith("application/x-www-form-urlencoded"):
        form = exchange.request_json
        return {"paths": form["paths"], "expand": form["expand"][0].lower() == "true"}
    body = exchange.request_json
    if "/settings/webhooks/" in exchange.path and body.get("watched") is not None:
        return body | {
            "watched": body["watched"] or [{"type": "model", "name": "as/before"}],
            "domains": body.get("domains", ["repo"]),
        }
    return body


def _answer(exchange: Exchange, template: str) -> Any:
    """The reply's body, less what huggingface_hub cannot do without and the description leaves out.

    - ``diff`` of a discussion: asked for by ``?diff=1``.
    - ``path`` of a tree's entry, ``oid`` and ``size`` of ``lfs`` in paths-info: the client raises without them.

    Of long lists the first 50 entries are checked.
    """
    value = exchange.response_json
    if template.endswith("/discussions/{num}") and exchange.query == "diff=1":
        return {key: item for key, item in value.items() if key != "diff"}
    if not isinstance(value, list):
        return value
    value = value[:50]
    if "/tree/" in template and not template.startswith("/api/buckets"):
        return [{key: item for key, item in entry.items() if key != "path"} for entry in value]
    if "/paths-info/" in template:
        return [
            entry | ({"lfs": {"pointerSize": entry["lfs"]["pointerSize"]}} if "lfs" in entry else {}) for entry in value
        ]
    return value
