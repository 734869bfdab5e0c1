"""What GitHub's runner would make of a log: an independent reading of its command syntax, on the pessimistic side.

After ActionCommand.cs and ActionCommandManager.cs of actions/runner: a line ends at LF or CR; ``::name props::data``
counts at the start of a line after any white space, ``##[name props]data`` anywhere; ``stop-commands`` turns all of
them off until its token comes as a command. A comparison by culture skips characters without a width, so lines are
read a second time without them, and a third time without colours.
"""

from __future__ import annotations

import re
import unicodedata
from dataclasses import dataclass, field

NAMES = ["internal-set-repo-path", "set-env", "set-output", "save-state", "add-path", "add-mask", "add-matcher"]
NAMES += ["remove-matcher", "warning", "error", "notice", "debug", "group", "endgroup", "echo", "stop-commands"]
ANSI = re.compile(r"\x1b\[[0-9;]*m?")


@dataclass(frozen=True)
class Command:
    name: str
    properties: dict[str, str] = field(default_factory=dict)
    data: str = ""


def _unescape(text: str, *, prop: bool) -> str:
    table = {"%0D": "\r", "%0A": "\n", **({"%3A": ":", "%2C": ","} if prop else {}), "%25": "%"}
    for escaped, plain in table.items():
        text = text.replace(escaped, plain)
    return text


def _properties(text: str) -> dict[str, str]:
    pairs = [part.split("=", 1) for part in text.split(",") if "=" in part]
    return {key.strip(): _unescape(value, prop=True) for key, value in pairs}


def _new(line: str, names: list[str]) -> Command | None:
    line = line.lstrip()
    if not line.startswith("::") or (end := line.find("::", 2)) < 0:
        return None
    name, _, rest = line[2:end].partition(" ")
    if name.lower() not in names:
        return None
    return Command(name.lower(), _properties(rest), _unescape(line[end + 2 :], prop=False))


def _old(line: str, names: list[str]) -> Command | None:
    for start in [found.start() for found in re.finditer(r"##\[", line)]:
        if (end := line.find("]", start)) >= 0:
            name, _, rest = line[start + 3 : end].partition(" ")
            if name.lower() in names:
                return Command(name.lower(), _properties(rest), line[end + 1 :])
    return None


def _readings(line: str) -> list[str]:
    bare = ANSI.sub("", line)
    seen = "".join(c for c in bare if unicodedata.category(c) not in ("Cc", "Cf", "Mn", "Me", "Cn", "Co", "Cs"))
    return [line, bare, seen, unicodedata.normalize("NFKC", seen)]


def commands(log: str) -> list[Command]:
    """Every command that is carried out, in order."""
    found, token = [], None
    for line in re.split(r"\r\n|\r|\n", log):
        names = [*NAMES, *([token] if token else [])]
        parsed = next(
            (one for reading in _readings(line) for one in (_new(reading, names) or _old(reading, names),) if one), None
        )
        if parsed is None:
            continue
        if token is not None:
            if parsed.name == token:
                token = None
            continue
        found.append(parsed)
        if parsed.name == "stop-commands":
            token = parsed.data.lower()
    assert token is None, "commands are left switched off"
    return found


def legacy_in_display(log: str) -> bool:
    """Whether the log's viewer would draw a heading of somebody else's making (it reads no stop-commands)."""
    return any(_old(reading, NAMES) for line in re.split(r"[\r\n]+", log) for reading in _readings(line))


def raw_commands(log: str) -> list[Command]:
    """Every line that has the form of a command, switched off or not."""
    lines = re.split(r"\r\n|\r|\n", log)
    return [one for line in lines for reading in _readings(line)[:1] if (one := _new(reading, NAMES))]
