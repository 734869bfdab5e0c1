"""What a hostile model could do once its code runs: a script for every executor, ``... ACT FACTS.json [OUT]``.

It runs inside of the sandbox (``python -m cProfile`` of Python's own runs it, for that takes a script), and needs
nothing but Python. What succeeds is told as one JSON line ``{"leaked": NAME, "what": ...}``; what is refused is told as
``{"refused": NAME}``. To add a deed: a function ``look_...`` (quick, told apart) or ``act_...`` (ends in its own way).
"""

# The kernel's own calls are what is tried:
# ruff: noqa: PTH101, PTH102, PTH107, PTH120, PTH123, PTH208, PTH211, S103, S108, SIM105
from __future__ import annotations

import ctypes
import json
import mmap
import os
import platform
import signal
import socket
import sys
import time
from typing import Any

X86 = platform.machine() == "x86_64"
LIBC = ctypes.CDLL(None, use_errno=True)
FACTS: dict[str, Any] = {}
OUT = ""


def say(**line: Any) -> None:
    os.write(1, (json.dumps(line) + "\n").encode())


def call(x86: int, arm: int, *args: Any) -> int:
    got = int(LIBC.syscall(x86 if X86 else arm, *args))
    if got < 0:
        raise OSError(ctypes.get_errno(), "refused")
    return got


def read(path: str, size: int = 1 << 16) -> str:
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    try:
        return os.read(descriptor, size).decode("utf-8", "replace")
    finally:
        os.close(descriptor)


# -- the network, and doors that others opened ------------------------------------------------------------------------


def look_tcp() -> object:
    with socket.create_connection(("127.0.0.1", FACTS["tcp"]), timeout=3):
        return "connected"


def look_udp() -> object:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as one:
        return one.sendto(b"leak", ("127.0.0.1", FACTS["udp"]))


def look_unix() -> object:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(FACTS["unix"])
        return "connected"


def look_unix_datagram() -> object:
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as one:
        return one.sendto(b"leak", FACTS["datagram"])


def look_unix_pair_datagram() -> object:
    one, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with one, other:
        return one.sendto(b"leak", FACTS["datagram"])


def look_abstract() -> object:
    with socket.socket(socket.AF_UNIX) as one:
        one.connect("\0" + FACTS["abstract"])
        return "connected"


def look_fifo() -> object:
    descriptor = os.open(FACTS["fifo"], os.O_WRONLY | os.O_NONBLOCK)
    return os.write(descriptor, b"leak")


# -- other processes --------------------------------------------------------------------------------------------------


def look_environ_of_parent() -> object:
    return FACTS["secret"] in read(f"/proc/{FACTS['pid']}/environ") or refused()


def look_command_line_of_parent() -> object:
    return FACTS["secret"] in read(f"/proc/{FACTS['pid']}/cmdline") or refused()


def look_every_process() -> object:
    for pid in [name for name in os.listdir("/proc") if name.isdigit()]:
        for file in ("environ", "cmdline"):
            try:
                if FACTS["secret"] in read(f"/proc/{pid}/{file}"):
                    return f"{pid} {file}"
            except OSError:
                continue
    return refused()


def look_memory_of_parent() -> object:
    return read(f"/proc/{FACTS['pid']}/maps") or refused()


def look_root_of_parent() -> object:
    return os.listdir(f"/proc/{FACTS['pid']}/root") and os.listdir(f"/proc/{FACTS['pid']}/cwd")


def look_ptrace() -> object:
    return call(101, 117, 0x4206, FACTS["pid"], 0, 0)  # PTRACE_SEIZE


def look_signal() -> object:
    os.kill(FACTS["pid"], signal.SIGTERM)
    return "sent"


def look_signal_of_a_thread() -> object:
    return call(234, 131, FACTS["pid"], FACTS["pid"], signal.SIGTERM)  # tgkill


def look_signal_by_descriptor() -> object:
    signal.pidfd_send_signal(os.pidfd_open(FACTS["pid"]), signal.SIGTERM)
    return "sent"


def look_signal_by_a_pipe() -> object:
    """One that asks the kernel to tell somebody of its news; whether that arrived is the parent's to tell."""
    import fcntl

    reader, writer = os.pipe()
    fcntl.fcntl(reader, 10, signal.SIGTERM)  # F_SETSIG
    fcntl.fcntl(reader, fcntl.F_SETOWN, FACTS["pid"])
    fcntl.fcntl(reader, fcntl.F_SETFL, fcntl.fcntl(reader, fcntl.F_GETFL) | os.O_ASYNC)
    os.write(writer, b"x")
    return refused()


