"""Prompts through the model's own chat template, which is a program that someone else wrote.

Goes in: a tokenizer and what is said. Comes out: the prompts' text, or None where there is no template or it does not
do. The template runs in transformers' Jinja sandbox, which keeps it from files and names but not from endless loops and
endless strings; so it runs in a child process with little time and little memory.
"""

from __future__ import annotations

import json
import logging
import multiprocessing
from collections.abc import Sequence
from contextlib import suppress
from datetime import datetime, tzinfo
from multiprocessing.connection import Connection
from typing import Any, Self

import psutil
from transformers.utils import chat_template_utils

from exporter.guard import shown

_LOG = logging.getLogger(__name__)
QUESTION = "Why do lakes freeze from the top? Explain it to a child in two sentences."
CPU_SECONDS = 10
"""Of a child's own time; templates in use take milliseconds."""
_WALL_SECONDS = 60.0
_MEMORY_BYTES = 1 << 30
LONGEST = 100_000
"""Bytes of UTF-8 per prompt; prompts in use have some hundreds."""


class _Clock(datetime):
    """Some templates write today's date, and the same model is to give the same text tomorrow."""

    @classmethod
    def now(cls, tz: tzinfo | None = None) -> Self:
        return cls(2025, 1, 1, tzinfo=tz)


def prompt(tokenizer: Any, content: str = QUESTION) -> str | None:
    """One user's turn and the beginning of the answer, as the chat template writes them."""
    found = prompts(tokenizer, [content])
    return found[0] if found is not None else None


def prompts(tokenizer: Any, contents: Sequence[str]) -> list[str] | None:
    """For each of ``contents``, a conversation that begins with it as the user's turn, up to where the answer begins.

    One child renders all of them, so a hostile template costs its limits once. A template that fails on one of them
    gives None, as one that is missing; the log says why.
    """
    if not getattr(tokenizer, "chat_template", None) or not contents:
        return None
    # Forked, for a tokenizer need not survive being sent and importing it anew takes seconds.
    context = multiprocessing.get_context("fork")
    # Asked before: in a sandbox a forked process need not find itself below /proc.
    most = psutil.Process().memory_info().vms + _MEMORY_BYTES
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_render, args=(tokenizer, contents, sender, most), daemon=True)
    child.start()
    sender.close()
    try:
        if not receiver.poll(_WALL_SECONDS):
            raise TimeoutError(f"it takes longer than {_WALL_SECONDS:.0f} s")
        kind, _, said = receiver.recv_bytes(LONGEST * len(contents)).decode().partition(" ")
        if kind == "prompts":
            found: list[str] = json.loads(said)
            if all(found):
                return found
        why = said if kind == "error" else "it gives nothing"
    except EOFError:
        why = f"it takes more than {CPU_SECONDS} s or too much memory"
    except (OSError, ValueError) as error:
        why = f"{type(error).__name__}: {error}"
    finally:
        child.kill()
        child.join()
        receiver.close()
    _LOG.warning("No chat text: the chat template cannot be rendered: %s", shown(why))
    return None


def _render(tokenizer: Any, contents: Sequence[str], sender: Connection, most_bytes: int) -> None:
    try:
        _limit(most_bytes)
        # Of this child alone: what is passed to a template arrives as plain data, so a clock cannot be passed.
        vars(chat_template_utils)["datetime"] = _Clock
        found = []
        for content in contents:
            text = tokenizer.apply_chat_template(
                [{"role": "user", "content": content}],
                tokenize=False,
                add_generation_prompt=True,
            )
            if len(text) > LONGEST:
                raise ValueError(f"a prompt of {len(text)} characters")
            found.append(text)
        said = "prompts " + json.dumps(found, ensure_ascii=False)
    except Exception as error:  # a template raises whatever it likes
        said = f"error {type(error).__name__}: {shown(error)}"
    sender.send_bytes(said.encode(errors="replace"))


def _limit(most_bytes: int) -> None:
    import resource

    for what, wanted in ((resource.RLIMIT_CPU, CPU_SECONDS), (resource.RLIMIT_AS, most_bytes)):
        hard = resource.getrlimit(what)[1]
        # Some systems refuse a limit on memory; the one on time is refused by none.
        with suppress(ValueError, OSError):
            resource.setrlimit(what, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))
