"""Exports behind bubblewrap: namespaces of their own for files, processes, network, users and the rest.

Stage 3 of the way of one request, on the parent's side of the wall. In: a call. Out: how it ended, as
``bot.child.run_here`` tells it, of which this is the stronger sister: what is not mounted is not there, no process
but its own is there, and with the first of them all end. Inside, ``bot.leash`` adds what it adds to every child.
Needs ``bwrap`` and the right to make user namespaces (bubblewrap's own documentation: bwrap(1)).
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from bot import child, leash
from bot.errors import SandboxUnavailable
from bot.sandbox import landlock
from bot.sandbox.call import Call, Exit

_SCRATCH_BYTES = 64 << 20
"""Of /tmp and /dev/shm in there, which are memory; the home is on a disk and has the limit of outputs."""


@dataclass(frozen=True, kw_only=True)
class BubblewrapExecutor:
    """Implements ``bot.sandbox.call.Executor``."""

    rung = "bubblewrap"

    @classmethod
    def available(cls, image: str = "") -> str | None:
        """Why exports cannot run so here; None: they can. Tried with a child that tries. No image is needed."""
        from bot.sandbox import ladder

        if shutil.which("bwrap") is None:
            return "bwrap is not installed"
        return ladder.probed(cls(), ("network", "files"))

    def run(self, call: Call, *, on_line: Callable[[bytes], None], on_log: Callable[[str], None]) -> Exit:
        """As ``Executor.run``."""
        bwrap = shutil.which("bwrap")
        if bwrap is None:
            raise SandboxUnavailable("bwrap is not installed.", remedy="Install bubblewrap.")
        with child.prepared(call.args, call.name) as start:
            # In there nothing else of this user's is to be seen, so its files' modes may be set by name.
            wall = start.wall(call.limits, needed=landlock.abi() > 0, own_user=True)
            command = [bwrap, *_options(start), "--", *leash.command(call.module, start.args, wall)]
            # Its own environment can be read in there, below /proc/1, whatever --clearenv says.
            outside = replace(start, env={})
            try:
                ended = child.supervised(command, outside, call, on_line=on_line, on_log=on_log, gently=False)
            finally:
                start.keep = outside.keep
        return replace(ended, code=_code(ended.code))


def _options(start: child.Start) -> list[str]:
    words = ["--unshare-all", "--die-with-parent", "--new-session", "--cap-drop", "ALL", "--hostname", "export"]
    if os.geteuid() == 0 and start.user is None:
        words += ["--unshare-user", "--uid", "65534", "--gid", "65534"]
    for name, value in start.env.items():
        words += ["--setenv", name, value]
    for path in landlock.SYSTEM:
        words += _bound(path)
    words += ["--proc", "/proc", "--dev", "/dev", "--ro-bind-try", "/sys/devices/system", "/sys/devices/system"]
    for folder in ("/dev/shm", "/tmp"):  # noqa: S108 - those in there
        words += ["--size", str(_SCRATCH_BYTES), "--tmpfs", folder]
    for path in landlock.interpreter():  # on top of /tmp: a virtual environment may lie below it
        words += _bound(path)
    for path in start.reads:
        words += ["--ro-bind", path, path]
    for path in (str(start.home), *start.outs):
        words += ["--bind", path, path]
    return [*words, "--remount-ro", "/dev", "--remount-ro", "/", "--chdir", str(start.home)]


def _bound(path: str) -> Iterable[str]:
    """What makes a path of the system's be there too; a link stays one."""
    here = Path(path)
    if here.is_symlink() and not here.is_file():
        return ("--symlink", str(here.readlink()), path)
    return ("--ro-bind-try", path, path)


def _code(code: int) -> int:
    """bwrap tells a signal as a shell does."""
    number = code - 128
    return -number if number in {each.value for each in signal.Signals} else code
