"""What the keys of ``.ptebot.yml`` take: decoded YAML in, typed values or ``ValueError`` out. Pure; stage 1.

Each value is a validator and the JSON Schema that editors get. To add one: a function here, and the field in
``bot.config`` that takes it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, WithJsonSchema

from bot import amounts
from bot.names import LEAST_FILE, MOST_KL
from bot.publish.markdown import one_line
from bot.triggers.values import MODEL
from exporter import bounds as table
from exporter import calibration_files
from exporter.errors import InvalidSpec

MOST_PATTERNS = 100


def split(value: Any) -> Any:
    """A list, or its names with commas between them."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    return tuple(value) if isinstance(value, list) else value


def known(names: tuple[str, ...]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
    def check(value: tuple[str, ...]) -> tuple[str, ...]:
        for name in value:
            if name not in names:
                raise ValueError(f"'{one_line(name, 40)}' is none of: {', '.join(names)}")
            if value.count(name) > 1:
                raise ValueError(f"'{name}' stands twice")
        if not value:
            raise ValueError("at least one name is needed")
        return value

    return check


def names(names: tuple[str, ...]) -> Any:
    schema = {
        "anyOf": [
            {"type": "array", "items": {"enum": list(names)}, "minItems": 1, "uniqueItems": True},
            {"type": "string", "description": "Names with commas between them."},
        ]
    }
    return Annotated[tuple[str, ...], BeforeValidator(split), AfterValidator(known(names)), WithJsonSchema(schema)]


def model(value: str) -> str:
    if not MODEL.fullmatch(value):
        raise ValueError("it takes OWNER/NAME of the Hub, or a folder of the repository")
    return value


def patterns(value: tuple[str, ...]) -> tuple[str, ...]:
    if not 0 < len(value) <= MOST_PATTERNS:
        raise ValueError(f"it takes 1 to {MOST_PATTERNS} patterns")
    for pattern in value:
        parts = pattern.removeprefix("!").split("/")
        if not 0 < len(pattern) <= 200 or not pattern.isprintable() or ".." in parts or parts[0] == "":
            raise ValueError("a pattern is a path below the repository's root, with at most 200 characters")
    if all(pattern.startswith("!") for pattern in value):
        raise ValueError("patterns that only leave out take nothing in; begin with '**'")
    return value


def tightened(value: dict[str, Any]) -> dict[str, float]:
    for name, bound in value.items():
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise ValueError(f"'{one_line(name, 40)}' takes a number")
    try:
        table.check(value)
    except InvalidSpec as error:
        raise ValueError(one_line(error.what).rstrip(".")) from None
    return {name: float(bound) for name, bound in value.items()}


def nats(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= MOST_KL:
        raise ValueError(f"it takes a number of nats above 0 and at most {MOST_KL:g}, such as 0.05")
    return float(value)


def size(value: Any) -> Any:
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("it takes a size, such as 90MB, or a number of bytes")
    try:
        return amounts.file_size(str(value).strip())
    except ValueError as error:
        raise ValueError(str(error) or "it takes a size, such as 90MB, or a number of bytes") from None


def one_or_list(value: Any) -> Any:
    if isinstance(value, str):
        value = [value]
    return tuple(value) if isinstance(value, list) else value


def texts(value: tuple[str, ...]) -> tuple[str, ...]:
    reason = calibration_files.wrong_list(value) if value else "at least one file is needed"
    if reason is not None:
        raise ValueError(one_line(reason, 300))
    return value


Patterns = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    AfterValidator(patterns),
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_PATTERNS}),
]
SIZE_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {"type": "integer", "minimum": LEAST_FILE},
        {"type": "string", "description": "A size, such as 90MB or 85MiB."},
    ]
}
TEXTS_SCHEMA: dict[str, Any] = {
    "anyOf": [
        {
            "type": "array",
            "items": {"type": "string", "maxLength": calibration_files.MOST_CHARACTERS},
            "minItems": 1,
            "maxItems": calibration_files.MOST_FILES,
            "uniqueItems": True,
        },
        {"type": "string", "description": "One file."},
    ]
}
BOUND_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        bound.name: {"type": "number", "description": f"{bound.relation} {bound.value:g} otherwise: {bound.reason}."}
        | ({"minimum": 0, "maximum": bound.value} if bound.relation == "<=" else {"minimum": bound.value, "maximum": 1})
        for bound in table.BOUNDS
    },
}

Nats = Annotated[
    float, BeforeValidator(nats), WithJsonSchema({"type": "number", "exclusiveMinimum": 0, "maximum": MOST_KL})
]
Bytes = Annotated[int, BeforeValidator(size), WithJsonSchema(SIZE_SCHEMA)]
Texts = Annotated[tuple[str, ...], BeforeValidator(one_or_list), AfterValidator(texts), WithJsonSchema(TEXTS_SCHEMA)]
Bounds = Annotated[dict[str, Any], AfterValidator(tightened), WithJsonSchema(BOUND_SCHEMA)]
ModelName = Annotated[str, AfterValidator(model)]
