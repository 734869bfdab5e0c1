"""Starts a module in a container of ours: ``python -P -m bot.sandbox.inside MODULE ARGS...``.

Stage 3 of the way of one request, inside the wall. Unlike a child of ``bot.leash`` it has no parent whose end it
follows: a container outlives the worker that started it, so that the next one finds it again by its name. Before the
module runs, this process loses what the kernel's filter takes from it (``bot.sandbox.seccomp``); where there is no
filter, nothing runs. ``--about FILE`` runs nothing: one JSON object says whose code this is, what this process may do,
and what stands in a file that was put within its reach.
"""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

from bot.sandbox import probe, seccomp

ABOUT = "--about"
_MOST = 4096


def about(file: Path) -> dict[str, object]:
    """Keys: version (of ptebot), found (the file's text, None where it is not there), and those of the probe."""
    from exporter import __version__

    try:
        found = file.read_bytes()[:_MOST].decode("utf-8", "replace")
    except OSError:
        found = None
    return {"version": __version__, "found": found, **probe.look()}


def main() -> None:
    """Replace ``sys.argv`` by the module's own and run it as ``__main__``."""
    import resource

    try:
        seccomp.apply()
    except seccomp.FilterUnavailable as error:
        raise SystemExit(f"The kernel's filter cannot be had in this container: {error}.") from None
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    if sys.argv[1] == ABOUT:
        print(json.dumps(about(Path(sys.argv[2]))), flush=True)
        return
    sys.argv = sys.argv[1:]
    runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
