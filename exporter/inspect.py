"""``python -m exporter.inspect FILE.pte``: what a file holds, as one JSON object on stdout.

A door of the exporter, beside ``python -m exporter``: reading a file asks the native runtime, so the bot does it
in a child process, for files of unknown origin. Failures are told as there.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporter.wall import guarded_main


def main(args: list[str]) -> int:
    """Describe the file named by the one argument; gives the exit status."""
    if len(args) != 1:
        print("usage: python -m exporter.inspect FILE.pte", file=sys.stderr)
        return 2

    def body(say: Callable[[dict[str, Any]], None]) -> int:
        from dataclasses import asdict

        from exporter import pte

        say(asdict(pte.read(Path(args[0]))))
        return 0

    return guarded_main(body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
