"""What an event may ask for instead of what inputs and configuration say: text in, checked values out. Pure; stage 1.

Comments and dispatches carry the same few values; here is what each may look like. A wrong value raises ``Wrong``
with a text that quotes plain names only, so that it can be shown anywhere.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from bot import amounts, choices
from bot.errors import InvalidEvent
from bot.names import BACKENDS, CACHES, EMBEDDINGS, MOST_TOKENS, PRECISIONS
from bot.triggers.request import Overrides
from exporter import calibration_files

MODEL = re.compile(
    r"(?=.{1,200}\Z)(?:\./)?(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._][A-Za-z0-9._+-]*"
    r"(?:/(?!\.{1,2}(?:/|\Z))[A-Za-z0-9._][A-Za-z0-9._+-]*)*|\."
)
"""An id on the Hub or a folder of the repository; ``.`` is the repository itself. Nothing leads out of it."""
REVISION = re.compile(r"(?!.*(?:\.\.|//|/\Z|\.\Z))[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}")
"""A branch, a tag or a commit with a plain name."""
TEXT = re.compile(r"(?!.*(?:^|/)\.{1,2}(?:/|\Z))[A-Za-z0-9._][A-Za-z0-9._+-]*(?:/[A-Za-z0-9._][A-Za-z0-9._+-]*)*")
"""A file by a plain path."""
_TOKENS = re.compile(r"[1-9][0-9]{0,7}")
_QUOTABLE = re.compile(r"(?![0-9a-f]{7,40}\Z)(?!(?i:gh-))[A-Za-z0-9_,-]{1,40}")
"""Neither markup nor a mention, an address, or what GitHub takes for a commit or an issue."""


class Wrong(Exception):
    """A value that may not stand there; the text says why."""


@dataclass(frozen=True)
class Key:
    """One thing that can be asked for."""

    field: str
    """The attribute of ``Overrides``."""
    shape: str
    """How its value is written, for the grammar."""
    parse: Callable[[str], Any]


def quoted(word: str) -> str:
    """A word for an error: itself where it is a plain one, otherwise only that it is none."""
    return f"'{word}'" if _QUOTABLE.fullmatch(word) else "a word that is not a plain one"


def overrides(given: Mapping[str, str]) -> Overrides:
    """Parse values by key; raises Wrong for an unknown key or a value that is not valid."""
    found: dict[str, Any] = {}
    for name, value in given.items():
        if name not in KEYS:
            raise Wrong(f"{quoted(name)} is no setting; there are: {', '.join(KEYS)}")
        try:
            found[KEYS[name].field] = KEYS[name].parse(value)
        except Wrong as error:
            raise Wrong(f"{name}: {error}") from None
    if (wrong := choices.apart(found)) is not None:
        raise Wrong(f"{choices.kebab(wrong[0])}: {wrong[1]}")
    return Overrides(**found)


def _names(known: tuple[str, ...]) -> Callable[[str], tuple[str, ...]]:
    def parse(value: str) -> tuple[str, ...]:
        names = tuple(value.split(",")) if len(value) <= 400 else (value,)
        for name in names:
            if name not in known:
                raise Wrong(f"{quoted(name)} is none of: {', '.join(known)}" if name else "a name is missing")
            if names.count(name) > 1:
                raise Wrong(f"it names {name} twice")
        return names

    return parse


def _tokens(value: str) -> int:
    if not _TOKENS.fullmatch(value) or int(value) > MOST_TOKENS:
        raise Wrong(f"it takes a whole number from 1 to {MOST_TOKENS}")
    return int(value)


def _one_of(known: tuple[str, ...]) -> Callable[[str], str]:
    def parse(value: str) -> str:
        if value not in known:
            raise Wrong(f"{quoted(value)} is none of: {', '.join(known)}" if value else "a name is missing")
        return value

    return parse


def _amount(parse: Callable[[str], Any], otherwise: str) -> Callable[[str], Any]:
    def read(value: str) -> Any:
        try:
            return parse(value)
        except ValueError as error:
            raise Wrong(str(error) or otherwise) from None

    return read


def _texts(value: str) -> tuple[str, ...]:
    names = tuple(value.split(","))
    if not all(TEXT.fullmatch(name) for name in names):
        raise Wrong("it takes files by plain paths below the model's folder, with commas between them")
    if (reason := calibration_files.wrong_list(names)) is not None:
        raise Wrong(reason)
    return names


def _model(value: str) -> str:
    if not MODEL.fullmatch(value):
        raise Wrong("it takes OWNER/NAME of the Hub, or a folder of the repository")
    return value


def _revision(value: str) -> str:
    if not REVISION.fullmatch(value):
        raise Wrong("it takes a branch, a tag or a commit with a plain name")
    return value


KEYS: dict[str, Key] = {
    "backends": Key("backends", "NAME,...", _names(BACKENDS)),
    "precision": Key("precisions", "NAME,...", _names(PRECISIONS)),
    "max-kl": Key("max_kl", "NATS", _amount(amounts.nats, "")),
    "max-size": Key("max_size", "SIZE", _amount(amounts.file_size, "it is no size, such as 90MB")),
    "embedding": Key("embedding", "NAME", _one_of(EMBEDDINGS)),
    "cache": Key("cache", "NAME", _one_of(CACHES)),
    "calibration": Key("calibration", "FILE,...", _texts),
    "max-seq-len": Key("max_seq_len", "TOKENS", _tokens),
    "model": Key("model", "MODEL", _model),
    "revision": Key("revision", "REVISION", _revision),
}
"""To add a setting that a comment or a dispatch may give: a line here, a field of ``Overrides``, and its use."""


def from_json(given: Mapping[str, Any], what: str) -> Overrides:
    """Overrides from the JSON of a dispatch; '' and null count as not given.

    Args:
        what: who says so, for the error: ``dispatch ptebot-export``.

    Raises:
        InvalidEvent: an unknown key, or a value that is not valid.
    """
    texts: dict[str, str] = {}
    for name, value in given.items():
        if value is None or value == "":
            continue
        key = key_of(name)
        text = _text(value) if not isinstance(value, float) or key != "max-kl" else amounts.decimal(value)
        if text is None:
            raise InvalidEvent(f"The {what} gives {quoted(key)} a value that is no text and no number.")
        if key in texts:
            raise InvalidEvent(f"The {what} gives {quoted(key)} twice.")
        texts[key] = text
    try:
        return overrides(texts)
    except Wrong as error:
        raise InvalidEvent(f"The {what} is not valid: {error}.") from None


def key_of(name: Any) -> str:
    """A setting's name as we spell it: inputs of a workflow are written with underscores as well."""
    return name.replace("_", "-") if isinstance(name, str) and len(name) < 100 else ""


def _text(value: Any) -> str | None:
    """A JSON value as it would be written in a comment; None where it could not be."""
    if isinstance(value, list) and len(value) < 100 and all(isinstance(one, str) for one in value):
        value = ",".join(value)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) < 1 << 64:
        return str(value)
    return re.sub(r"\s*,\s*", ",", value.strip()) if isinstance(value, str) and len(value) <= 1000 else None
