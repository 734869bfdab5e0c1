"""Landlock: which files a process and all that it starts may see, and whom they may signal; the kernel holds it.

Stage 3 of the way of one request, on the child's side of the wall. In: paths to read, a home, and folders to write.
Out: a process that opens nothing else, signals nobody outside, and looks into nobody outside (Landlock lets no
process trace, or read the environment and memory of, one that is not held as it is). It cannot be taken off. Spoken
through ctypes; the numbers are those of include/uapi/linux/landlock.h and of the kernel's
Documentation/userspace-api/landlock.rst. A rule belongs to an inode: entries of /proc are made anew when memory runs
short, so what a rule is about is held open here for as long as the process lives.
"""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

_CREATE, _ADD, _RESTRICT = 444, 445, 446
"""The same number on every architecture that has a filter in ``bot.sandbox.seccomp``."""
_VERSION_FLAG, _PATH_BENEATH = 1, 1

EXECUTE, WRITE_FILE, READ_FILE, READ_DIR = 1, 2, 4, 8
_REMOVE_DIR, _REMOVE_FILE, _MAKE_CHAR, _MAKE_DIR, _MAKE_REG = 1 << 4, 1 << 5, 1 << 6, 1 << 7, 1 << 8
_MAKE_SOCK, _MAKE_FIFO, _MAKE_BLOCK, _MAKE_SYM = 1 << 9, 1 << 10, 1 << 11, 1 << 12
_REFER, _TRUNCATE, _IOCTL_DEV = 1 << 13, 1 << 14, 1 << 15
_HANDLED = {1: (1 << 13) - 1, 2: (1 << 14) - 1, 3: (1 << 15) - 1, 4: (1 << 15) - 1, 5: (1 << 16) - 1}
"""What can be refused about files, by ABI; the newest known one counts for newer."""
_OF_FILES = EXECUTE | WRITE_FILE | READ_FILE | _TRUNCATE | _IOCTL_DEV
_NETWORK_ABI, _SCOPE_ABI, _QUIET_ABI = 4, 6, 7
_BIND_AND_CONNECT_TCP, _ABSTRACT_SOCKETS_AND_SIGNALS = 3, 3
_QUIET = 1
"""What is refused to this very program is no news for the system's log."""

_READ = EXECUTE | READ_FILE | READ_DIR
_OUT = READ_FILE | READ_DIR | WRITE_FILE | _TRUNCATE | _REFER | _REMOVE_DIR | _REMOVE_FILE | _MAKE_DIR | _MAKE_REG
"""Plain files and directories are all that an output may hold."""
_HOME = _OUT | _MAKE_SOCK | _MAKE_FIFO | _MAKE_SYM

