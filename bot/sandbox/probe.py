"""``python -m bot.sandbox.probe``: what a child of ``bot.child`` is kept from here, as one JSON object on stdout.

It tries: what is promised and not in force would be worse than nothing. Keys: ``user`` (the number it runs under) and
``network`` (whether an internet socket can be made).
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
    return {"user": os.getuid() if hasattr(os, "getuid") else None, "network": network}


if __name__ == "__main__":
    print(json.dumps(look()), flush=True)