def look_priority_of_parent() -> object:
    os.setpriority(os.PRIO_PROCESS, FACTS["pid"], 19)
    return "lowered"


def look_limits_of_parent() -> object:
    import resource

    return resource.prlimit(FACTS["pid"], resource.RLIMIT_CORE, (0, 0))


# -- files ------------------------------------------------------------------------------------------------------------


def look_shadow() -> object:
    return read("/etc/shadow")


def look_accounts() -> object:
    return read("/etc/passwd") if not FACTS.get("own_root") else refused()


def look_data_directory() -> object:
    return os.listdir(FACTS["data"])


def look_data_file() -> object:
    return read(FACTS["data"] + "/jobs.db")


def look_home() -> object:
    return read(FACTS["data"] + "/home/.ssh/id_ed25519")


def look_write_data() -> object:
    with open(FACTS["data"] + "/new", "w") as stream:
        return stream.write("x")


def look_overwrite_data() -> object:
    with open(FACTS["data"] + "/jobs.db", "r+") as stream:
        return stream.write("x")


def look_cut_data() -> object:
    os.truncate(FACTS["data"] + "/jobs.db", 0)
    return "cut"


def look_remove_data() -> object:
    os.remove(FACTS["data"] + "/jobs.db")
    return "removed"


def look_modes_of_data() -> object:
    os.chmod(FACTS["data"] + "/jobs.db", 0o777)
    return "changed"


def look_times_of_data() -> object:
    os.utime(FACTS["data"] + "/jobs.db", (0, 0))
    return "changed"


def look_attributes_of_data() -> object:
    os.setxattr(FACTS["data"] + "/jobs.db", "user.x", b"x")
    return "changed"


def look_watch_data() -> object:
    return call(254, 27, LIBC.inotify_init1(0), FACTS["data"].encode(), 0xFFF)


def look_link_data() -> object:
    os.link(FACTS["data"] + "/jobs.db", "stolen")
    return read("stolen")


def look_write_input() -> object:
    with open(sys.argv[0], "a") as stream:
        return stream.write("x")


def look_write_system() -> object:
    with open("/usr/lib/x", "w") as stream:
        return stream.write("x")


def look_shared_memory() -> object:
    with open("/dev/shm/" + FACTS["abstract"], "r+b") as stream:  # the parent's own
        return stream.read(1).decode()


def look_temporary_directory() -> object:
    return read(FACTS["temporary"])


# -- the kernel -------------------------------------------------------------------------------------------------------


def look_root() -> object:
    os.setuid(0)
    return "root" if not FACTS.get("own_root") and os.getuid() == 0 else refused()


def look_device() -> object:
    os.mknod("device", 0o600 | 0o060000, os.makedev(254, 0))
    return "made"


def look_namespace() -> object:
    return call(272, 97, 0x10000000)


def look_mount() -> object:
    return call(165, 40, b"none", b"/usr", b"tmpfs", 0, 0)


def refused() -> object:
    raise PermissionError(1, "nothing to be seen")


def act_look() -> None:
    """Everything above, one after the other."""
    for name in sorted(name for name in globals() if name.startswith("look_")):
        try:
            got = globals()[name]()
        except OSError:
            say(refused=name)
        except Exception as error:
            say(broken=name, what=repr(error))
        else:
            say(leaked=name, what=str(got)[:200])


# -- what takes much --------------------------------------------------------------------------------------------------


def act_fork_bomb() -> None:
    while True:
        try:
            os.fork()
        except OSError:
            pass


def act_thread_bomb() -> None:
    import threading

    while True:
        try:
            threading.Thread(target=time.sleep, args=(600,), daemon=True).start()
        except RuntimeError:
            say(bounded=threading.active_count())
            time.sleep(600)


def act_memory_bomb() -> None:
    kept = []
    while True:
        kept.append(bytearray(os.urandom(1 << 20)))


def act_memory_bomb_in_pieces() -> None:
    """Shared between processes, none of which looks large."""
    for _ in range(8):
        shared = mmap.mmap(-1, 64 << 20)
        if os.fork() == 0:
            shared.write(b"x" * (64 << 20))
            time.sleep(600)
    time.sleep(600)


