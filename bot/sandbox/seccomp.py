"""System calls that an exporter needs no more: a filter of the kernel's, for this process and all that it starts.

Stage 3 of the way of one request, on the child's side of the wall, before the first byte of a model is read. In:
nothing. Out: a process that reaches no network (of sockets there are local ones only, and they lead nowhere),
looks into no other process, and asks the kernel for no namespace, mount, key, BPF program or ring of requests. The
filter cannot be taken off. It is a classic BPF program as seccomp(2) describes, put together here for x86-64 and
AArch64; calls of another ABI (i386, x32, 32-bit Arm) end the process, because their numbers mean other calls.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

# Numbers of system calls never change. First x86-64 (arch/x86/entry/syscalls/syscall_64.tbl), then AArch64
# (include/uapi/asm-generic/unistd.h). To refuse another call: add a line.
_DENIED = {
    # A local socket that reaches a daemon (Docker, D-Bus, an SSH agent) is a way out.
    "connect": (42, 203),
    # A ring's requests pass no filter.
    "io_uring_setup": (425, 425),
    "io_uring_enter": (426, 426),
    "io_uring_register": (427, 427),
    # Other processes.
    "ptrace": (101, 117),
    "process_vm_readv": (310, 270),
    "process_vm_writev": (311, 271),
    "process_madvise": (440, 440),
    "pidfd_getfd": (438, 438),
    "kcmp": (312, 272),
    "inotify_add_watch": (254, 27),
    "fanotify_init": (300, 262),
    "setpriority": (141, 140),
    "ioprio_set": (251, 30),
    "sched_setscheduler": (144, 119),
    "sched_setparam": (142, 118),
    "sched_setattr": (314, 274),
    "migrate_pages": (256, 238),
    "move_pages": (279, 239),
    # Memory that no process is seen to hold, and what processes of the same user left in it.
    "memfd_create": (319, 279),
    "memfd_secret": (447, 447),
    "shmget": (29, 194),
    "shmat": (30, 196),
    "shmctl": (31, 195),
    "semget": (64, 190),
    "semop": (65, 193),
    "semtimedop": (220, 192),
    "semctl": (66, 191),
    "msgget": (68, 186),
    "msgsnd": (69, 189),
    "msgrcv": (70, 188),
    "msgctl": (71, 187),
    "mq_open": (240, 180),
    # By its name, a file that Landlock before ABI 3 does not guard; an open file is cut by ftruncate.
    "truncate": (76, 45),
    # Namespaces and mounts.
    "unshare": (272, 97),
    "setns": (308, 268),
    "mount": (165, 40),
    "umount2": (166, 39),
    "pivot_root": (155, 41),
    "chroot": (161, 51),
    "open_tree": (428, 428),
    "move_mount": (429, 429),
    "fsopen": (430, 430),
    "fsconfig": (431, 431),
    "fsmount": (432, 432),
    "fspick": (433, 433),
    "mount_setattr": (442, 442),
    "open_by_handle_at": (304, 265),
    # Parts of the kernel that have given many ways into it.
    "bpf": (321, 280),
    "perf_event_open": (298, 241),
    "userfaultfd": (323, 282),
    "keyctl": (250, 219),
    "add_key": (248, 217),
    "request_key": (249, 218),
    "init_module": (175, 105),
    "finit_module": (313, 273),
    "delete_module": (176, 106),
    "kexec_load": (246, 104),
    "kexec_file_load": (320, 294),
    "reboot": (169, 142),
    "swapon": (167, 224),
    "swapoff": (168, 225),
    "quotactl": (179, 60),
    "acct": (163, 89),
}
_OF_NAMED_FILES: dict[str, tuple[int | None, int | None]] = {
    # Landlock guards what is in files, and nothing that is about them. None: AArch64 never had it.
    "chmod": (90, None),
    "fchmodat": (268, 53),
    "fchmodat2": (452, 452),
    "chown": (92, None),
    "lchown": (94, None),
    "fchownat": (260, 54),
    "utime": (132, None),
    "utimes": (235, None),
    "futimesat": (261, None),
    "setxattr": (188, 5),
    "lsetxattr": (189, 6),
    "removexattr": (197, 14),
    "lremovexattr": (198, 15),
    "setxattrat": (463, 463),
    "removexattrat": (466, 466),
}
"""Refused where the process shares its user with others' files."""
_UTIMENSAT, _PRLIMIT = (280, 88), (302, 261)
_SOCKET, _SOCKETPAIR, _CLONE, _CLONE3 = (41, 198), (53, 199), (56, 220), (435, 435)
_SECCOMP = (317, 277)
_ARCHITECTURES = {"x86_64": (0, 0xC000003E), "aarch64": (1, 0xC00000B7)}
"""``uname -m`` to the column above and AUDIT_ARCH (linux/audit.h)."""
_PRCTL = (157, 167)
_SOCK_STREAM, _SOCK_SEQPACKET, _SOCKET_TYPE = 1, 5, 0xF
_X32_BIT = 0x40000000
_AF_UNIX = 1
_NEW_NAMESPACES = 0x7E020000
"""CLONE_NEWNS, NEWCGROUP, NEWUTS, NEWIPC, NEWUSER, NEWPID, NEWNET (linux/sched.h); clone takes no CLONE_NEWTIME."""

