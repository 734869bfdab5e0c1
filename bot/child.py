"""Runs one Python module as a child process that has no secrets; lines out, logs kept, always reaped.

Stage 3 of the way of one request: this is the parent's half of the wall between bot and exporter. In:
a module's name and its arguments. Out: bounded lines of its standard output, its exit code and the end
of its log. The child sees an environment made from an allowlist (no token, no proxy, no user's HOME),
runs in a scratch directory (so that no file of the current directory can pass for a Python module), and
is stopped together with its process group whatever happens here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO

MAX_LINE_BYTES = 64 * 1024
"""A longer line of output is dropped: no message of ours comes near it."""
LOG_LINES = 400
LOG_LINE_CHARACTERS = 4096
GRACE_SECONDS = 10.0
"""How long an interrupted child may take to remove what it staged before it is killed."""

PASSED_ON = ("PATH", "LANG", "LC_ALL", "TMPDIR", "OMP_NUM_THREADS")
"""The only variables that a child inherits. To pass on another, make sure that it can hold no secret."""
FIXED = {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1", "PYTHONHASHSEED": "0", "PYTHONUNBUFFERED": "1"}


@dataclass(frozen=True, kw_only=True)
class Exit:
    """How a child ended."""

    code: int
    """The exit status; negative: the signal that killed it."""
    log_tail: str
    """The last lines of its standard error."""


def environment(home: Path) -> dict[str, str]:
    """The child's whole environment."""
    passed = {name: os.environ[name] for name in PASSED_ON if name in os.environ}
    return {"LANG": "C.UTF-8", **passed, **FIXED, "HOME": str(home)}


def run_module(
    module: str,
    args: list[str],
    *,
    on_line: Callable[[bytes], None],
    on_log: Callable[[str], None] = lambda line: None,
) -> Exit:
    """Run ``python -m module args`` to its end.

    ``on_line`` gets each line of standard output without its newline, at most ``MAX_LINE_BYTES`` long.
    An exception here (KeyboardInterrupt included) stops the child and its process group first.
    """
    tail: deque[str] = deque(maxlen=LOG_LINES)

    def keep(line: bytes) -> None:
        text = line.decode("utf-8", "replace")[:LOG_LINE_CHARACTERS]
        tail.append(text)
        on_log(text)

    with tempfile.TemporaryDirectory(prefix="ptebot-home-") as home:
        child = subprocess.Popen(
            [sys.executable, "-P", "-m", "bot.leash", module, *args],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment(Path(home)),
            cwd=home,
            start_new_session=True,
        )
        assert child.stdout and child.stderr  # noqa: S101 - for the type checker: both were asked for
        reader = threading.Thread(target=_each_line, args=(child.stderr, keep), name=f"{module} log", daemon=True)
        reader.start()
        try:
            _each_line(child.stdout, on_line)
            code = child.wait()
        finally:
            _stop(child)
        reader.join(timeout=GRACE_SECONDS)
    return Exit(code=code, log_tail="\n".join(tail))


def _each_line(stream: IO[bytes], use: Callable[[bytes], None]) -> None:
    """Give every line to ``use``; one longer than ``MAX_LINE_BYTES`` is dropped whole."""
    dropping = False
    while part := stream.readline(MAX_LINE_BYTES):
        whole = part.endswith(b"\n")
        if not dropping and (whole or len(part) < MAX_LINE_BYTES):
            use(part.rstrip(b"\r\n"))
        dropping = not whole


def _stop(child: subprocess.Popen[bytes]) -> None:
    """End the child's whole group: interrupted first, so that it can remove its staging, then killed."""
    try:
        if child.poll() is None:
            _signal_group(child, signal.SIGINT)
            child.wait(timeout=GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        pass
    finally:
        _signal_group(child, signal.SIGKILL)
        child.wait()
        if child.stdin:
            child.stdin.close()


def _signal_group(child: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(child.pid, number)