def act_memory_without_a_process() -> None:
    descriptor = call(319, 279, b"x", 0)  # memfd_create
    for _ in range(1 << 10):
        os.write(descriptor, b"x" * (1 << 20))
    say(leaked="memfd")


def act_fill_home() -> None:
    with open("filler", "wb") as stream:
        while True:
            stream.write(b"x" * (1 << 18))
            stream.flush()
            time.sleep(0.01)


def act_fill_out() -> None:
    os.chdir(os.path.dirname(OUT))
    act_fill_home()


def act_fill_with_small_files() -> None:
    number = 0
    while True:
        number += 1
        with open(str(number), "w"):
            pass


def act_fill_without_a_name() -> None:
    kept = []
    while True:
        descriptor = os.open("filler", os.O_CREAT | os.O_RDWR)
        kept.append(descriptor)
        os.remove("filler")
        for _ in range(10):
            os.write(descriptor, b"x" * (1 << 18))
        time.sleep(0.01)


def act_endless_lines() -> None:
    while True:
        os.write(1, b"x" * 79 + b"\n")


def act_endless_line() -> None:
    while True:
        os.write(1, b"x" * 65536)


def act_endless_log() -> None:
    while True:
        os.write(2, b"x" * 79 + b"\n")


# -- who does not go --------------------------------------------------------------------------------------------------


def act_outlive() -> None:
    """Leave the family and the group, close everything, and be deaf to what can be deaf to."""
    ready, told = os.pipe()
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            for number in range(1, 32):
                if number not in (signal.SIGKILL, signal.SIGSTOP):
                    signal.signal(number, signal.SIG_IGN)
            os.write(told, b"x")
            for descriptor in range(64):
                try:
                    os.close(descriptor)
                except OSError:
                    pass
            while True:  # never one process for long
                if os.fork():
                    os._exit(0)
        os._exit(0)
    os.read(ready, 1)
    say(started=True)


def act_outlive_with_stdout() -> None:
    if os.fork() == 0:
        os.setsid()
        while True:
            time.sleep(1)
    say(started=True)


def act_stay() -> None:
    say(started=True)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    act_outlive()
    while True:
        time.sleep(1)


def act_kill_everybody() -> None:
    os.kill(-1, signal.SIGKILL)
    say(did="survived")


def act_kill_the_guard() -> None:
    for pid in range(2, os.getpid() + 50):
        if pid != os.getpid():
            for number in (signal.SIGSTOP, signal.SIGKILL):
                try:
                    os.kill(pid, number)
                except OSError:
                    pass
    say(did="survived")


# -- what it leaves in OUT --------------------------------------------------------------------------------------------


def act_out_is_a_link() -> None:
    os.symlink("/etc", OUT)


def act_out_holds_a_link() -> None:
    os.mkdir(OUT)
    os.symlink(FACTS["data"] + "/jobs.db", OUT + "/report.json")


def act_out_holds_a_hard_link() -> None:
    os.mkdir(OUT)
    os.link(FACTS["data"] + "/jobs.db", OUT + "/report.json")


def act_out_holds_a_fifo() -> None:
    os.mkdir(OUT)
    os.mkfifo(OUT + "/report.json")


def act_out_holds_a_device() -> None:
    os.mkdir(OUT)
    os.mknod(OUT + "/report.json", 0o666 | 0o020000, os.makedev(1, 5))


def act_report_lies() -> None:
    os.mkdir(OUT)
    with open(OUT + "/report.json", "w") as stream:
        json.dump({**FACTS["report"], "cells": [{**FACTS["report"]["cells"][0], "file": "../../jobs.db"}]}, stream)


def act_report_is_large() -> None:
    os.mkdir(OUT)
    with open(OUT + "/report.json", "w") as stream:
        stream.truncate(2 << 30)


def act_well() -> None:
    os.mkdir(OUT)
    with open(OUT + "/file", "w") as stream:
        stream.write("x")
    say(started=True)


if __name__ == "__main__":
    with open(sys.argv[2]) as facts:
        FACTS = json.load(facts)
    OUT = sys.argv[3] if len(sys.argv) > 3 else ""
    LIBC.prctl(15, FACTS["name"].encode(), 0, 0, 0)  # by which what is left of it is found
    globals()["act_" + sys.argv[1]]()
