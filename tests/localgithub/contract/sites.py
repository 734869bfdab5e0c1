"""Where our code speaks to GitHub's API: every ``client.call(...)`` in ``bot``, and which of them a test reached."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import bot
from bot.githubapi import Client

ROOT = Path(bot.__file__).parent


@dataclass(frozen=True)
class Site:
    """A call in the source: ``file`` from ``bot/``, lines, and the HTTP method."""

    file: str
    first: int
    last: int
    method: str

    def __str__(self) -> str:
        return f"bot/{self.file}:{self.first} ({self.method})"


def sites() -> Iterator[Site]:
    """Every ``<something>.call("VERB", ...)`` of the bot."""
    for path in sorted(ROOT.rglob("*.py")):
        name = path.relative_to(ROOT).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or node.func.attr != "call":
                continue
            verb = node.args[0] if node.args else None
            if isinstance(verb, ast.Constant) and verb.value in ("GET", "POST", "PATCH", "PUT", "DELETE", "HEAD"):
                yield Site(name, node.lineno, node.end_lineno or node.lineno, verb.value)


def bypasses() -> Iterator[str]:
    """Uses of PyGithub outside ``bot.githubapi``: what they send, ``sites`` would not know of."""
    for path in sorted(ROOT.rglob("*.py")):
        if path != ROOT / "githubapi.py":
            for node in ast.walk(ast.parse(path.read_text())):
                if isinstance(node, ast.Attribute) and node.attr in ("gh", "requester"):
                    yield f"bot/{path.relative_to(ROOT).as_posix()}:{node.lineno}"


@contextmanager
def watching() -> Iterator[set[tuple[str, int]]]:
    """File (from ``bot/``) and line of every caller of ``Client.call`` meanwhile."""
    reached: set[tuple[str, int]] = set()
    real = Client.call

    def call(self: Client, *arguments: Any, **named: Any) -> Any:
        frame = sys._getframe(1)
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT):
            reached.add((path.relative_to(ROOT).as_posix(), frame.f_lineno))
        return real(self, *arguments, **named)

    Client.call = call  # type: ignore[method-assign]
    try:
        yield reached
    finally:
        Client.call = real  # type: ignore[method-assign]
