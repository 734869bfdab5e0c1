"""Another user for the exporter: who it is, alone under that number, and everything of it ended.

Stage 3 of the way of one request, on the parent's side of the wall. In: ``PTEBOT_EXPORT_USER`` (an account's name or a
number; without it ``ptebot-export``, where the machine has that account). Out, when ptebot runs as root: a user that
owns nothing and runs nothing, held by a lock for the time of one child, and an end for every process of it, also for
one that left the child's process group. Only then does root look at what the child wrote. When ptebot does not run as
root, or there is no such account, the child keeps ptebot's own user, and ``plan`` says why.
"""

from __future__ import annotations

import fcntl
import os
import pwd
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil

from bot.errors import OutputNotTrusted, SandboxUnavailable

VARIABLE = "PTEBOT_EXPORT_USER"
DEFAULT = "ptebot-export"
SLOTS = 8
"""Exports at once on one machine as root; the account's own number, and the next ones that no account has."""
_BROOM = 1000
"""From a user's number to the one that its processes are ended under; no account may have that either."""
_END_SECONDS = 10.0
_REGULAR = range(1, 2**31 - 1)


@dataclass(frozen=True, kw_only=True)
class User:
    """A user for one child. The group has the same number and no other member."""

    uid: int
    gid: int


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Whether children run as another user."""

    user: User | None
    name: str
    """The account's name or number; empty where there is none."""
    why_not: str
    """Why children keep ptebot's own user; empty where they do not."""


def plan(environ: Mapping[str, str] = os.environ) -> Plan:
    """Which user children run as.

    Raises:
        SandboxUnavailable: an account is named or there, and cannot be used.
    """
    named = environ.get(VARIABLE)
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return Plan(user=None, name="", why_not="ptebot does not run as root")
    if named is not None and not named.strip():
        return Plan(user=None, name="", why_not=f"{VARIABLE} is empty")
    name = (named or DEFAULT).strip()
    user = _find(name)
    if user is None and named is None:
        return Plan(user=None, name="", why_not=f"this machine has no account {DEFAULT}")
    if user is None:
        raise SandboxUnavailable(f"{VARIABLE} names {name!r}: there is no such account.")
    if user.uid not in _REGULAR or user.gid not in _REGULAR:
        raise SandboxUnavailable(f"{VARIABLE} names {name!r}, which is root or in its group.")
    for path in (Path(sys.executable), Path(sys.prefix), Path(sys.base_prefix), Path(__file__).parent):
        if not may_reach(user, path.resolve()):
            raise SandboxUnavailable(
                f"{name} may not read {path.resolve()}, so Python cannot start under that account.",
                remedy="Install Python and ptebot where every user may read, such as /usr or /opt.",
            )
    return Plan(user=user, name=name, why_not="")


def _find(name: str) -> User | None:
    if name.isascii() and name.isdigit() and len(name) <= 10:
        return User(uid=int(name), gid=int(name))
    try:
        entry = pwd.getpwnam(name)
    except KeyError:
        return None
    return User(uid=entry.pw_uid, gid=entry.pw_gid)


def may_reach(user: User, path: Path) -> bool:
    """Whether the user may go through every directory above ``path`` and read it; ``path`` is free of links."""
    return all(allowed(user, above.stat(), 1) for above in path.parents) and allowed(user, path.stat(), 4)


def allowed(user: User, status: os.stat_result, bits: int) -> bool:
    """Whether the mode grants the user all of ``bits`` (4 read, 2 write, 1 execute)."""
    shift = 6 if status.st_uid == user.uid else 3 if status.st_gid == user.gid else 0
    return status.st_mode >> shift & bits == bits


@contextmanager
def held(asked: User, *, of_its_own: bool) -> Iterator[User]:
    """A user with no process but those that the block starts; all of them are ended behind it.

    Args:
        asked: the account; another number is taken while another ptebot has it.
        of_its_own: whether a process that runs under the account is a leftover of ours, to be ended first.

    Raises:
        SandboxUnavailable: the account is not for exports alone, or all numbers are taken.
        OutputNotTrusted: a process could not be ended.
    """
    for user in _candidates(asked):
        with _locked(user) as free:
            if not free:
                continue
            if user == asked and not of_its_own and running(user):
                raise SandboxUnavailable(
                    f"Processes run under user {user.uid} already, and ptebot ends all that do.",
                    remedy=f"Give {VARIABLE} an account that nothing else uses.",
                )
            end_all(user)
            try:
                yield user
            finally:
                end_all(user)
            return
    raise SandboxUnavailable(f"{SLOTS} exports run on this machine already.", remedy="Wait until one has ended.")


def _candidates(asked: User) -> list[User]:
    more = [User(uid=asked.uid + number, gid=asked.uid + number) for number in range(1, SLOTS)]
    return [asked, *(user for user in more if not _has_account(user.uid))]


def _has_account(uid: int) -> bool:
    try:
        pwd.getpwuid(uid)
    except KeyError:
        return False
    return True


@contextmanager
def _locked(user: User) -> Iterator[bool]:
    """Whether the user's lock is ours for the block. It ends with this process; children do not inherit it."""
    folder = Path("/run") if Path("/run").is_dir() else Path(tempfile.gettempdir())
    path = folder / f"ptebot-export-{user.uid}.lock"
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise SandboxUnavailable(f"{path} cannot be made: {error.strerror}.") from None
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        yield True
    finally:
        os.close(descriptor)


def running(user: User) -> list[int]:
    """Processes of the user that can still do something."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if user.uid in process.uids() and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process.pid)
    return found


_SWEEP = """
import os, signal, sys
uid, gid, broom = map(int, sys.argv[1:])
os.setgroups([])
os.setresgid(broom, broom, broom)
os.setresuid(broom, uid, broom)
try:
    os.kill(-1, signal.SIGKILL)
except ProcessLookupError:
    pass
"""


def end_all(user: User) -> None:
    """Kill every process of the user, wherever it hides, and come back when none is left.

    kill(2) with -1 reaches them all in one call, so that no fork can slip through. The process that calls it has the
    user's number as its effective one only: its real and saved numbers are those of nobody, so the user's processes
    cannot stop or kill it first.

    Raises:
        OutputNotTrusted: something is left after ten seconds.
    """
    if not running(user):
        return
    broom = user.uid + _BROOM
    command = [sys.executable, "-I", "-S", "-c", _SWEEP, str(user.uid), str(user.gid), str(broom)]
    until = time.monotonic() + _END_SECONDS
    while time.monotonic() < until:
        subprocess.run(command, check=True, env={}, cwd="/", timeout=_END_SECONDS)
        if not running(user):
            return
        time.sleep(0.02)
    raise OutputNotTrusted(f"Processes of user {user.uid} could not be ended: {running(user)[:5]}.")


def own(descriptor: int, user: User | None) -> None:
    """Give an open file or directory to the user, or to this process's own; set-user-ID and its like go."""
    uid, gid = (user.uid, user.gid) if user else (os.geteuid(), os.getegid())
    os.fchown(descriptor, uid, gid)
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    os.fchmod(descriptor, mode & 0o755 | (0o700 if stat.S_ISDIR(os.fstat(descriptor).st_mode) else 0o600))
