"""``.ptebot.yml``: what a repository's owners want of ptebot, in a file beside the model. Stage 1.

In: a path. Out: a ``Config``, or ``InvalidConfig`` that names the line and, for a wrong key, the nearest right one.
The file can say what is exported and when, and only that: where results go and which tokens are used is the
workflow's to say, because who may change the one need not be who may change the other. docs/config.schema.json is
generated from the classes here. To add a key: a field with a docstring, its use, and ``make docs``.
"""

from __future__ import annotations

import difflib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, WithJsonSchema

from bot import yaml_lines
from bot.errors import InvalidConfig
from bot.names import BACKENDS, MOST_TOKENS, PRECISIONS
from bot.publish.markdown import one_line
from bot.triggers.values import MODEL
from bot.yaml_lines import Place, Unreadable
from exporter import bounds as table
from exporter.errors import InvalidSpec

MOST_BYTES = yaml_lines.MOST_CHARACTERS
MOST_MODELS = 50
MOST_PATTERNS = 100
_WORDS = {
    "tuple_type": "it takes a list",
    "bool_type": "it takes true or false",
    "int_type": "it takes a whole number",
    "string_type": "it takes a text, in quotes where it looks like something else",
    "dict_type": "it takes names and numbers",
    "model_type": "it takes keys and values, `model: OWNER/NAME` for one",
    "too_short": "it takes at least one",
    "too_long": f"it takes at most {MOST_MODELS}",
}
"""pydantic's kinds of errors that our readers need other words for."""


def _kebab(name: str) -> str:
    return name.replace("_", "-")


def _split(value: Any) -> Any:
    """A list, or its names with commas between them."""
    if isinstance(value, str):
        value = [part.strip() for part in value.split(",")]
    return tuple(value) if isinstance(value, list) else value


def _known(names: tuple[str, ...]) -> Callable[[tuple[str, ...]], tuple[str, ...]]:
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


def _names(names: tuple[str, ...]) -> Any:
    schema = {
        "anyOf": [
            {"type": "array", "items": {"enum": list(names)}, "minItems": 1, "uniqueItems": True},
            {"type": "string", "description": "Names with commas between them."},
        ]
    }
    return Annotated[tuple[str, ...], BeforeValidator(_split), AfterValidator(_known(names)), WithJsonSchema(schema)]


def _model(value: str) -> str:
    if not MODEL.fullmatch(value):
        raise ValueError("it takes OWNER/NAME of the Hub, or a folder of the repository")
    return value


def _patterns(value: tuple[str, ...]) -> tuple[str, ...]:
    if not 0 < len(value) <= MOST_PATTERNS:
        raise ValueError(f"it takes 1 to {MOST_PATTERNS} patterns")
    for pattern in value:
        parts = pattern.removeprefix("!").split("/")
        if not 0 < len(pattern) <= 200 or not pattern.isprintable() or ".." in parts or parts[0] == "":
            raise ValueError("a pattern is a path below the repository's root, with at most 200 characters")
    if all(pattern.startswith("!") for pattern in value):
        raise ValueError("patterns that only leave out take nothing in; begin with '**'")
    return value


def _tightened(value: dict[str, Any]) -> dict[str, float]:
    for name, bound in value.items():
        if isinstance(bound, bool) or not isinstance(bound, int | float):
            raise ValueError(f"'{one_line(name, 40)}' takes a number")
    try:
        table.check(value)
    except InvalidSpec as error:
        raise ValueError(one_line(error.what).rstrip(".")) from None
    return {name: float(bound) for name, bound in value.items()}


Patterns = Annotated[
    tuple[str, ...],
    BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
    AfterValidator(_patterns),
    WithJsonSchema({"type": "array", "items": {"type": "string"}, "minItems": 1, "maxItems": MOST_PATTERNS}),
]
_BOUND_SCHEMA: dict[str, Any] = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        bound.name: {"type": "number", "description": f"{bound.relation} {bound.value:g} otherwise: {bound.reason}."}
        | ({"minimum": 0, "maximum": bound.value} if bound.relation == "<=" else {"minimum": bound.value, "maximum": 1})
        for bound in table.BOUNDS
    },
}


