"""The exporter's side of the process wall: what each of its doors (``python -m exporter...``) does alike.

stdout carries one JSON object a line, everything that libraries print goes to stderr, a typed failure is the last
line and the exit status, and a signal that asks for the end lets the staging directory go first.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from exporter.errors import PtebotError


def offline() -> None:
    """Set this process's environment: an exporter never asks the network, and rounds alike on every CPU.

    Libraries read it when they are imported, so a door calls this before it imports them.
    """
    os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
    os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def protocol() -> Callable[[dict[str, Any]], None]:
    """Keep stdout for JSON lines: whatever else writes to file descriptor 1 from now on lands on stderr."""
    sys.stdout.flush()
    channel = os.fdopen(os.dup(1), "w", encoding="utf-8", buffering=1)
    os.dup2(2, 1)

    def say(line: dict[str, Any]) -> None:
        channel.write(json.dumps(line, ensure_ascii=True) + "\n")

    return say


_ENDS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def _end(number: int, _frame: object) -> None:
    """Leave as an exception does, so that the staging directory goes; a second signal must not cut that short."""
    for each in _ENDS:
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def guarded_main(body: Callable[[Callable[[dict[str, Any]], None]], int]) -> int:
    """Run ``body`` with the protocol's channel; typed failures become the last line and the exit status."""
    offline()
    say = protocol()
    for number in _ENDS:
        if signal.getsignal(number) is not signal.SIG_IGN:  # what nohup asked for stays so
            signal.signal(number, _end)
    try:
        return body(say)
    except PtebotError as error:
        line = {"error": type(error).__name__, "exit_code": error.exit_code, "message": error.what}
        say({"stage": "error", **line, "remedy": error.advice})
        return error.exit_code
