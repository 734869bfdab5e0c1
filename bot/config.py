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
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError

from bot import choices, yaml_lines
from bot.config_values import Bounds, Bytes, ModelName, Nats, Patterns, Texts, names
from bot.errors import InvalidConfig
from bot.names import BACKENDS, CACHES, EMBEDDINGS, MOST_TOKENS, PRECISIONS
from bot.publish.markdown import one_line
from bot.yaml_lines import Place, Unreadable

MOST_BYTES = yaml_lines.MOST_CHARACTERS
MOST_MODELS = 50
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

    backends: names(BACKENDS) | None = None  # type: ignore[valid-type]
    """Backends to make files for."""
    precisions: Annotated[names(PRECISIONS) | None, Field(alias="precision")] = None  # type: ignore[valid-type]
    """Precisions to make."""
    max_kl: Nats | None = None
    """Quality budget of the precision `auto`: the largest mean KL from the model, in nats; 0.05 for one."""
    max_size: Bytes | None = None
    """Size budget of the precision `auto`: the most bytes of a file; `90MB` for one."""
    embedding: Literal[EMBEDDINGS] | None = None  # type: ignore[valid-type]
    """The largest format for the input embedding of quantized files: int8, int4 or as it is."""
    cache: Literal[CACHES] | None = None  # type: ignore[valid-type]
    """Values of the KV cache; `int8` where the backend has the op."""
    calibration: Texts | None = None
    """Text files that say what the model is used for, by their paths in the model's folder: quantization is calibrated
    and measured on them."""
    max_seq_len: Annotated[int, Field(ge=1, le=MOST_TOKENS)] | None = None
    """Context length in tokens."""
    attention: Literal["auto", "custom", "stock"] | None = None
    """The runtime's own attention ops where a backend has them, or core ops only."""
    paths: Patterns | None = None
    """A push exports a model only when it changes one of these. Default: the model's folder and `.ptebot.yml`;
    any for a Hub model."""
    branches: Patterns | None = None
    """Branches whose pushes export. Default: the repository's default branch."""
    bounds: Bounds = Field(default_factory=dict)
    """Tighter bounds than ptebot's own, by name; docs/bounds.md lists them."""
    enabled: bool = True
    """`false`: nothing is exported, whoever asks."""


class Model(Settings):
    """One model of the repository."""

    model: ModelName
    """`OWNER/NAME` on the Hub, or a folder of the repository."""


class Config(Settings):
    """The whole file."""

    model: ModelName | None = None
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
        if {*choices.BUDGETS, "precisions"} & own.keys():
            # A budget is one thing, and is said of the precisions beside it: what the top allows auto goes with both.
            given = {*choices.BUDGETS} & own.keys()
            keeps = not given and choices.AUTO in (own.get("precisions") or ())
            here |= {} if keeps else dict.fromkeys(choices.BUDGETS)
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
    _check_budgets(found, path, lines)
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


def _check_budgets(found: Config, path: Path, lines: dict[Place, int]) -> None:
    """``auto`` and its budget stand together, so that who reads the file knows what is exported."""
    places: list[tuple[Place, Settings]] = [
        ((), found),
        *((("models", at), one) for at, one in enumerate(found.models or ())),
    ]
    for place, one in places:
        filled = found._filled(one) if isinstance(one, Model) else found
        said = {name: getattr(filled, name) for name in (*choices.BUDGETS, "precisions")}
        if (wrong := choices.apart(said)) is not None:
            key, reason = choices.kebab(wrong[0]), wrong[1]
            raise InvalidConfig(f"{_where(path, _line((*place, key), lines))}: `{key}`: {reason}.")
        if choices.AUTO in (one.precisions or ()) and not any(said[name] for name in choices.BUDGETS):
            where = _where(path, _line((*place, "precision"), lines))
            raise InvalidConfig(f"{where}: {choices.without_budget()}.")


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
