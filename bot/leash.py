"""Runs a module as a child that cannot outlive its parent: ``python -P -m bot.leash [FLAGS] MODULE ARGS...``.

Stage 3 of the way of one request. The parent holds the other end of this process's standard input.
When the parent dies, however it dies, the pipe closes and the whole process group goes with it, so that
a killed ``ptebot run`` leaves no exporter behind that burns CPU and writes files nobody waits for. Before
the module runs, this process loses the network and much else of the kernel (``bot.sandbox.seccomp``), unless it is
a server of ours (``--network``).
"""

from __future__ import annotations

import os
import runpy
import signal
import sys
import threading

from bot.sandbox import seccomp

OWN_USER = "--own-user"
"""This process's user runs nothing else."""
NETWORK = "--network"
"""This process runs our own code on nothing of a stranger's, and has to be reached."""
MOST_PROCESSES = 4096
"""Of a user of our own, threads included; an export has some for each processor."""


def _follow_parent() -> None:
    while True:
        try:
            if not os.read(0, 4096):
                break
        except OSError:
            break
    os.killpg(os.getpgrp(), signal.SIGKILL)


def _bound() -> None:
    """Start no endless number of processes (setrlimit(2) counts all that run under one number); leave no core files."""
    import resource

    resource.setrlimit(resource.RLIMIT_NPROC, (MOST_PROCESSES, MOST_PROCESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def main() -> None:
    """Replace ``sys.argv`` by the module's own and run it as ``__main__``."""
    if os.getpgrp() != os.getpid():
        raise SystemExit("bot.leash is started by bot.child, as the leader of a process group of its own.")
    signal.signal(signal.SIGINT, signal.default_int_handler)
    flags = set()
    while (first := sys.argv[1]) in (OWN_USER, NETWORK):
        flags.add(first)
        sys.argv = sys.argv[1:]
    if NETWORK not in flags:
        try:
            seccomp.apply()
        except seccomp.FilterUnavailable as error:
            print(f"The network cannot be kept from the exporter here: {error}.", file=sys.stderr, flush=True)
    threading.Thread(target=_follow_parent, name="leash", daemon=True).start()
    if OWN_USER in flags:
        _bound()
    sys.argv = sys.argv[1:]
    module = sys.argv[0]
    runpy.run_module(module, run_name="__main__", alter_sys=True)


if __name__ == "__main__":
    main()
