"""Ends the exports of a worker that stands still: ``python guard.py PID``, a small process beside each worker.

A worker whose process is frozen (SIGSTOP, a debugger, a starving machine) gives no signs of life, and another one
takes its jobs over; but the exporters that it started are processes of their own and would go on, two of them for one
repository. In: lines on standard input, each a moment of CLOCK_MONOTONIC (seconds) until which the worker's signs of
life hold. When one passes and no later one came, every descendant of PID is killed but this process. It ends with its
standard input. Nothing of ptebot is imported here, so that it is small.
"""

from __future__ import annotations

import os
import selectors
import sys
import time

import psutil


def end_children(pid: int) -> int:
    """Kill all that PID started; how many there were. Asked again until none is left that was not there before."""
    ended = 0
    seen: set[int] = {os.getpid()}
    while True:
        try:
            found = [one for one in psutil.Process(pid).children(recursive=True) if one.pid not in seen]
        except psutil.NoSuchProcess:
            return ended
        if not found:
            return ended
        for one in found:
            seen.add(one.pid)
            try:
                one.kill()
                ended += 1
            except (psutil.NoSuchProcess, psutil.AccessDenied):
                continue


def main(pid: int) -> None:
    """Follow standard input to its end."""
    os.set_blocking(0, False)
    selector = selectors.DefaultSelector()
    selector.register(0, selectors.EVENT_READ)
    until: float | None = None
    rest = b""
    while True:
        left = None if until is None else max(0.0, until - time.monotonic())
        if selector.select(left):
            data = os.read(0, 65536)
            if not data:
                if until is not None and time.monotonic() >= until:
                    end_children(pid)  # the worker's last word before it ended
                return
            *lines, rest = (rest + data).split(b"\n")
            if lines:
                until = float(lines[-1])
        elif until is not None and time.monotonic() >= until:
            end_children(pid)
            until = None  # until the worker lives again


if __name__ == "__main__":
    main(int(sys.argv[1]))