SYSTEM = (
    *("/usr", "/lib", "/lib32", "/lib64", "/libx32", "/bin", "/sbin"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/localtime"),
    *("/etc/ssl/openssl.cnf", "/nix/store", "/gnu/store", "/home/linuxbrew/.linuxbrew"),
)
"""Programs and libraries, and how they are found. Nothing of it is about a person or a service."""
_KERNEL = (
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/vmstat", "/proc/filesystems", "/proc/version"),
    *("/proc/sys/vm/overcommit_memory", "/proc/sys/kernel/osrelease", "/sys/devices/system"),
)
"""What libraries ask about processors and memory. Of processes there is this one alone (``/proc/self``)."""
_DEVICES = {"/dev/null": READ_FILE | WRITE_FILE}
_DEVICES |= dict.fromkeys(("/dev/zero", "/dev/full", "/dev/urandom", "/dev/random"), READ_FILE)


class LandlockUnavailable(Exception):
    """This kernel has none; the text says why. Only told, never raised through ``bot.child``."""


class Files(NamedTuple):
    """What a held process reaches besides ``SYSTEM`` and Python."""

    reads: tuple[str, ...] = ()
    """Files and directories; absent ones are left out."""
    home: str | None = None
    """Where it may make what it likes, but devices."""
    outs: tuple[str, ...] = ()
    """Where it may make plain files and directories."""


def abi() -> int:
    """The kernel's version of Landlock; 0: it has none, or it is turned off."""
    if sys.platform != "linux" or sys.maxsize < 2**32:
        return 0
    try:
        return max(0, _call(_CREATE, None, 0, _VERSION_FLAG))
    except LandlockUnavailable:
        return 0


def hold_signals() -> bool:
    """Let this process, and all that it will start, signal nobody but one another; whether that is in force.

    Older kernels than 6.12 cannot.
    """
    version = abi()
    if version < _SCOPE_ABI:
        return False
    rules = _ruleset(version, files=0)
    try:
        _restrict(rules, version)
    finally:
        os.close(rules)
    try:
        os.kill(os.getppid(), 0)
    except PermissionError:
        return True
    return False


def hold(files: Files) -> None:
    """Close everything but ``files``, the system's programs and Python to this process, for good.

    Raises:
        LandlockUnavailable: the kernel has no Landlock or refuses.
    """
    version = abi()
    if version < 1:
        raise LandlockUnavailable(f"Landlock: {why_not()}")
    rules = _ruleset(version, files=_HANDLED[min(version, max(_HANDLED))])
    try:
        for path, rights in _grants(files):
            _grant(rules, path, rights & _HANDLED[min(version, max(_HANDLED))])
        _restrict(rules, version)
    finally:
        os.close(rules)


def interpreter() -> list[str]:
    """Where Python, its packages and this program lie; nothing wider than each of them."""
    import bot
    import exporter

    prefixes = {sys.prefix, sys.exec_prefix, sys.base_prefix, sys.base_exec_prefix}
    packages = {str(Path(folder)) for package in (bot, exporter) for folder in package.__path__}
    return sorted({os.path.realpath(path) for path in prefixes | packages} - {"/"})


def _grants(files: Files) -> Iterable[tuple[str, int]]:
    yield from ((path, _READ) for path in (*SYSTEM, *interpreter()))
    yield from ((path, READ_FILE | READ_DIR) for path in (*_KERNEL, "/proc/self", *files.reads))
    yield from _DEVICES.items()
    yield from ((path, _OUT) for path in files.outs)
    if files.home:
        yield files.home, _HOME


_kept: list[int] = []


def _grant(rules: int, path: str, rights: int) -> None:
    try:
        opened = os.open(path, os.O_PATH | os.O_CLOEXEC)
    except OSError:
        return  # not there, or not for this user: then there is nothing to allow
    if not os.path.isdir(f"/proc/self/fd/{opened}"):  # noqa: PTH112 - of the descriptor, whatever the name is now
        rights &= _OF_FILES
    rule = ctypes.create_string_buffer(struct.pack("=Qi", rights, opened))
    _call(_ADD, rules, _PATH_BENEATH, rule, 0)
    if path.startswith(("/proc", "/sys")):
        _kept.append(opened)
    else:
        os.close(opened)


def _ruleset(version: int, *, files: int) -> int:
    network = _BIND_AND_CONNECT_TCP if files and version >= _NETWORK_ABI else 0
    scoped = _ABSTRACT_SOCKETS_AND_SIGNALS if version >= _SCOPE_ABI else 0
    size = 24 if version >= _SCOPE_ABI else 16 if version >= _NETWORK_ABI else 8
    attributes = struct.pack("=QQQ", files, network, scoped)[:size]
    return _call(_CREATE, ctypes.create_string_buffer(attributes, size), size, 0)


def _restrict(rules: int, version: int) -> None:
    if ctypes.CDLL(None, use_errno=True).prctl(38, 1, 0, 0, 0) != 0:  # PR_SET_NO_NEW_PRIVS, as Landlock demands
        raise LandlockUnavailable("no_new_privs is refused")
    _call(_RESTRICT, rules, _QUIET if version >= _QUIET_ABI else 0)


def _call(number: int, *args: object) -> int:
    words = [ctypes.c_long(arg) if isinstance(arg, int) else arg for arg in args]
    got = ctypes.CDLL(None, use_errno=True).syscall(ctypes.c_long(number), *words)
    if got < 0:
        raise LandlockUnavailable(f"Landlock: {os.strerror(ctypes.get_errno())}")
    return int(got)


def why_not() -> str:
    """Why ``abi`` is 0."""
    if sys.platform != "linux":
        return "this is not Linux"
    try:
        _call(_CREATE, None, 0, _VERSION_FLAG)
    except LandlockUnavailable:
        if ctypes.get_errno() == errno.EOPNOTSUPP:
            return "turned off when this machine was started"
        return "this kernel is older than 5.13, or made without it"
    return "it gave no reason"