# linux/bpf_common.h
_LOAD, _AND, _EQUAL, _GREATER_EQUAL, _ANY_BIT, _RETURN = 0x20, 0x54, 0x15, 0x35, 0x45, 0x06
# linux/seccomp.h; offsets into struct seccomp_data
_NUMBER, _ARCH, _ARGUMENT_0, _ARGUMENT_1 = 0, 4, 16, 24
_KILL, _ALLOW, _ERRNO = 0x80000000, 0x7FFF0000, 0x00050000
_SET_MODE_FILTER = 1
_TSYNC, _SPEC_ALLOW = 1, 4
"""All threads; and no slower CPU: the filter guards against calls, not against what a process can guess of itself."""
_PR_SET_DUMPABLE, _PR_SET_NO_NEW_PRIVS = 4, 38


class FilterUnavailable(Exception):
    """This system takes no filter; the text says why. Only told, never raised through ``bot.child``."""


class _Program(ctypes.Structure):
    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


class _Code:
    """Instructions in the making; jumps count from the next one."""

    def __init__(self) -> None:
        self.instructions: list[tuple[int, int, int, int]] = []

    def add(self, operation: int, value: int, if_true: int = 0, if_false: int = 0) -> None:
        self.instructions.append((operation, if_true, if_false, value))

    def refuse(self, number: int = errno.EPERM) -> None:
        self.add(_RETURN, _ERRNO | number)

    def refuse_call(self, call: int, number: int = errno.EPERM) -> None:
        self.add(_EQUAL, call, if_false=1)
        self.refuse(number)

    def refuse_unless_zero(self, call: int, *halves: int) -> None:
        """Refuse a call unless an argument, told by the offsets of its halves, is zero."""
        self.add(_EQUAL, call, if_false=2 * len(halves) + 2)
        for left, half in zip(range(len(halves), 0, -1), halves, strict=True):
            self.add(_LOAD, half)
            self.add(_EQUAL, 0, if_false=2 * (left - 1) + 1)
        self.add(_RETURN, _ALLOW)
        self.refuse()

    def allow_local_streams(self, call: int) -> None:
        self.add(_EQUAL, call, if_false=9)
        self.add(_LOAD, _ARGUMENT_0)
        self.add(_EQUAL, _AF_UNIX, if_false=6)
        # One for datagrams needs no connect to send them to a daemon.
        self.add(_LOAD, _ARGUMENT_1)
        self.add(_AND, _SOCKET_TYPE)
        self.add(_EQUAL, _SOCK_STREAM, if_true=1)
        self.add(_EQUAL, _SOCK_SEQPACKET, if_false=1)
        self.add(_RETURN, _ALLOW)
        self.refuse()
        self.refuse(errno.EAFNOSUPPORT)  # as on a machine without a network

    def refuse_argument(self, call: int, operation: int, value: int) -> None:
        """Refuse a call whose first argument compares true; it is decided with this."""
        self.add(_EQUAL, call, if_false=4)
        self.add(_LOAD, _ARGUMENT_0)
        self.add(operation, value, if_false=1)
        self.refuse()
        self.add(_RETURN, _ALLOW)


