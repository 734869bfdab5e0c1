"""Lines of a stream that a stranger writes: bounded, and to an end whoever holds it open.

Stage 3 of the way of one request, on the parent's side of the wall. In: a pipe from a child. Out: its lines in turn.
"""

from __future__ import annotations

import os
import select
import threading
import time
from collections.abc import Callable
from typing import IO

MAX_LINE_BYTES = 64 * 1024
"""A longer line is dropped: no message of ours comes near it."""
GRACE_SECONDS = 3.0
"""How long what is still in a pipe may take when all that wrote to it should have ended."""
_LOOK_MILLISECONDS = 200


def each(stream: IO[bytes], use: Callable[[bytes], None], over: threading.Event) -> None:
    """Give every line to ``use``, without its end; one of ``MAX_LINE_BYTES`` or more is dropped whole.

    Comes back at the stream's end, or some seconds after ``over``, whoever still holds the stream open.
    """
    line, dropping = b"", False
    until: float | None = None
    ready = select.poll()
    ready.register(stream, select.POLLIN)
    while until is None or time.monotonic() < until:
        if until is None and over.is_set():
            until = time.monotonic() + GRACE_SECONDS
        if not ready.poll(_LOOK_MILLISECONDS):
            continue
        part = os.read(stream.fileno(), MAX_LINE_BYTES)
        if not part:
            break
        *whole, rest = part.split(b"\n")
        for each_ in whole:
            if not dropping and len(line) + len(each_) < MAX_LINE_BYTES:
                use((line + each_).rstrip(b"\r"))
            line, dropping = b"", False
        line += rest
        if len(line) >= MAX_LINE_BYTES:
            line, dropping = b"", True
    if line and not dropping:
        use(line.rstrip(b"\r"))
