"""Everything that this process prints goes through the Action's log: nothing can print past it. Stage 6.

In: a ``Log``. Out: for the time of a ``with`` block, ``print``, ``logging``, tracebacks, C libraries and child
processes that inherit our streams write into the log, where no line of theirs can be a workflow command.
"""

from __future__ import annotations

import ctypes
import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import TextIO, cast

from bot.action.commands import Log

JOIN_SECONDS = 5.0
"""How long the end waits for a child that outlived us and holds our output open."""


@contextmanager
def taken_over(log: Log) -> Iterator[None]:
    """Route file descriptors 1 and 2, and Python's streams, into ``log``, which writes to what 1 was."""
    before = [stream for stream in (sys.stdout, sys.stderr, sys.__stdout__, sys.__stderr__) if stream is not None]
    _flush(*before)
    real = os.fdopen(os.dup(1), "w", encoding="utf-8", errors="replace", newline="\n")
    error = os.dup(2)
    reading, writing = os.pipe()
    reader = threading.Thread(target=_copy, args=(reading, log), name="output of libraries", daemon=True)
    out, err = log.stream(1), log.stream(2)
    try:
        with log.writing_to(real):
            os.dup2(writing, 1)
            os.dup2(writing, 2)
            os.close(writing)
            reader.start()
            try:
                with redirect_stdout(cast(TextIO, out)), redirect_stderr(cast(TextIO, err)):
                    yield
            finally:
                out.drain()
                err.drain()
                _flush(*before)
                os.dup2(real.fileno(), 1)
                os.dup2(error, 2)
                reader.join(timeout=JOIN_SECONDS)
    finally:
        real.close()
        os.close(error)


def _flush(*streams: TextIO) -> None:
    """What is still held back by Python or by C must leave before the descriptors change under it."""
    for stream in streams:
        with suppress(ValueError, OSError):
            stream.flush()
    ctypes.CDLL(None).fflush(None)


def _copy(reading: int, log: Log) -> None:
    lines = log.stream()
    with os.fdopen(reading, encoding="utf-8", errors="replace", newline="") as stream:
        while text := stream.readline(8192):
            lines.write(text)
    lines.drain()
