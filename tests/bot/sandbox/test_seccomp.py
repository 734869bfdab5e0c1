"""The filter in force: hostile statements in a real child, as whatever user the tests run."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from bot import child
from bot.sandbox import seccomp

pytestmark = pytest.mark.skipif(
    sys.platform != "linux" or platform.machine() not in ("x86_64", "aarch64"), reason="no filter for this system"
)


def said(code: str) -> list[str]:
    """What the statements print in a child, or how they failed; ``call`` makes a system call by its number."""
    before = (
        "import ctypes, errno, os, socket\n"
        "libc = ctypes.CDLL(None, use_errno=True)\n"
        "def call(*args):\n"
        "    ctypes.set_errno(0); got = libc.syscall(*args)\n"
        "    print(errno.errorcode[ctypes.get_errno()] if got < 0 else 'done', flush=True)\n"
    )
    lines: list[str] = []
    ended = child.run_module("timeit", ["-n1", "-r1", before + code], on_line=lambda line: lines.append(line.decode()))
    return lines[:-1] if ended.code == 0 else [*lines, f"exit {ended.code}"]


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET", "AF_VSOCK"])
def test_no_socket_but_local_ones(family: str) -> None:
    kinds = "socket.SOCK_STREAM, socket.SOCK_DGRAM, socket.SOCK_RAW"
    code = (
        f"for kind in ({kinds}):\n try:\n  socket.socket(socket.{family}, kind)\n  print('open')\n"
        " except OSError as e:\n  print(errno.errorcode[e.errno])"
    )
    assert said(code) == ["EAFNOSUPPORT"] * 3


def test_local_sockets_work_and_reach_no_daemon(tmp_path: Path) -> None:
    code = (
        "import socket as s\na, b = s.socketpair(); a.send(b'x'); print(b.recv(1).decode())\n"
        "one = s.socket(s.AF_UNIX); one.bind('door'); one.listen()\n"
        "try:\n s.socket(s.AF_UNIX).connect('door')\n print('connected')\nexcept PermissionError:\n print('refused')"
    )
    assert said(code) == ["x", "refused"]


def test_no_ring_no_namespace_no_mount_no_look_into_others() -> None:
    numbers = {name: seccomp._DENIED[name] for name in seccomp._DENIED}
    column = 0 if platform.machine() == "x86_64" else 1
    code = "\n".join(f"call({pair[column]}, 0, 0, 0, 0, 0)" for pair in numbers.values())
    assert said(code) == ["EPERM"] * len(numbers)


@pytest.mark.parametrize("kind", ["SOCK_DGRAM", "SOCK_RAW", "SOCK_DGRAM | socket.SOCK_CLOEXEC"])
def test_no_local_datagrams(kind: str) -> None:
    """They are sent to any daemon's address without a connection."""
    code = (
        f"for make in (socket.socket, socket.socketpair):\n try:\n  make(socket.AF_UNIX, socket.{kind})\n"
        "  print('made')\n except PermissionError:\n  print('refused')"
    )
    assert said(code) == ["refused"] * 2


def test_other_kinds_of_local_sockets_work() -> None:
    code = "for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET): socket.socketpair(type=kind); print('made')"
    assert said(code) == ["made"] * 2


def test_limits_are_its_own_to_lower_and_nobody_elses() -> None:
    code = (
        "import resource; resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64)); print(resource.getrlimit(7))\n"
        "try:\n resource.prlimit(os.getppid(), resource.RLIMIT_CORE)\n print('read')\n"
        "except PermissionError:\n print('refused')\n"
        "call({}, 4, 0, 0, 0, 0)".format(157 if platform.machine() == "x86_64" else 167)
    )
    assert said(code) == ["(64, 64)", "refused", "EPERM"]


def test_modes_owners_and_times_are_set_of_open_files_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the user is not the child's own; a name whose address ends in zeros is no missing name."""
    code = (
        "open('f', 'w').close(); fd = os.open('f', os.O_RDONLY); os.fchmod(fd, 0o640); os.utime(fd, (1, 1))\n"
        "print(oct(os.fstat(fd).st_mode), os.fstat(fd).st_mtime)\n"
        "for act in (lambda: os.chmod('f', 0), lambda: os.utime('f'), lambda: os.chown('f', -1, -1),"
        " lambda: os.setxattr('f', 'user.x', b'x')):\n"
        " try:\n  act(); print('did')\n except PermissionError:\n  print('refused')\n"
        "libc.mmap.restype = at = ctypes.c_void_p; i = ctypes.c_int\n"
        "libc.mmap.argtypes = [at, ctypes.c_size_t, i, i, i, ctypes.c_long]\n"
        "at = libc.mmap(1 << 32, 4096, 3, 0x100032, -1, 0); assert at == 1 << 32, at\n"
        "ctypes.memmove(at, b'f\\0', 2)\n"
        "call({}, -100, ctypes.c_void_p(at), None, 0)\n".format(280 if platform.machine() == "x86_64" else 88)
    )
    monkeypatch.setenv("PTEBOT_EXPORT_USER", "")
    assert said(code) == ["0o100640 1.0", *["refused"] * 4, "EPERM"]


