"""The values that the Action's inputs take: text in, typed values out, one small parser each. Stage 1.

A parser raises ``Wrong`` for a value that its input does not take; ``bot.action.inputs`` says which input that was.
Paths stay within the workspace, whatever they are spelled like and whatever the checkout links to.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

from bot import amounts
from bot.names import MOST_TOKENS
from bot.publish.markdown import one_line
from bot.publish.places import REPO_ID
from exporter import calibration_files

LEAST_MEMORY = 64 << 20
"""Bytes; less than any Python needs with torch in it, so it can only be a slip of the unit."""

_TOKEN = re.compile(r"[!-~]{1,4096}")
_REVISION = re.compile(r"(?!-)(?!.*\.\.)[^\s\x00-\x20\x7f~^:?*\[\\]{1,255}")


T = TypeVar("T")


class Wrong(Exception):
    """A value that its input does not take; the text says why, where the allowed values do not."""


@dataclass(frozen=True)
class Context:
    """What a value is read against."""

    workspace: Path
    """Without symlinks."""


Parse = Callable[[str, Context], Any]


def model(value: str, context: Context) -> str:
    model_folder(value, context)
    return value


def model_folder(value: str, context: Context) -> Path | None:
    """The folder that a model's name means; None where it is an id on the Hub."""
    explicit = value in (".", "./") or value.startswith("./")
    relative = path(value, context) if explicit or not REPO_ID.fullmatch(value) else value
    folder = context.workspace / relative
    if folder.is_dir():
        return context.workspace / path(value, context)
    if not explicit and REPO_ID.fullmatch(value):
        return None
    raise Wrong("the workspace has no such folder, and it is no OWNER/NAME of the Hub")


def revision(value: str, context: Context) -> str:
    if not _REVISION.fullmatch(value) or not value.isprintable():
        raise Wrong
    return value


def repo(value: str, context: Context) -> str:
    if not REPO_ID.fullmatch(value):
        raise Wrong
    return value


def path(value: str, context: Context) -> str:
    """A path of the workspace, normalized; it may or may not exist."""
    pure = PurePosixPath(value)
    if pure.is_absolute() or "\\" in value or not value.isprintable():
        raise Wrong("a path has to be relative to the workspace, with forward slashes")
    try:
        place = (context.workspace / pure).resolve()
        inside = place.is_relative_to(context.workspace)
        place.exists()
    except (OSError, RuntimeError) as error:  # a name that is too long, a ring of links
        raise Wrong("it is no path") from error
    if ".." in pure.parts or not inside:
        raise Wrong("it leads out of the workspace")
    return str(pure)


def file(value: str, context: Context) -> str:
    relative = path(value, context)
    if (context.workspace / relative).is_dir():
        raise Wrong("it is a folder")
    return relative


def output(value: str, context: Context) -> str:
    relative = path(value, context)
    place = (context.workspace / relative).resolve()
    if place == context.workspace or place.relative_to(context.workspace).parts[0].lower() == ".git":
        raise Wrong("files are never written over the checkout itself")
    if place.is_file():
        raise Wrong("it is a file")
    return relative


def names(known: tuple[str, ...]) -> Parse:
    def parse(value: str, context: Context) -> tuple[str, ...]:
        found = tuple(part.strip() for part in re.split(r"[,\n]", value) if part.strip())
        if not found:
            raise Wrong("it names none")
        for name in found:
            if name not in known:
                raise Wrong(f"there is no '{one_line(name, 40)}'")
            if found.count(name) > 1:
                raise Wrong(f"it names {name} twice")
        return found

    return parse


def choice(*allowed: str) -> Parse:
    def parse(value: str, context: Context) -> str:
        if value not in allowed:
            raise Wrong
        return value

    return parse


def boolean(value: str, context: Context) -> bool:
    if value.lower() not in ("true", "false"):
        raise Wrong
    return value.lower() == "true"


def tokens(value: str, context: Context) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", value) or not 1 <= int(value) <= MOST_TOKENS:
        raise Wrong
    return int(value)


def _read(parse: Callable[[str], T], value: str) -> T:
    try:
        return parse(value)
    except ValueError as error:
        raise Wrong(*error.args) from None


def amount(value: str) -> int:
    """Bytes, of any number."""
    return _read(amounts.size, value)


def size(value: str, context: Context) -> int:
    bytes_ = amount(value)
    if bytes_ < LEAST_MEMORY:
        raise Wrong("that is less than 64MiB")
    return bytes_


def file_size(value: str, context: Context | None = None) -> int:
    """The most bytes that a written file may have."""
    return _read(amounts.file_size, value)


def nats(value: str, context: Context | None = None) -> float:
    """The largest mean KL."""
    return _read(amounts.nats, value)


def texts(value: str, context: Context | None = None) -> tuple[str, ...]:
    """Names of text files below the model's folder, one a line or with commas between them."""
    found = tuple(part.strip() for part in re.split(r"[,\n]", value) if part.strip())
    if not found:
        raise Wrong("it names none")
    if (reason := calibration_files.wrong_list(found)) is not None:
        raise Wrong(reason)
    return found


def secret(value: str, context: Context) -> str:
    if not _TOKEN.fullmatch(value):
        raise Wrong("it has spaces, line breaks or other characters that no token has")
    return value


def address(value: str, context: Context) -> str:
    return web_address(value)


def web_address(value: str) -> str:
    try:
        parts = urlsplit(value)
        plain = parts.hostname and not (parts.username or parts.password or parts.query or parts.fragment)
        _ = parts.port
    except ValueError:
        raise Wrong from None
    if parts.scheme not in ("http", "https") or not plain or not re.fullmatch(r"[!-~]+", value):
        raise Wrong
    return value.rstrip("/")
