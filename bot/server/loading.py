"""Where settings stand: the environment, files that it names for secrets, and a TOML file, in this order.

In: the class, a file's path, an environment. Out: one valid instance, or one ``InvalidSettings`` that lists everything
that is wrong with its place. A value is shown only where the setting can hold no secret.
"""

from __future__ import annotations

import difflib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args

from pydantic import AliasChoices, SecretStr, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings

from bot.errors import InvalidSettings
from bot.publish.markdown import one_line

S = TypeVar("S", bound=BaseSettings)
PREFIX = "PTEBOT_"
FILE = "_FILE"
OTHERS = ("PTEBOT_CONFIG", "PTEBOT_STATE", "PTEBOT_EXPORT_USER")
"""Variables of this prefix that are no settings of the server."""
LARGEST_FILE = 1 << 20
_LINKS = re.compile(
    r"PTEBOT_([A-Z0-9_]+_)?(SERVICE_(HOST|PORT(_[A-Z0-9_]+)?)|PORT(_\d+_(TCP|UDP)(_(PROTO|PORT|ADDR))?)?)"
)
"""What Kubernetes puts in the environment of pods beside a Service whose name begins with ptebot
(https://kubernetes.io/docs/tutorials/services/connect-applications-service/#environment-variables)."""
_HIDDEN = ("database",)
"""Holds a password, though it is no secret as a whole."""


@dataclass(frozen=True, kw_only=True)
class Given:
    """One value and its place."""

    value: Any
    where: str
    """``PTEBOT_WATCH``, or ``settings.toml line 3: watch``."""
    in_file: bool = False


def load(cls: type[S], config: Path | None, env: Mapping[str, str]) -> tuple[S, Path | None]:
    """See ``bot.server.settings.load``; also the file, where a secret stands in it."""
    problems: list[str] = []
    if config is None and env.get("PTEBOT_CONFIG"):
        config = Path(env["PTEBOT_CONFIG"])
    given = _from_file(cls, config, problems) if config is not None else {}
    given |= _from_environment(cls, env, problems)
    fields = cls.model_fields
    in_file = any(secret(name, fields[name]) and one.in_file for name, one in given.items())
    try:
        made = cls(**{aliases(name, fields[name])[-1]: one.value for name, one in given.items()})
    except ValidationError as error:
        by_alias = {alias: name for name in fields for alias in (name, *aliases(name, fields[name]))}
        for item in error.errors(include_url=False, include_input=False, include_context=False):
            name = by_alias.get(str(item["loc"][0]), "") if item["loc"] else ""
            place = given[name].where if name in given else (variable(name, fields[name]) if name else "the settings")
            problems.append(f"{place}{_shown(name, fields, given)}: {_said(item['msg'])}")
    if problems:
        raise InvalidSettings("\n  ".join(["Settings are not valid:", *problems]))
    return made, config if in_file else None


def variable(name: str, field: FieldInfo) -> str:
    """The environment variable that the table of settings names for a field."""
    return next((alias for alias in aliases(name, field) if alias.isupper()), PREFIX + name.upper())


def variables(name: str, field: FieldInfo) -> tuple[str, ...]:
    """Every environment variable that sets a field, the first one that is there counts."""
    named = [alias for alias in aliases(name, field) if alias.isupper()]
    return tuple(dict.fromkeys((*named, PREFIX + name.upper())))


def aliases(name: str, field: FieldInfo) -> tuple[str, ...]:
    """Names that a field takes; the last one is what the file calls it."""
    alias = field.validation_alias
    return tuple(str(choice) for choice in alias.choices) if isinstance(alias, AliasChoices) else (name,)


def secret(name: str, field: FieldInfo) -> bool:
    """Whether a field's value is shown to nobody."""
    return name in _HIDDEN or SecretStr in (field.annotation, *_arguments(field.annotation))


def _arguments(annotation: Any) -> Iterator[Any]:
    for argument in get_args(annotation):
        yield argument
        yield from _arguments(argument)


def _from_environment(cls: type[BaseSettings], env: Mapping[str, str], problems: list[str]) -> dict[str, Given]:
    given: dict[str, Given] = {}
    names: dict[str, str] = {}
    for name, field in cls.model_fields.items():
        hidden = secret(name, field)
        for one in variables(name, field):
            names[one] = name
            if hidden:
                names[one + FILE] = name
            if one in env and env[one].strip() and name not in given:
                given[name] = Given(value=env[one].strip(), where=one)
            if not hidden or not env.get(one + FILE):
                continue
            if name in given:
                problems.append(f"{one}{FILE}: {given[name].where} is set too, and only one of them can count")
            else:
                given[name] = Given(value=_read(Path(env[one + FILE]), one + FILE, problems), where=one + FILE)
    for one in env:
        if one.startswith(PREFIX) and one not in names and one not in OTHERS and not _LINKS.fullmatch(one):
            problems.append(f"{one_line(one, 80)}: there is no such setting{_nearest(one, [*names, *OTHERS])}")
    return {name: one for name, one in given.items() if one.value is not None}


def _from_file(cls: type[BaseSettings], path: Path, problems: list[str]) -> dict[str, Given]:
    text = _read(path, "The file of settings", problems)
    if text is None:
        return {}
    shown = one_line(path, 200)
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        # The parser's words name the line and the kind of mistake, and now and then the key: never a value.
        problems.append(f"{shown}: it is no TOML: {_place(error)}")
        return {}
    keys = {aliases(name, field)[-1]: name for name, field in cls.model_fields.items()}
    given = {}
    for key, value in data.items():
        found = re.search(rf"^[ \t]*[\"']?{re.escape(key)}[\"']?[ \t]*[=.]", text, re.MULTILINE)
        line = f" line {text.count(chr(10), 0, found.start()) + 1}" if found else ""
        where = f"{shown}{line}: {one_line(key, 80)}"
        if key not in keys:
            problems.append(f"{where}: there is no such setting{_nearest(key, list(keys))}")
        else:
            given[keys[key]] = Given(value=_plain(value), where=where, in_file=True)
    return given


def _plain(value: Any) -> Any:
    """TOML's lists as the tuples that fields are."""
    return tuple(value) if isinstance(value, list) else value


def _place(error: tomllib.TOMLDecodeError) -> str:
    found = re.search(r"\(at (line \d+, column \d+|end of document)\)$", str(error))
    return f"it cannot be read at {found[1].removeprefix('at ')}" if found else "it cannot be read"


def _read(path: Path, what: str, problems: list[str]) -> str | None:
    try:
        with path.open("rb") as file:
            content = file.read(LARGEST_FILE + 1)
        if len(content) > LARGEST_FILE:
            problems.append(f"{what}: {one_line(path, 200)} is larger than {LARGEST_FILE:,} bytes")
            return None
        return content.decode().strip()
    except OSError as error:
        problems.append(f"{what}: {one_line(path, 200)} cannot be read: {error.strerror}")
    except UnicodeDecodeError:
        problems.append(f"{what}: {one_line(path, 200)} is no text in UTF-8")
    return None


def _nearest(name: str, known: list[str]) -> str:
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    return f"; did you mean {found[0]}?" if found else ""


def _shown(name: str, fields: Mapping[str, FieldInfo], given: Mapping[str, Given]) -> str:
    if name not in given or secret(name, fields[name]):
        return ""
    value = given[name].value
    text = ",".join(map(str, value)) if isinstance(value, tuple) else str(value)
    return f" = {one_line(text, 80)!r}"


def _said(message: str) -> str:
    message = message.removeprefix("Value error, ")
    return one_line(message[:1].lower() + message[1:], 300)
