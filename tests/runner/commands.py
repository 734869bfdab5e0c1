"""Workflow commands: the lines of a step's output that the runner takes for itself instead of printing them."""

from __future__ import annotations

import base64
import json
import re
from dataclasses import dataclass, field
from urllib.parse import quote

KNOWN = (
    "add-mask", "add-matcher", "add-path", "debug", "echo", "endgroup", "error", "group", "internal-set-repo-path",
    "notice", "remove-matcher", "save-state", "set-env", "set-output", "stop-commands", "warning",
)  # fmt: skip
"""ActionCommandManager and its extensions; compared without case."""
UNSECURE = ("set-env", "add-path")
"""Refused by the runner since 2020; a line that reaches them fails the step."""
LEAST_MASKED_TOKEN = 7
_ZERO_WIDTH = re.compile(r"^[\s\u00ad\u200b-\u200f\u2060-\u2064\ufeff]+")
"""The runner's StartsWith compares by culture, and so does not see these."""


@dataclass(frozen=True, kw_only=True)
class Command:
    """One command that was obeyed."""

    name: str
    data: str
    properties: dict[str, str]


def parse(line: str, known: set[str]) -> Command | None:
    """The line as a command, or None; ``known`` are lower-case names."""
    return _colons(line, known) or _brackets(line, known)


def _colons(line: str, known: set[str]) -> Command | None:
    text = _ZERO_WIDTH.sub("", line)
    end = text.find("::", 2)
    if not text.startswith("::") or end < 0:
        return None
    name, _, given = text[2:end].partition(" ")
    if name.lower() not in known:
        return None
    pairs = (pair.partition("=") for pair in given.strip().split(",") if "=" in pair)
    properties = {key: _unescape(value, {"%3A": ":", "%2C": ","}) for key, _, value in pairs}
    return Command(name=name.lower(), data=_unescape(text[end + 2 :], {}), properties=properties)


def _brackets(line: str, known: set[str]) -> Command | None:
    """The older form, anywhere in a line."""
    start = line.find("##[")
    end = line.find("]", start)
    if start < 0 or end < 0:
        return None
    name, _, given = line[start + 3 : end].partition(" ")
    if name.lower() not in known:
        return None
    pairs = (pair.partition("=") for pair in given.strip().split(";") if "=" in pair)
    older = {"%3B": ";", "%5D": "]"}
    properties = {key: _unescape(value, older) for key, _, value in pairs}
    return Command(name=name.lower(), data=_unescape(line[end + 1 :], older), properties=properties)


def _unescape(text: str, more: dict[str, str]) -> str:
    for escaped, plain in {"%0D": "\r", "%0A": "\n", **more, "%25": "%"}.items():
        text = text.replace(escaped, plain)
    return text


@dataclass
class Masks:
    """What must not be shown, in the forms that the runner knows."""

    values: set[str] = field(default_factory=set)

    def add(self, secret: str) -> None:
        """The value, and each of its lines."""
        for part in {secret, *re.split(r"[\r\n]+", secret)}:
            if part.strip():
                encoded = base64.b64encode(part.encode()).decode()
                self.values |= {part, quote(part, safe=""), json.dumps(part)[1:-1], encoded}

    def hide(self, text: str) -> str:
        for value in sorted(self.values, key=len, reverse=True):
            text = text.replace(value, "***")
        return text


class Reader:
    """One step's output, line by line.

    ``log`` is what a person sees (masks applied when the line came, as the runner does), ``raw`` what was written.
    """

    def __init__(self, masks: Masks) -> None:
        self.masks = masks
        self.raw: list[str] = []
        self.log: list[str] = []
        self.commands: list[Command] = []
        self.outputs: dict[str, str] = {}
        self.errors: list[str] = []
        """What the runner itself holds against the step; any of it fails the step."""
        self._known = set(KNOWN)
        self._token: str | None = None

    def line(self, line: str) -> None:
        self.raw.append(line)
        command = parse(line, self._known)
        if command is None:
            self._print(line)
        elif self._token is not None:
            if command.name == self._token:
                self._known.discard(self._token)
                self._token = None
            self._print(line)
        elif command.name == "stop-commands":
            self._stop(line, command.data)
        else:
            self._obey(line, command)

    def _stop(self, line: str, token: str) -> None:
        if not token or token.lower() in self._known or token.lower() == "pause-logging":
            self.errors.append(f"Invalid token for stop-commands: {token!r}")
            return
        self._token = token.lower()
        self._known.add(self._token)
        if len(token) >= LEAST_MASKED_TOKEN:
            self.masks.add(token)
        self.commands.append(Command(name="stop-commands", data=token, properties={}))
        self._print(line)

    def _obey(self, line: str, command: Command) -> None:
        self.commands.append(command)
        if command.name in UNSECURE:
            self.errors.append(f"Unable to process command '{line}' successfully.")
        elif command.name == "add-mask":
            if command.data.strip():
                self.masks.add(command.data)
        elif command.name == "set-output":
            self.outputs[command.properties.get("name", "")] = command.data
        elif command.name in ("group", "endgroup", "notice", "warning", "error", "debug"):
            self._print(f"##[{command.name}]{command.data}")

    def _print(self, line: str) -> None:
        self.log.append(self.masks.hide(line))