def program(machine: str, *, named_files: bool = True) -> bytes:
    """The filter's instructions (struct sock_filter, 8 bytes each) for a machine of ``_ARCHITECTURES``.

    Args:
        named_files: whether modes, owners and times of files may be set by their names.
    """
    column, audit_arch = _ARCHITECTURES[machine]
    code = _Code()
    code.add(_LOAD, _ARCH)
    code.add(_EQUAL, audit_arch, if_true=1)
    code.add(_RETURN, _KILL)
    code.add(_LOAD, _NUMBER)
    if machine == "x86_64":
        code.add(_GREATER_EQUAL, _X32_BIT, if_false=1)
        code.add(_RETURN, _KILL)
    for numbers in _DENIED.values():
        code.refuse_call(numbers[column])
    if not named_files:
        for pair in _OF_NAMED_FILES.values():
            number = pair[column]
            if number is not None:
                code.refuse_call(number)
        # Without a name, a null pointer, it is about an open file.
        code.refuse_unless_zero(_UTIMENSAT[column], _ARGUMENT_1, _ARGUMENT_1 + 4)
    # The limits of another process of this user, our own parent's for one.
    code.refuse_unless_zero(_PRLIMIT[column], _ARGUMENT_0)
    # Its flags lie in memory, where a filter cannot look; told that there is none, the C library takes clone.
    code.refuse_call(_CLONE3[column], errno.ENOSYS)
    for numbers in (_SOCKET, _SOCKETPAIR):
        code.allow_local_streams(numbers[column])
    # Closed to its own user, it would hide its open files from who watches them.
    code.refuse_argument(_PRCTL[column], _EQUAL, _PR_SET_DUMPABLE)
    code.refuse_argument(_CLONE[column], _ANY_BIT, _NEW_NAMESPACES)
    code.add(_RETURN, _ALLOW)
    return b"".join(struct.pack("=HBBI", *instruction) for instruction in code.instructions)


def no_new_privileges() -> None:
    """No set-user-ID program gives this process, or one that it starts, rights that it has not now.

    Raises:
        FilterUnavailable: not on Linux, or the kernel refuses.
    """
    libc = _libc()
    if libc.prctl(_PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) != 0:
        raise FilterUnavailable(f"no_new_privs: {os.strerror(ctypes.get_errno())}")


def close_to_own_user() -> None:
    """Let no other process of this process's user read its environment and memory below /proc (prctl(2)).

    For a parent that shares its user with the child. Elsewhere than on Linux nothing is done: there is no /proc.
    """
    if sys.platform == "linux":
        _libc().prctl(_PR_SET_DUMPABLE, 0, 0, 0, 0)


def apply(*, named_files: bool = True) -> None:
    """Put the filter on this process, for good. Implies ``no_new_privileges``; arguments as ``program``.

    Raises:
        FilterUnavailable: not Linux, another processor, or a kernel without such filters.
    """
    no_new_privileges()
    machine = platform.machine()
    if machine not in _ARCHITECTURES or sys.maxsize < 2**32:
        raise FilterUnavailable(f"no filter is written for {machine}")
    libc = _libc()
    instructions = program(machine, named_files=named_files)
    buffer = ctypes.create_string_buffer(instructions, len(instructions))
    whole = _Program(len(instructions) // 8, ctypes.addressof(buffer))
    number = _SECCOMP[_ARCHITECTURES[machine][0]]
    for flags in (_TSYNC | _SPEC_ALLOW, _TSYNC):  # kernels before 4.17 do not know the second flag
        if libc.syscall(number, _SET_MODE_FILTER, flags, ctypes.byref(whole)) == 0:
            return
    raise FilterUnavailable(f"seccomp: {os.strerror(ctypes.get_errno())}")


def _libc() -> ctypes.CDLL:
    if sys.platform != "linux":
        raise FilterUnavailable(f"{platform.system()} has no seccomp")
    return ctypes.CDLL(None, use_errno=True)