class Settings(BaseModel):
    """What can be said of one model, and at the top for all of them; null leaves it to the workflow or to ptebot."""

    model_config = ConfigDict(
        extra="forbid",
        strict=True,
        frozen=True,
        alias_generator=_kebab,
        populate_by_name=False,
        use_attribute_docstrings=True,
    )

    backends: _names(BACKENDS) | None = None  # type: ignore[valid-type]
    """Backends to make files for."""
    precisions: Annotated[_names(PRECISIONS) | None, Field(alias="precision")] = None  # type: ignore[valid-type]
    """Precisions to make."""
    embedding: Literal["fp32", "8w"] | None = None
    """The input embedding of quantized files."""
    max_seq_len: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    """Context length in tokens."""
    attention: Literal["auto", "custom", "stock"] | None = None
    """The runtime's own attention ops where a backend has them, or core ops only."""
    paths: Patterns | None = None
    """A push exports a model only when it changes one of these. Default: the model's folder and `.ptebot.yml`;
    any for a Hub model."""
    branches: Patterns | None = None
    """Branches whose pushes export. Default: the repository's default branch."""
    bounds: Annotated[dict[str, Any], AfterValidator(_tightened), WithJsonSchema(_BOUND_SCHEMA)] = Field(
        default_factory=dict
    )
    """Tighter bounds than ptebot's own, by name; docs/bounds.md lists them."""
    enabled: bool = True
    """`false`: nothing is exported, whoever asks."""


class Model(Settings):
    """One model of the repository."""

    model: Annotated[str, AfterValidator(_model)]
    """`OWNER/NAME` on the Hub, or a folder of the repository."""


class Config(Settings):
    """The whole file."""

    model: Annotated[str, AfterValidator(_model)] | None = None
    """The one model: `OWNER/NAME` on the Hub, or a folder of the repository (`.` for the repository itself)."""
    models: (
        Annotated[
            tuple[Model, ...],
            Field(min_length=1, max_length=MOST_MODELS),
            BeforeValidator(lambda value: tuple(value) if isinstance(value, list) else value),
        ]
        | None
    ) = None
    """Several models. What is said at the top holds for each that does not say otherwise."""
    comments: bool = True
    """`false`: `/ptebot` in comments does nothing."""

    def all_models(self) -> tuple[Model, ...]:
        """Every model that the file names, with what the top says filled in."""
        if self.models is not None:
            return tuple(self._filled(one) for one in self.models)
        return (self.settings_for(self.model),) if self.model is not None else ()

    def settings_for(self, model: str) -> Model:
        """What holds for a model, whether the file names it or not."""
        for one in self.models or ():
            if one.model.removeprefix("./") == model.removeprefix("./"):
                return self._filled(one)
        return self._filled(Model.model_construct(model=model, _fields_set={"model"}))

    def _filled(self, one: Model) -> Model:
        """``model_construct``: every value was checked when the file was read."""
        here = {name: getattr(self, name) for name in Settings.model_fields}
        own = {name: getattr(one, name) for name in one.model_fields_set if getattr(one, name) is not None}
        merged = {**here, **own, "bounds": {**self.bounds, **one.bounds}, "enabled": self.enabled and one.enabled}
        return Model.model_construct(**merged)


def load(path: Path, *, required: bool) -> Config:
    """The configuration in ``path``; without such a file the defaults, unless it is required.

    Raises:
        InvalidConfig: it cannot be read, is no YAML, or says what it may not; line and remedy are named.
    """
    text = _read(path, required)
    if text is None:
        return Config()
    try:
        data, lines = yaml_lines.load(text)
    except Unreadable as error:
        raise InvalidConfig(f"{_where(path, error.line)}: {one_line(error)}.") from None
    if data is None:
        return Config()
    if not isinstance(data, dict):
        raise InvalidConfig(f"{_where(path, 1)}: it has to be a list of keys and values, `model: OWNER/NAME` for one.")
    try:
        found = Config.model_validate(data)
    except ValidationError as error:
        raise InvalidConfig(_told(error, path, lines)) from None
    _check_models(found, path, lines)
    return found


