"""The tables of docs/operations.md: settings and metrics, as the code itself knows them. Pure."""

from __future__ import annotations

import re
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

from bot.server import loading
from bot.server.metrics import FAMILIES
from bot.server.setting_values import file_size, seconds, size
from bot.server.settings import Settings

SETTING_HEADINGS = ("variable", "in the file", "value", "default", "what it is")
METRIC_HEADINGS = ("metric", "kind", "labels", "what it is")
_UNITS = ((86400, "d"), (3600, "h"), (60, "min"), (1, "s"))


def settings() -> list[tuple[str, str, str, str, str]]:
    """A row for each setting, in the order of the fields."""
    rows = []
    for name, field in Settings.model_fields.items():
        hidden = loading.secret(name, field)
        variable = loading.variable(name, field)
        text = " ".join((field.description or "").split())
        first = f"`{variable}`" + (f", `{variable}{loading.FILE}`" if hidden else "")
        rows.append((first, f"`{loading.aliases(name, field)[-1]}`", _kind(field), _default(field), _cell(text)))
    return rows


def metrics() -> list[tuple[str, str, str, str]]:
    """A row for each metric."""
    return [
        (f"`{name}`", family.kind, ", ".join(f"`{label}`" for label in family.labels), _cell(family.text))
        for name, family in FAMILIES.items()
    ]


def _kind(field: FieldInfo) -> str:
    """What a value looks like."""
    parts = list(_types(field.annotation))
    functions = {getattr(one, "func", None) for one in [*field.metadata, *parts]}
    words = [
        (seconds in functions, "time: `90s`, `4h`, `30d`"),
        (bool({size, file_size} & functions), "size: `900MB`, `12GiB`"),
        (SecretStr in parts, "secret"),
        (bool in parts, "`true` or `false`"),
        (tuple in parts, "names, with commas between them"),
        (int in parts, "whole number"),
        (float in parts, "number"),
        (Path in parts, "path"),
    ]
    choices = [choice for part in parts if get_origin(part) is Literal for choice in get_args(part)]
    if choices:
        return ", ".join(f"`{choice}`" for choice in choices)
    return next((word for fits, word in words if fits), "text")


def _types(annotation: Any) -> Iterator[Any]:
    """A type and all it is made of, with what annotates it."""
    yield annotation
    if get_origin(annotation) is tuple:
        yield tuple
    if get_origin(annotation) in (Union, types.UnionType) or hasattr(annotation, "__metadata__"):
        for one in (*get_args(annotation), *getattr(annotation, "__metadata__", ())):
            yield from _types(one) if not hasattr(one, "func") else (one,)


def _default(field: FieldInfo) -> str:
    value = field.default
    functions = {getattr(one, "func", None) for one in [*field.metadata, *_types(field.annotation)]}
    if value is None or value in ("", ()):
        return ""
    if isinstance(value, tuple):
        return f"`{','.join(value)}`"
    if isinstance(value, bool):
        return f"`{str(value).lower()}`"
    if seconds in functions and value:
        unit, word = next((unit, word) for unit, word in _UNITS if value % unit == 0)
        return f"`{value / unit:g}{word}`"
    if size in functions and value and value % (1 << 30) == 0:
        return f"`{value >> 30}GiB`"
    return f"`{value}`"


def _cell(text: str) -> str:
    return re.sub(r"``([^`]*)``", r"`\1`", text).replace("|", "\\|")
