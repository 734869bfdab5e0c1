"""Runs a module as a child that cannot outlive its parent: ``python -P -m bot.leash [FLAGS] MODULE ARGS...``.

Stage 3 of the way of one request. The parent holds the other end of this process's standard input. This process
bounds itself (``Wall``), loses every right of root's, and starts a second one, which loses the network and much else
of the kernel (``bot.sandbox.seccomp``) and the files (``bot.sandbox.landlock``) and becomes the module. The first stays
out of its reach, reaps what it leaves, and when the module or the parent ends, however that happens, it ends
everything that was started, also what has left the process group: a killed ``ptebot run`` leaves no exporter behind
that burns CPU and writes files nobody waits for. A server of ours (``--network``) is only ended with its parent.
"""

from __future__ import annotations

import json
import os
import runpy
import signal
import sys
import threading
from collections.abc import Sequence
from contextlib import suppress
from typing import NamedTuple, NoReturn

from bot.sandbox import landlock, seccomp
from bot.sandbox.landlock import Files

NETWORK = "--network"
"""This process runs our own code on nothing of a stranger's, and has to be reached."""
WALL = "--wall"
"""Before a ``Wall`` as JSON."""


class Wall(NamedTuple):
    """What a child is held to."""

    own_user: bool = False
    """This process's user runs nothing else and owns nothing else."""
    needed: bool = False
    """Without Landlock and the filter nothing runs."""
    processes: int = 4096
    """Threads too."""
    file_bytes: int | None = None
    """Of one file that it writes."""
    cpus: int | None = None
    reads: tuple[str, ...] = ()
    home: str | None = None
    outs: tuple[str, ...] = ()
    locks: tuple[int, ...] = ()
    """Descriptors that only the first process keeps."""


def command(module: str, args: Sequence[str], wall: Wall) -> list[str]:
    """What starts ``module`` behind ``wall``."""
    return [sys.executable, "-P", "-m", "bot.leash", WALL, json.dumps(wall._asdict()), module, *args]


def main() -> None:
    """Replace ``sys.argv`` by the module's own and run it as ``__main__``."""
    if os.getpgrp() != os.getpid():
        if sys.argv[1:2] != [WALL]:
            raise SystemExit("bot.leash is started by bot.child, as the leader of a process group of its own.")
        os.setsid()  # bwrap's first process leads the group there
    signal.signal(signal.SIGINT, signal.default_int_handler)
    wall, words = _parsed(sys.argv[1:])
    if wall is None:
        threading.Thread(target=_follow, name="leash", daemon=True).start()
    else:
        _hold(wall)
    sys.argv = words
    runpy.run_module(words[0], run_name="__main__", alter_sys=True)


def _parsed(words: list[str]) -> tuple[Wall | None, list[str]]:
    if words[0] == NETWORK:
        return None, words[1:]
    if words[0] != WALL:
        return Wall(), words
    data = json.loads(words[1])
    return Wall(**data | {name: tuple(data[name]) for name in ("reads", "outs", "locks")}), words[2:]


def _hold(wall: Wall) -> None:
    """Bound this process, and come back in a second one that is held."""
    from bot.sandbox import bounds

    bounds.apply(wall.processes, file_bytes=wall.file_bytes, cpus=wall.cpus, own_user=wall.own_user)
    can_sweep = False
    with suppress(landlock.LandlockUnavailable):
        can_sweep = landlock.hold_signals()
    second = os.fork()
    if second:
        _guard(second, can_sweep)
    for descriptor in wall.locks:
        os.close(descriptor)
    inside = os.open(os.devnull, os.O_RDONLY)
    os.dup2(inside, 0)
    os.close(inside)
    try:
        seccomp.apply(named_files=wall.own_user or not landlock.abi())
    except seccomp.FilterUnavailable as error:
        _unheld(wall, f"The network cannot be kept from the exporter here: {error}.")
    try:
        landlock.hold(Files(reads=wall.reads, home=wall.home, outs=wall.outs))
    except landlock.LandlockUnavailable as error:
        _unheld(wall, f"This user's files cannot be kept from the exporter here: {error}.")


def _unheld(wall: Wall, why: str) -> None:
    print(why, file=sys.stderr, flush=True)
    if wall.needed:
        raise SystemExit(UNHELD)


UNHELD = 125
"""Exit status of a wall that was needed and cannot be had; the module did not run."""


def _guard(second: int, can_sweep: bool) -> NoReturn:
    """Wait for the second process, end what it leaves behind, and end as it did."""
    from bot.sandbox import bounds

    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the group's; it is for the other
    seccomp.close_to_own_user()

    def end_all() -> None:
        bounds.end_descendants(whole_domain=can_sweep)
        os.killpg(os.getpgrp(), signal.SIGKILL)

    threading.Thread(target=_follow, args=(end_all,), name="leash", daemon=True).start()
    ended, status = 0, int(signal.SIGKILL)
    with suppress(ChildProcessError):  # the other thread was quicker: it has killed and reaped the second process
        while ended != second:
            ended, status = os.wait()
    bounds.end_descendants(whole_domain=can_sweep)
    code = os.waitstatus_to_exitcode(status)
    if code < 0:
        signal.signal(-code, signal.SIG_DFL) if -code not in (signal.SIGKILL, signal.SIGSTOP) else None
        os.kill(os.getpid(), -code)
    os._exit(code & 0xFF)


def _follow(end: object = None) -> None:
    """Come to an end with the parent, whose pipe closes then."""
    while True:
        try:
            if not os.read(0, 4096):
                break
        except OSError:
            break
    if callable(end):
        end()
    os.killpg(os.getpgrp(), signal.SIGKILL)


if __name__ == "__main__":
    main()