@pytest.mark.parametrize("flag", [0x00020000, 0x10000000, 0x20000000, 0x40000000, 0x08000000, 0x04000000, 0x02000000])
def test_no_clone_into_a_new_namespace(flag: int) -> None:
    number = 56 if platform.machine() == "x86_64" else 220
    assert said(f"call({number}, {flag} | 17, 0, 0, 0, 0)") == ["EPERM"]


def test_the_newer_clone_looks_as_if_it_were_not_there() -> None:
    assert said("call(435, 0, 0)") == ["ENOSYS"]


def test_threads_and_processes_still_start() -> None:
    code = (
        "import threading, subprocess, multiprocessing as m\n"
        "t = threading.Thread(target=lambda: print('thread', flush=True)); t.start(); t.join()\n"
        "print(subprocess.run(['echo', 'process'], capture_output=True, text=True).stdout.strip(), flush=True)\n"
        "p = m.get_context('fork').Process(target=print, args=('forked',), kwargs={'flush': True}); p.start(); p.join()"
    )
    assert said(code) == ["thread", "process", "forked"]


def test_what_a_child_starts_is_held_too() -> None:
    inner = "import socket; socket.socket()"
    code = f"import subprocess, sys; print(subprocess.run([sys.executable, '-c', {inner!r}], stderr=-3).returncode)"
    assert said(code) == ["1"]


@pytest.mark.platform
@pytest.mark.skipif(platform.machine() != "x86_64", reason="x32 and i386 are ABIs of x86-64")
@pytest.mark.parametrize("way", ["x32", "i386"])
def test_calls_of_another_abi_end_the_process(way: str) -> None:
    # mov eax, 41 (socket of x32) | 0x40000000; syscall; ret      mov eax, 359 (socket of i386); int 0x80; ret
    machine = {"x32": "b8290000400f05c3", "i386": "b867010000cd80c3"}[way]
    code = (
        "import mmap\npage = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)\n"
        f"page.write(bytes.fromhex('{machine}'))\n"
        "run = ctypes.CFUNCTYPE(ctypes.c_long)(ctypes.addressof(ctypes.c_char.from_buffer(page)))\n"
        "print('before', flush=True); run(); print('after', flush=True)"
    )
    assert said(code) == ["before", "exit -31"]  # SIGSYS


def test_the_filter_cannot_be_taken_off_by_a_set_user_id_program() -> None:
    code = "print([l.split()[1] for l in open('/proc/self/status') if l.startswith(('NoNewPrivs', 'Seccomp:'))])"
    assert said(code) == ["['1', '2']"]


def test_a_system_without_filters_is_told_and_works() -> None:
    script = (
        "import platform, sys; platform.machine = lambda: 'riscv64'; sys.argv[1:] = ['bot.sandbox.probe']\n"
        "from bot import leash; leash.main()"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", script], stdin=-1, stdout=-1, stderr=-1, text=True, start_new_session=True
    )
    assert process.stdin and process.stdout and process.stderr
    with process, process.stdin:  # the leash: closed, the child ends
        assert '"network": true' in process.stdout.read()
        assert "no filter is written for riscv64" in process.stderr.read()


@pytest.mark.parametrize("named_files", [True, False])
@pytest.mark.parametrize("machine", ["x86_64", "aarch64"])
def test_every_jump_lands_inside(machine: str, named_files: bool) -> None:
    """The kernel would refuse the program; on the other processor nobody asks it."""
    whole = seccomp.program(machine, named_files=named_files)
    code = [(whole[i], whole[i + 2], whole[i + 3]) for i in range(0, len(whole), 8)]
    for index, (operation, if_true, if_false) in enumerate(code):
        assert operation == seccomp._RETURN or index + 1 + max(if_true, if_false) < len(code)
    assert code[-1][0] == seccomp._RETURN
