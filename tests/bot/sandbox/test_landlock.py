"""Landlock as every version of it would have it, and what a held child may still do."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from bot import child
from bot.sandbox import landlock
from bot.sandbox.call import Reads, Writes
from tests.bot.sandbox.as_root import needs_root

pytestmark = pytest.mark.skipif(landlock.abi() < 7, reason="this kernel's Landlock is older than what is tried here")

TRY = """
import json, os, sys
from bot.sandbox import landlock
version, work = int(sys.argv[1]), sys.argv[2]
landlock.abi = lambda: version
scoped = landlock.hold_signals()
landlock.hold(landlock.Files(reads=(work + "/in", "/nowhere"), home=work + "/home", outs=(work + "/out",)))
def can(act):
    try:
        act()
        return True
    except OSError:
        return False
tried = {
    "read in": lambda: open(work + "/in/file").read(),
    "list in": lambda: os.listdir(work + "/in"),
    "import": lambda: __import__("colorsys"),
    "start": lambda: os.posix_spawn("/bin/true", ["true"], {}),
    "own proc": lambda: open("/proc/self/status").read(),
    "null": lambda: open("/dev/null", "w").write("x"),
    "write home": lambda: open(work + "/home/new", "w").write("x"),
    "link home": lambda: os.symlink("x", work + "/home/link"),
    "write out": lambda: open(work + "/out/new", "w").write("x"),
    "move out": lambda: (os.mkdir(work + "/out/a"), os.rename(work + "/out/a", work + "/out/b")),
    "link out": lambda: os.symlink("x", work + "/out/link"),
    "fifo out": lambda: os.mkfifo(work + "/out/fifo"),
    "write in": lambda: open(work + "/in/file", "a"),
    "list above": lambda: os.listdir(work),
    "read beside": lambda: open(work + "/secret").read(),
    "accounts": lambda: open("/etc/passwd").read(),
    "parent": lambda: open(f"/proc/{os.getppid()}/status").read(),
    "all processes": lambda: os.listdir("/proc"),
    "cut in": lambda: os.truncate(work + "/in/file", 0),
    "signal": lambda: os.kill(os.getppid(), 0),
}
print(json.dumps([scoped, [name for name, act in tried.items() if can(act)]]))
"""
ALLOWED = [
    "read in",
    "list in",
    "import",
    "start",
    "own proc",
    "null",
    "write home",
    "link home",
    "write out",
    "move out",
]


@pytest.mark.parametrize("version", range(1, 8))
def test_every_version_keeps_what_it_can(version: int, tmp_path: Path) -> None:
    for name in ("in", "home", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "in/file").write_text("x")
    (tmp_path / "secret").write_text("x")
    command = [sys.executable, "-c", TRY, str(version), str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, cwd=landlock.__file__.split("/bot/")[0])
    assert done.returncode == 0, done.stderr
    scoped, could = json.loads(done.stdout)
    open_ = (["cut in"] if version < 3 else []) + (["signal"] if version < 6 else [])
    assert could == ALLOWED + open_, "what a version leaves open, the filter of system calls or the docs tell"
    assert scoped == (version >= 6)


WAIT = """
import os, time
print(os.getcwd(), flush=True)
while not os.path.exists('go'):
    time.sleep(0.01)
print(len(open('/proc/self/status').read()) > 0, len(open('/proc/cpuinfo').read()) > 0, flush=True)
"""


@needs_root
def test_its_own_process_stays_in_sight_when_memory_runs_short() -> None:
    """Entries of /proc that nobody holds are forgotten then, and a rule about a forgotten one allows nothing."""
    lines: list[str] = []

    def use(line: bytes) -> None:
        lines.append(line.decode())
        if len(lines) == 1:
            Path("/proc/sys/vm/drop_caches").write_text("2")
            Path(lines[0], "go").touch()

    ended = child.run_module("timeit", ["-n1", "-r1", WAIT], on_line=use)
    assert ended.code == 0, ended.log_tail
    assert lines[1] == "True True"


def script(tmp_path: Path, code: str) -> Reads:
    path = tmp_path / "script.py"
    path.write_text(f"import os, sys\nargs = sys.argv[1:]\n{code}\n")
    return Reads(path)


def test_a_snapshot_of_the_hubs_cache_is_read_through_its_links(tmp_path: Path) -> None:
    """By this process's own user too."""
    cache = tmp_path / "models--a--b"
    (cache / "snapshots/0").mkdir(parents=True)
    (cache / "blobs").mkdir()
    (cache / "blobs/f").write_text("content")
    (tmp_path / "secret").write_text("secret")
    (cache / "snapshots/0/config.json").symlink_to("../../blobs/f")
    (cache / "snapshots/0/stray").symlink_to(tmp_path / "secret")
    code = (
        "print(open(args[0] + '/config.json').read(), flush=True)\n"
        "try:\n print(open(args[0] + '/stray').read())\nexcept PermissionError:\n print('refused')"
    )
    lines: list[bytes] = []
    args = ["-o", "/dev/null", script(tmp_path, code), Reads(cache / "snapshots/0")]
    ended = child.run_module("cProfile", args, on_line=lines.append)
    assert ended.code == 0, ended.log_tail
    assert lines == [b"content", b"refused"]


def test_blobs_beside_a_snapshot_are_no_way_to_elsewhere(tmp_path: Path) -> None:
    (tmp_path / "repo/snapshots/model").mkdir(parents=True)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere/secret").write_text("secret")
    (tmp_path / "repo/blobs").symlink_to(tmp_path / "elsewhere")
    code = "print(open(args[0] + '/../../blobs/secret').read())"
    lines: list[bytes] = []
    args = ["-o", "/dev/null", script(tmp_path, code), Reads(tmp_path / "repo/snapshots/model")]
    assert child.run_module("cProfile", args, on_line=lines.append).code == 1
    assert lines == []


def test_two_outputs_beside_one_another_do_not_see_each_other(tmp_path: Path) -> None:
    (tmp_path / "kept").write_text("secret")
    code = "print(os.listdir(os.path.dirname(args[0])), flush=True); os.mkdir(args[0]); os.listdir(args[1])"
    lines: list[bytes] = []
    args = ["-o", "/dev/null", script(tmp_path, code), Writes(tmp_path / "out"), str(tmp_path)]
    ended = child.run_module("cProfile", args, on_line=lines.append)
    assert lines == [b"[]"]
    assert ended.code == 1 and "PermissionError" in ended.log_tail
    assert (tmp_path / "out").is_dir()


@needs_root
def test_a_root_without_another_user_has_none_of_roots_rights(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PTEBOT_EXPORT_USER", "")
    code = (
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapBnd'))])\n"
        "import subprocess\n"
        "print(subprocess.run(['/bin/sh', '-c', 'grep CapEff /proc/$$/status; mknod x b 1 1; chown 1 .'], "
        "capture_output=True, text=True).stderr.count('ermi'))"
    )
    lines: list[bytes] = []
    ended = child.run_module("timeit", ["-n1", "-r1", code], on_line=lines.append)
    assert ended.code == 0, ended.log_tail
    assert os.geteuid() == 0
    assert lines[0] == b"['0000000000000006', '0000000000000006']"
    assert int(lines[1]) >= 2
