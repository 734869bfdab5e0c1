"""``python -m exporter.available``: which backends work on this machine, as one JSON object on stdout.

A door of the exporter for ``ptebot doctor``: asking a backend imports its packages and loads its libraries,
so it is done in a child process, in the very environment that an export gets.
"""

from __future__ import annotations

import json
from typing import Any

from exporter import backends


def survey() -> list[dict[str, Any]]:
    """Every backend of the table: name, title, precisions, available, reason, install."""
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


if __name__ == "__main__":
    print(json.dumps({"backends": survey()}), flush=True)
