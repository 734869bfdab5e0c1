"""``ptebot serve`` or ``ptebot worker`` as they are, but for the exporter, which is quick.

    python -m bench.chaos.server JOURNAL serve --port 8080

Settings come from the environment, as they do for the real commands. It ends with its standard input: with the bench,
whatever ends that.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

from bench.chaos.executor import QuickExporter
from bot import cli, export_process
from bot.server import executors


def main(journal: str, *arguments: str) -> int:
    """One command line; its exit code."""
    executors.chosen = lambda settings: QuickExporter(Path(journal))
    # A process of the real exporter for each plan: it belongs to what is quick here.
    export_process.check_spec = lambda spec, **_: None
    threading.Thread(target=_follow_parent, daemon=True).start()
    return cli.run(list(arguments))


def _follow_parent() -> None:
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    raise SystemExit(main(*sys.argv[1:]))
