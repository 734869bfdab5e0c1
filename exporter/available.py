"""``python -m exporter.available [SPEC.json]``: what an export could make on this machine, as one JSON object.

A door of the exporter, beside ``python -m exporter``: asking a backend imports its packages and loads its
libraries, so it is done in a child process, in the very environment that an export gets. With a spec, nothing
but its names and combinations are checked: a refusal then comes before a model is downloaded.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from exporter.wall import guarded_main


def survey() -> list[dict[str, Any]]:
    """Every backend of the table: name, title, precisions, available, reason, install."""
    from exporter import backends

    found: list[dict[str, Any]] = []
    for name in backends.TABLE:
        entry: dict[str, Any] = {"name": name, "title": name, "precisions": [], "install": ""}
        try:
            backend = backends.get(name)
            answer = backend.availability()
            entry |= {"title": backend.title, "precisions": list(backend.precisions), "install": answer.install}
            entry |= {"available": answer.available, "reason": answer.reason}
        except (ImportError, OSError) as error:
            # A backend whose own packages are broken must not hide what is to be said of the others.
            entry |= {"available": False, "reason": f"{type(error).__name__}: {error}"}
        found.append(entry)
    return found


def main(args: list[str]) -> int:
    """Survey the backends, or check the spec named by the one argument; gives the exit status."""
    if len(args) > 1:
        print("usage: python -m exporter.available [SPEC.json]", file=sys.stderr)
        return 2

    def body(say: Callable[[dict[str, Any]], None]) -> int:
        from exporter import spec
        from exporter.plan import plan

        if not args:
            say({"backends": survey()})
            return 0
        planned = plan(spec.load(Path(args[0])))
        say({"make": [[backend.name, precision] for backend, precision in planned.make]})
        return 0

    return guarded_main(body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
