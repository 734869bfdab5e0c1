"""``python -m exporter SPEC.json MODEL_DIR OUT_DIR``: the process wall between bot and exporter.

stdout carries one JSON object a line: ``{"stage", "backend", "precision", "fraction", "message"}``; a typed
failure ends with ``{"stage": "error", "error", "exit_code", "message", "remedy"}``. Everything that libraries
print goes to stderr. The exit status is 0 when at least one cell is good, 3 when none is, else the failure's.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

# Before anything that could look: an exporter never asks the network, and rounds alike on every CPU.
os.environ["HF_HUB_OFFLINE"] = os.environ["TRANSFORMERS_OFFLINE"] = "1"
os.environ.setdefault("ONEDNN_MAX_CPU_ISA", "AVX512_CORE")
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")


def protocol() -> Callable[[dict[str, Any]], None]:
    """Keep stdout for JSON lines: whatever else writes to file descriptor 1 from now on lands on stderr."""
    import json

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
    from exporter.errors import PtebotError

    say = protocol()
    for number in _ENDS:
        signal.signal(number, _end)
    try:
        return body(say)
    except PtebotError as error:
        line = {"error": type(error).__name__, "exit_code": error.exit_code, "message": error.what}
        say({"stage": "error", **line, "remedy": error.advice})
        return error.exit_code


def main(args: list[str]) -> int:
    """Run one export; gives the exit status."""
    if len(args) != 3:
        print("usage: python -m exporter SPEC.json MODEL_DIR OUT_DIR", file=sys.stderr)
        return 2

    def body(say: Callable[[dict[str, Any]], None]) -> int:
        from dataclasses import asdict

        from exporter import spec
        from exporter.errors import NoGoodCell

        wanted = spec.load(Path(args[0]))  # before torch is imported, which takes seconds
        from exporter.run import export

        result = export(wanted, Path(args[1]), Path(args[2]), lambda step: say(asdict(step)))
        return 0 if result.good_cells else NoGoodCell.exit_code

    return guarded_main(body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
