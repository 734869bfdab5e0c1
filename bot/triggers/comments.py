"""Commands in comments: a comment's body in, a command (or that there is none) out. Pure; stage 1.

Only the first line is read, and only where it begins with the exact word ``/ptebot``: no space before it, nothing
glued to it, lower case. From there on the grammar is strict, because a half-understood command could export the
wrong thing under somebody's name: an unknown word, key or value gives help and what was wrong. Words are separated
by spaces and tabs; any other character is part of a word and makes it unknown.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from bot import choices
from bot.names import BACKENDS, CACHES, EMBEDDINGS, PRECISIONS
from bot.triggers import values
from bot.triggers.request import Overrides, Verb
from bot.triggers.values import KEYS, Wrong, quoted

CALL = "/ptebot"
MOST_CHARACTERS = 1_000
"""Of the first line; the longest command that makes sense has some 500."""

GRAMMAR = f"""\
{CALL} export {" ".join(f"[{name}={key.shape}]" for name, key in KEYS.items())}
{CALL} status
{CALL} help
"""
"""What can be said, for help and docs."""

EXPLAINED = f"""\
- `backends`: one or more of {", ".join(f"`{name}`" for name in BACKENDS)}, separated by commas
- `precision`: one or more of {", ".join(f"`{name}`" for name in PRECISIONS)}, separated by commas
- `max-kl`, `max-size`: the budget of the precision `{choices.AUTO}`: the largest mean KL in nats, such as `0.05`, or \
the most bytes of a file, such as `90MB`
- `embedding`: the largest format for the input embedding of quantized files, \
{", ".join(f"`{name}`" for name in EMBEDDINGS[:-1])} or `{EMBEDDINGS[-1]}`
- `cache`: values of the KV cache, {" or ".join(f"`{name}`" for name in CACHES)}
- `calibration`: text files that say what the model is used for, by their paths in the model's folder, separated by \
commas
- `max-seq-len`: the context length in tokens
- `model`: `OWNER/NAME` of the Hub, or a folder of this repository
- `revision`: a branch, a tag or a commit of the model on the Hub

What is not given is taken from the workflow and from `.ptebot.yml`. A command is the first line of a comment, \
with nothing before it; the rest of the comment is not read.
"""
"""What the words mean, in Markdown."""

_SEPARATORS = re.compile(r"[ \t]+")


@dataclass(frozen=True, kw_only=True)
class Command:
    """What a comment asks for."""

    verb: Verb
    overrides: Overrides = field(default_factory=Overrides)
    problem: str | None = None
    """What is wrong with a command that was meant for us, the verb then being ``help``; safe to show anywhere."""


def parse(body: str) -> Command | None:
    """The command in a comment; None where it is not for us. Raises nothing."""
    line = re.split(r"[\r\n]", body[: MOST_CHARACTERS + 1], maxsplit=1)[0]
    if not line.startswith(CALL) or line[len(CALL) : len(CALL) + 1] not in ("", " ", "\t"):
        return None
    if len(line) > MOST_CHARACTERS:
        return _wrong(f"The command is longer than {MOST_CHARACTERS} characters.")
    return _command([word for word in _SEPARATORS.split(line[len(CALL) :]) if word])


def _command(words: list[str]) -> Command:
    verb, *rest = words or ["help"]
    if verb == "export":
        return _export(rest)
    if verb not in ("status", "help"):
        return _wrong(f"There is no command {quoted(verb)}.")
    if rest:
        return _wrong(f"The command {verb} takes nothing after it.")
    return Command(verb="status" if verb == "status" else "help")


def _export(words: list[str]) -> Command:
    given: dict[str, str] = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals:
            return _wrong(f"Settings are written as name=value; there is {quoted(word)}.")
        if name in given:
            return _wrong(f"{quoted(name)} is given twice.")
        given[name] = value
    try:
        return Command(verb="export", overrides=values.overrides(given))
    except Wrong as error:
        return _wrong(f"The command is not valid: {error}.")


def _wrong(problem: str) -> Command:
    return Command(verb="help", problem=problem)
