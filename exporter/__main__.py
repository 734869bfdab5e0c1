"""``python -m exporter SPEC.json MODEL_DIR OUT_DIR [--memory-limit BYTES]``: the process wall between bot and exporter.

stdout carries one JSON object a line: ``{"stage", "backend", "precision", "fraction", "message"}``; a typed
failure ends with ``{"stage": "error", "error", "exit_code", "message", "remedy"}``. Everything that libraries
print goes to stderr. The exit status is 0 when at least one cell is good; when none is, what all failed cells have in
common (``report.Report.exit_code``) or else 3; a failure of the whole has its own.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporter.wall import guarded_main


def main(args: list[str]) -> int:
    """Run one export; gives the exit status."""
    limited = len(args) == 5 and args[3] == "--memory-limit" and args[4].isdecimal()
    if len(args) != 3 and not limited:
        print("usage: python -m exporter SPEC.json MODEL_DIR OUT_DIR [--memory-limit BYTES]", file=sys.stderr)
        return 2

    def body(say: Callable[[dict[str, Any]], None]) -> int:
        from dataclasses import asdict

        from exporter import spec

        wanted = spec.load(Path(args[0]))  # before torch is imported, which takes seconds
        from exporter.run import export

        limit = int(args[4]) if limited else None
        result = export(wanted, Path(args[1]), Path(args[2]), lambda step: say(asdict(step)), memory_limit_bytes=limit)
        return result.exit_code

    return guarded_main(body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
