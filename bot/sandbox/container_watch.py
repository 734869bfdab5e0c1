"""Looks after one running container: its lines as they come, and its end when it passes a limit.

Stage 3 of the way of one request, on the parent's side of the wall. In: a container's id, its folder, the call. Out:
bounded lines, and why it was ended, if it was. The engine keeps the lines in a file of bounded size, so that a
process which finds the container later reads them from the beginning.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from docker.errors import APIError, NotFound

from bot.child import GRACE_SECONDS, LOG_LINE_CHARACTERS, MAX_LINE_BYTES
from bot.sandbox.call import Call
from bot.sandbox.container_engine import ENGINE_ERRORS
from bot.sandbox.run_folder import RunFolder

LOOK_SECONDS = 0.1
SLOW_SECONDS = 0.5
"""Between two looks that cost more: for files without a name, and at what the engine says."""

Reason = Literal["stop", "time", "output", "memory"]


def started_at(container: Any) -> float:
    """Seconds since the epoch at which it started."""
    container.reload()
    return datetime.fromisoformat(container.attrs["State"]["StartedAt"]).timestamp()


class Guard:
    """For the time of a block, ends the container when the call is stopped, its time is over or it wrote too much."""

    def __init__(self, client: Any, container_id: str, folder: RunFolder, call: Call, began: float) -> None:
        self.reason: Reason | None = None
        self.disk_full = False
        self._client, self._id, self._folder, self._call = client, container_id, folder, call
        self._began = int(began)
        left = None if call.limits.seconds is None else call.limits.seconds - (time.time() - began)
        self._until = None if left is None else time.monotonic() + left
        self._hidden, self._looked, self._starved = 0, 0.0, False
        self._over, self._wanted = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="container guard", daemon=True)

    def __enter__(self) -> Guard:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def end(self) -> None:
        """End the container now."""
        self._wanted.set()
        self._thread.join(timeout=GRACE_SECONDS)

    def _run(self) -> None:
        try:
            while not self._over.wait(LOOK_SECONDS):
                self.reason = self._passed()
                if self.reason or self.disk_full or self._wanted.is_set():
                    return
        finally:
            self._kill()  # also where a look failed: nothing runs that nobody looks after

    def _passed(self) -> Reason | None:
        if self._call.stop is not None and self._call.stop.is_set():
            return "stop"
        if self._until is not None and time.monotonic() > self._until:
            return "time"
        if time.monotonic() - self._looked > SLOW_SECONDS:
            self._looked = time.monotonic()
            self._look_slowly()
        if self._starved:
            return "memory"
        most = self._call.limits.output_bytes
        if most is not None and self._folder.written_bytes() + self._hidden > most:
            return "output"
        self.disk_full = self._folder.is_nearly_full()
        return None

    def _look_slowly(self) -> None:
        """The kernel may end one process of many for want of memory, and leave the others waiting for it."""
        if self._call.limits.output_bytes is not None:
            self._hidden = hidden_bytes(self._id, self._folder.outputs)
        if self._call.limits.memory_bytes is not None:
            asked = {"container": self._id, "event": "oom"}
            with suppress(*ENGINE_ERRORS):  # the next look is soon; with an end in the past the stream ends at once
                self._starved = any(self._client.events(since=self._began, until=int(time.time()), filters=asked))

    def _kill(self) -> None:
        """Until it is certain; the engine may be busy."""
        while not self._over.is_set():
            try:
                self._client.containers.get(self._id).kill()
                return
            except NotFound:
                return
            except APIError as error:
                if error.response is not None and error.response.status_code == 409:
                    return  # it ended by itself
            except ENGINE_ERRORS:
                pass  # asked again; whoever waits for the container hears of an engine that is gone
            self._over.wait(LOOK_SECONDS)


def hidden_bytes(container_id: str, folder: Path, proc: Path = Path("/proc")) -> int:
    """Of files on the folder's disk that a container's processes hold open and that have no name any more.

    Only where its processes can be seen (not from another container) and looked into; else 0.
    """
    device = folder.stat().st_dev
    found: dict[int, int] = {}
    for process in proc.iterdir():
        if not process.name.isdecimal():
            continue
        with suppress(OSError):
            if container_id not in (process / "cgroup").read_text():
                continue
            for opened in (process / "fd").iterdir():
                with suppress(OSError):
                    status = opened.stat()
                    if status.st_nlink == 0 and status.st_dev == device:
                        found[status.st_ino] = status.st_blocks * 512
    return sum(found.values())


class Lines:
    """For the time of a block, the container's standard error: kept, and given to a function line by line."""

    def __init__(self, client: Any, container_id: str, tail: deque[str], on_log: Callable[[str], None]) -> None:
        self._client, self._id, self._tail, self._on_log = client, container_id, tail, on_log
        self._thread = threading.Thread(target=self._run, name="container log", daemon=True)

    def __enter__(self) -> Lines:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join(timeout=GRACE_SECONDS)

    def _run(self) -> None:
        with suppress(*ENGINE_ERRORS):  # the other stream tells of an engine that is gone
            stream = self._client.containers.get(self._id).logs(stdout=False, stderr=True, stream=True, follow=True)
            for line in self.of(stream):
                text = line.decode("utf-8", "replace")[:LOG_LINE_CHARACTERS]
                self._tail.append(text)
                self._on_log(text)

    @staticmethod
    def of(chunks: Iterable[bytes]) -> Iterator[bytes]:
        """Lines of a stream without their newlines; one longer than ``MAX_LINE_BYTES`` is dropped whole."""
        begun, dropping = bytearray(), False
        for chunk in chunks:
            *whole, rest = chunk.split(b"\n")
            for part in whole:
                begun += part
                if not dropping and len(begun) <= MAX_LINE_BYTES:
                    yield bytes(begun.rstrip(b"\r"))
                begun.clear()
                dropping = False
            if not dropping:
                begun += rest
            if len(begun) > MAX_LINE_BYTES:
                begun.clear()
                dropping = True
        if begun and not dropping:
            yield bytes(begun)
