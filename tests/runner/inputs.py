"""Inputs: what ``with:`` and action.yml's defaults become in the container's environment."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

_EXPRESSION = re.compile(r"\$\{\{\s*(.*?)\s*\}\}")
_LOOKUP = re.compile(r"[A-Za-z_][\w-]*(\.[A-Za-z_][\w-]*)+")


def evaluate(value: object, contexts: Mapping[str, Any]) -> str:
    """A scalar of YAML as the runner's text; ``${{ github.token }}`` and the like are looked up in ``contexts``.

    Raises:
        ValueError: an expression that is more than a look-up; a workflow under test has to do without.
    """

    def look_up(match: re.Match[str]) -> str:
        if not _LOOKUP.fullmatch(match[1]):
            raise ValueError(f"This runner only looks values up: {match[0]}")
        found: Any = contexts
        for part in match[1].split("."):
            found = found.get(part) if isinstance(found, Mapping) else None
        return _text(found)

    return _EXPRESSION.sub(look_up, _text(value))


def _text(value: object) -> str:
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def environment(
    declared: Mapping[str, Any], given: Mapping[str, object], contexts: Mapping[str, Any]
) -> tuple[dict[str, str], list[str]]:
    """``INPUT_*``, and the runner's warnings about inputs.

    Args:
        declared: ``inputs`` of action.yml.
        given: ``with`` of the step.
    """
    folded = {name.lower() for name in declared}
    warnings = []
    unknown = [name for name in given if name.lower() not in {*folded, "args", "entrypoint"}]
    if unknown:
        warnings.append(f"Unexpected input(s) {unknown}, valid inputs are {sorted(declared)}")
    values = {name.lower(): evaluate(value, contexts) for name, value in given.items()}
    for name, about in declared.items():
        if name.lower() not in values:
            values[name.lower()] = evaluate((about or {}).get("default"), contexts)
        elif (about or {}).get("deprecationMessage"):
            warnings.append(f"Input '{name}' has been deprecated with message: {about['deprecationMessage']}")
    return {f"INPUT_{name.replace(' ', '_').upper()}": value for name, value in values.items()}, warnings
