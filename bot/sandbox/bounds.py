"""How much a child may take of the machine, and its end with all that it started; on the child's side of the wall.

Stage 3 of the way of one request. In: numbers of processes, bytes and processors. Out: a process that the kernel holds
to them (setrlimit(2)), that has nothing left of root's power but to read and write files, and that all it starts falls
back to when what started it has ended, so that ``end_descendants`` finds it.
"""

from __future__ import annotations

import ctypes
import os
import resource
import signal
import struct
import sys
import time
from contextlib import suppress
from pathlib import Path

_PR_CAPBSET_DROP, _PR_SET_CHILD_SUBREAPER = 24, 36
_CAP_DAC_OVERRIDE, _CAP_DAC_READ_SEARCH = 1, 2
"""A root without them cannot read a model of somebody else's; Landlock says which files those are."""
_KEPT = 1 << _CAP_DAC_OVERRIDE | 1 << _CAP_DAC_READ_SEARCH
_CAPABILITY_VERSION_3 = 0x20080522
_MOST_CAPABILITIES = 64
_END_SECONDS = 10.0


def apply(processes: int, *, file_bytes: int | None, cpus: int | None, own_user: bool) -> None:
    """Bound this process and all that it will start.

    Args:
        processes: threads too. The kernel counts them by user, so where the user is not the child's own
            (``own_user``) its others come on top; it does not count root's (``bot.watch`` does).
        file_bytes: of one file.
        cpus: on how many processors of those that it has now it runs.
    """
    if os.geteuid() == 0:
        _drop_rights()
    elif not own_user:
        processes += _threads_of(os.geteuid())
    _lower(resource.RLIMIT_NPROC, processes)
    _lower(resource.RLIMIT_CORE, 0)
    if file_bytes is not None:
        _lower(resource.RLIMIT_FSIZE, file_bytes)
    if sys.platform != "linux":
        return
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
    if cpus is not None:
        there = sorted(os.sched_getaffinity(0))
        first = os.getpid() % len(there)  # exports beside one another begin at different ones
        os.sched_setaffinity(0, [*there[first:], *there[:first]][:cpus])


def end_descendants(*, whole_domain: bool) -> None:
    """Kill all that this process started, and what that started, and come back when nothing of it is left.

    Args:
        whole_domain: whether this process can signal nobody else (``landlock.hold_signals``). Then one call of kill(2)
            reaches all of them, so that no fork can slip through; otherwise they are looked for until none is found.
    """
    until = time.monotonic() + _END_SECONDS
    while time.monotonic() < until:
        if whole_domain:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(-1, signal.SIGKILL)
        else:
            for pid in _descendants(os.getpid()):
                with suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, signal.SIGKILL)
        try:
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        except ChildProcessError:
            return
        time.sleep(0.002)


def _lower(what: int, wanted: int) -> None:
    hard = resource.getrlimit(what)[1]
    most = wanted if hard == resource.RLIM_INFINITY else min(wanted, hard)
    resource.setrlimit(what, (most, most))


def _drop_rights() -> None:
    """Give up every capability of root's but the ones above, for this process and what it starts (capabilities(7))."""
    libc = ctypes.CDLL(None, use_errno=True)
    for number in range(_MOST_CAPABILITIES):
        if not _KEPT >> number & 1:
            libc.prctl(_PR_CAPBSET_DROP, number, 0, 0, 0)
    header = ctypes.create_string_buffer(struct.pack("=Ii", _CAPABILITY_VERSION_3, 0))
    sets = ctypes.create_string_buffer(24)
    libc.capget(header, sets)
    kept = struct.unpack_from("=6I", sets.raw)[1] & _KEPT  # effective, permitted, inheritable; then their upper halves
    struct.pack_into("=6I", sets, 0, kept, kept, 0, 0, 0, 0)
    if libc.capset(header, sets) != 0:
        raise OSError(ctypes.get_errno(), f"capset: {os.strerror(ctypes.get_errno())}")


def _processes() -> list[tuple[int, dict[str, str]]]:
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError, ValueError):
            lines = (folder / "status").read_text(errors="replace").splitlines()
            fields = {name: value.strip() for name, _, value in (line.partition(":") for line in lines)}
            found.append((int(folder.name), fields))
    return found


def _threads_of(uid: int) -> int:
    theirs = (fields for _, fields in _processes() if fields.get("Uid", "").split()[:1] == [str(uid)])
    return sum(int(fields.get("Threads", "1")) for fields in theirs)


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for one, fields in _processes():
        children.setdefault(int(fields.get("PPid", "0")), []).append(one)
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found
