"""``python -m bot.sandbox.probe``: what a child of ``bot.child`` is kept from here, as one JSON object on stdout.

It tries: what is promised and not in force would be worse than nothing. Keys: ``user`` (the number it runs under),
``network`` (whether an internet socket can be made), ``files`` (whether it sees files that are no business of an
export's), ``processes`` (whether it can look at its parent's), ``signals`` (whether it can signal a process of its
user's that is not its own).
"""

from __future__ import annotations

import json
import os
import socket


def look() -> dict[str, object]:
    """What this process is and may do."""
    try:
        socket.socket(socket.AF_INET, socket.SOCK_STREAM).close()
        network = True
    except OSError:
        network = False
    return {
        "user": os.getuid() if hasattr(os, "getuid") else None,
        "network": network,
        "files": _lists("/") and _lists("/etc") and _reads("/etc/passwd"),
        "processes": _reads(f"/proc/{os.getppid()}/cmdline") if os.getppid() else False,
        "signals": _signals(os.getppid()),
    }


def _lists(folder: str) -> bool:
    try:
        return bool(os.listdir(folder))  # noqa: PTH208 - this module imports little
    except OSError:
        return False


def _reads(path: str) -> bool:
    try:
        with open(path, "rb") as stream:  # noqa: PTH123 - as above
            return bool(stream.read(1))
    except OSError:
        return False


def _signals(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except OSError:
        return False
    return pid > 0


if __name__ == "__main__":
    print(json.dumps(look()), flush=True)
