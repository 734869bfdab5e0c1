"""``python -m exporter.inspect FILE.pte``: what a file holds, as one JSON object on stdout.

A door of the exporter, beside ``python -m exporter`` and ``python -m exporter.validate``: reading a file asks
the native runtime, so the bot does it in a child process, for files of unknown origin. A typed failure is the
line ``{"stage": "error", ...}`` and the failure's exit code, as everywhere on this side of the wall.
"""

from __future__ import annotations

import json
import sys
from dataclasses import asdict
from pathlib import Path

from exporter import pte
from exporter.errors import PtebotError


def main(args: list[str]) -> int:
    """Describe the file named by the one argument; the exit code."""
    if len(args) != 1:
        print("usage: python -m exporter.inspect FILE.pte", file=sys.stderr)
        return 2
    try:
        found = asdict(pte.read(Path(args[0])))
    except PtebotError as error:
        line = {"error": type(error).__name__, "exit_code": error.exit_code, "message": error.what}
        print(json.dumps({"stage": "error", **line, "remedy": error.advice}), flush=True)
        return error.exit_code
    print(json.dumps(found), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
