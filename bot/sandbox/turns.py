"""One run of a name at a time, also when the process that started the last one was killed.

Stage 3 of the way of one request, on the parent's side. In: a run's name. Out: a descriptor of a lock that the
child's guard inherits (``bot.leash``): the lock is free when both are gone, and what the guard has to end goes before
it. So who is told to run a name anew waits until what is left of it has ended, which takes it milliseconds.
"""

from __future__ import annotations

import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from bot.errors import SandboxUnavailable

WAIT_SECONDS = 20.0


@contextmanager
def turn(name: str | None) -> Iterator[tuple[int, ...]]:
    """The descriptors that the child inherits for the block; none without a name.

    Raises:
        SandboxUnavailable: what runs under the name does not end, or the lock cannot be made.
    """
    if name is None:
        yield ()
        return
    path = Path(tempfile.gettempdir(), f"ptebot-run-{os.geteuid()}-{name}.lock")
    descriptor = _locked(path, time.monotonic() + WAIT_SECONDS)
    try:
        yield (descriptor,)
    finally:
        with suppress(OSError):
            path.unlink()
        os.close(descriptor)


def _locked(path: Path, until: float) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise SandboxUnavailable(f"{path} cannot be made: {error.strerror}.", remedy="Remove it.") from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if os.path.lexists(path) and os.fstat(descriptor).st_ino == path.lstat().st_ino:
                return descriptor
            os.close(descriptor)  # removed by who had it before
        except BlockingIOError:
            os.close(descriptor)
            if time.monotonic() > until:
                raise SandboxUnavailable(
                    f"What runs under the name {path.stem} has not ended for {WAIT_SECONDS:.0f} s.",
                    remedy="End the other ptebot that runs the same, or wait for it.",
                ) from None
            time.sleep(0.02)
