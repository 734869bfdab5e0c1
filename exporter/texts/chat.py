"""A prompt through the model's own chat template, which is a program that someone else wrote.

Goes in: a tokenizer. Comes out: the prompt's text, or None where there is no template or it does not do. The
template runs in transformers' Jinja sandbox, which keeps it from files and names but not from endless loops and
endless strings; so it runs in a child process with little time and little memory.
"""

from __future__ import annotations

import logging
import multiprocessing
from contextlib import suppress
from multiprocessing.connection import Connection
from typing import Any

import psutil

from exporter.guard import shown

_LOG = logging.getLogger(__name__)
_MESSAGES = [{"role": "user", "content": "Why do lakes freeze from the top? Explain it to a child in two sentences."}]
CPU_SECONDS = 10
"""Of a child's own time; templates in use take milliseconds."""
_WALL_SECONDS = 60.0
_MEMORY_BYTES = 1 << 30
LONGEST = 100_000
"""Bytes of UTF-8; prompts in use have some hundreds."""


def prompt(tokenizer: Any) -> str | None:
    """One user's turn and the beginning of the answer, as the chat template writes them."""
    if not getattr(tokenizer, "chat_template", None):
        return None
    # Forked, for a tokenizer need not survive being sent and importing it anew takes seconds.
    context = multiprocessing.get_context("fork")
    # Asked before: in a sandbox a forked process need not find itself below /proc.
    most = psutil.Process().memory_info().vms + _MEMORY_BYTES
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=_render, args=(tokenizer, sender, most), daemon=True)
    child.start()
    sender.close()
    try:
        if not receiver.poll(_WALL_SECONDS):
            raise TimeoutError(f"it takes longer than {_WALL_SECONDS:.0f} s")
        kind, _, text = receiver.recv_bytes(LONGEST).decode().partition(" ")
        if kind == "prompt" and text:
            return text
        why = text or "it gives nothing"
    except EOFError:
        why = f"it takes more than {CPU_SECONDS} s or too much memory"
    except (OSError, UnicodeDecodeError) as error:
        why = f"{type(error).__name__}: {error}"
    finally:
        child.kill()
        child.join()
        receiver.close()
    _LOG.warning("No chat text: the chat template cannot be rendered: %s", shown(why))
    return None


def _render(tokenizer: Any, sender: Connection, most_bytes: int) -> None:
    try:
        _limit(most_bytes)
        text = tokenizer.apply_chat_template(_MESSAGES, tokenize=False, add_generation_prompt=True)
        said = f"prompt {text}"
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