def json_schema() -> dict[str, Any]:
    """The JSON Schema of the file (draft 2020-12), for editors."""
    schema = Config.model_json_schema(by_alias=True)
    one_or_several = {"not": {"required": ["model", "models"]}}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **schema,
        **one_or_several,
        "title": ".ptebot.yml",
    }


def _read(path: Path, required: bool) -> str | None:
    """A link is refused: it could lead to a file of the machine, of which an error would then show a line."""
    try:
        handle = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        if required:
            raise InvalidConfig(f"There is no {path.name}.", remedy="Check the path in the input `config`.") from None
        return None
    except OSError as error:
        raise InvalidConfig(f"{path.name} cannot be read ({error.strerror}); links are not followed.") from None
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise InvalidConfig(f"{path.name} is no file.")
    with os.fdopen(handle, "rb") as file:
        data = file.read(MOST_BYTES + 1)
    if len(data) > MOST_BYTES:
        raise InvalidConfig(f"{path.name} is larger than {MOST_BYTES:,} bytes.")
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise InvalidConfig(f"{path.name} is not UTF-8 text.") from None


def _check_models(found: Config, path: Path, lines: dict[Place, int]) -> None:
    if found.model is not None and found.models is not None:
        raise InvalidConfig(f"{_where(path, lines['models',])}: give `model` or `models`, not both.")
    seen: set[str] = set()
    for index, one in enumerate(found.models or ()):
        name = one.model.removeprefix("./")
        if name in seen:
            raise InvalidConfig(f"{_where(path, lines['models', index])}: {one_line(one.model, 100)} stands twice.")
        seen.add(name)


def _told(error: ValidationError, path: Path, lines: dict[Place, int]) -> str:
    """The first thing that is wrong, with its line, and how many more there are."""
    items = error.errors(include_url=False, include_context=False, include_input=False)
    # A list with a wrong part also counts as too short; the part is what is wrong.
    places = {item["loc"][:end] for item in items for end in range(len(item["loc"]))}
    items = [item for item in items if item["loc"] not in places]
    items.sort(key=lambda item: _line(item["loc"], lines))
    first = items[0]
    place = tuple(part for part in first["loc"] if isinstance(part, str | int))
    keys = [str(part) for part in place if isinstance(part, str) and part not in ("tuple", "constrained-int")]
    key = one_line(keys[-1], 60) if keys else "the file"
    if first["type"] == "extra_forbidden":
        known = _keys(Model if place[0] == "models" else Config)
        near = difflib.get_close_matches(key.lower().replace("_", "-"), known, n=1, cutoff=0.5)
        hint = f"the nearest is `{near[0]}`" if near else f"there are: {', '.join(known)}"
        what = f"`{key}` is no key; {hint}"
    elif first["type"] == "missing":
        what = f"`{key}` is missing"
    else:
        what = f"`{key}`: {_WORDS.get(first['type']) or one_line(first['msg'].removeprefix('Value error, '), 300)}"
    more = f" ({len(items) - 1} more)" if len(items) > 1 else ""
    return f"{_where(path, _line(first['loc'], lines))}: {what}{more}."


def _keys(kind: type[Settings]) -> list[str]:
    return [field.alias or name for name, field in kind.model_fields.items()]


def _line(loc: tuple[Any, ...], lines: dict[Place, int]) -> int:
    """The line of the innermost part of a place that the file has."""
    return next((lines[loc[:end]] for end in range(len(loc), -1, -1) if loc[:end] in lines), 1)


def _where(path: Path, line: int | None) -> str:
    return f"{path.name}, line {line}" if line is not None else path.name
