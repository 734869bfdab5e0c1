"""Real children of a ptebot that root runs, doing what a hostile model could do once its code runs."""

from __future__ import annotations

import ast
import json
import os
import stat
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from bot.errors import OutputNotTrusted, SandboxUnavailable
from bot.sandbox import landlock, places, privileges
from tests.bot.sandbox.as_root import SECRET, UID, needs_root, open_folder, ptebot

FREE = UID + 1
"""The number that a second ptebot takes while the first has its own."""


@pytest.fixture
def folder() -> Iterator[Path]:
    with open_folder() as name:
        yield Path(name)


def child(code: str, *, cwd: Path, args: str = "", after: str = "", **environ: Any) -> dict[str, Any]:
    """``code`` in a child; what it printed, its exit code and its log. ``args``: more arguments, as Python.

    cProfile is a module of Python's own that runs a script with arguments.
    """
    script = cwd / "script.py"
    script.write_text(f"import os, signal, sys, time\nargs = sys.argv[1:]\n{code}\n")
    script.chmod(0o644)
    whole = f"""
from pathlib import Path
from bot.child import run_module
from bot.sandbox.call import Reads, Writes
lines = []
try:
    ended = run_module("cProfile", ["-o", "/dev/null", Reads(Path({str(script)!r})), {args}],
                       on_line=lambda line: lines.append(line.decode("utf-8", "replace")))
    found.update(code=ended.code, log=ended.log_tail)
except Exception as error:
    found.update(error=type(error).__name__, text=str(error))
found["lines"] = lines
{after}
"""
    return ptebot(whole, cwd=cwd, **environ)


TRY = "\nfor act in acts:\n try:\n  print('did', act())\n except OSError as e:\n  print(type(e).__name__)"


@needs_root
def test_a_child_is_another_user_with_nothing(folder: Path) -> None:
    code = (
        "print(os.getresuid(), os.getresgid(), os.getgroups()); print(sorted(os.environ)); "
        "print(os.getcwd() == os.environ['HOME'] == os.environ['TMPDIR'], os.listdir('.')); "
        "print([l.split()[1] for l in open('/proc/self/status') if l.startswith(('CapEff', 'CapPrm', 'NoNewPrivs'))]); "
        "at = '/proc/self/fd/'; print(sorted(os.readlink(at + n).split(':')[0] for n in os.listdir(at) if n != '3')); "
        "import getpass; print(getpass.getuser())"
    )
    found = child(code, cwd=folder)
    ids, names, home, rights, open_files, user = found["lines"]
    assert ids == f"({UID}, {UID}, {UID}) ({UID}, {UID}, {UID}) []"
    assert SECRET not in str(found)
    assert "HF_TOKEN" not in names and "PTEBOT_EXPORT_USER" not in names and "PYTHONPATH" not in names
    assert home == "True []"
    assert rights == "['0000000000000000', '0000000000000000', '1']"
    # What Landlock's rules are about stays open, without a right to read from it; 3 lists the directory.
    assert {name.split("/")[1] for name in ast.literal_eval(open_files) if name[0] == "/"} <= {"dev", "proc", "sys"}
    assert user == "ptebot-export"


@needs_root
def test_a_child_cannot_reach_its_parent(folder: Path) -> None:
    code = (
        "p = int(args[0])\nacts = ["
        "lambda: open(f'/proc/{p}/environ').read(), lambda: open(f'/proc/{p}/mem', 'rb').read(1), "
        "lambda: os.listdir(f'/proc/{p}/fd'), lambda: os.readlink(f'/proc/{p}/cwd'), "
        "lambda: os.kill(p, signal.SIGTERM), lambda: os.killpg(os.getpgid(p), signal.SIGTERM), "
        "lambda: os.setuid(0), lambda: os.setgroups([0])]" + TRY
    )
    found = child(code, cwd=folder, args="str(__import__('os').getpid())")
    assert found["lines"] == ["PermissionError"] * 8
    assert found["code"] == 0


@needs_root
def test_without_root_the_child_cannot_look_into_its_parent_either(folder: Path) -> None:
    """They share a user, and the parent's environment has the token."""
    look = (
        "import os; p = os.getppid()\nfor name in ('environ', 'mem', 'maps'):\n"
        " try:\n  open(f'/proc/{p}/{name}', 'rb').read(1); print('read')\n except PermissionError:\n  print('refused')"
    )
    parent = (
        "from bot import child; child.run_module('timeit', ['-n1', '-r1', "
        f"{look!r}], on_line=lambda line: print(line.decode(), flush=True))"
    )
    code = (
        "import subprocess, sys\n"
        f"done = subprocess.run([sys.executable, '-c', {parent!r}], user={UID}, group={UID}, extra_groups=[], "
        "capture_output=True, text=True)\nfound['said'] = done.stdout.split()[:3]; found['log'] = done.stderr"
    )
    found = ptebot(code, cwd=folder)
    assert found["said"] == ["refused"] * 3, found["log"]


@needs_root
def test_a_child_starts_no_endless_number_of_processes(folder: Path) -> None:
    code = (
        "import resource; print(resource.getrlimit(resource.RLIMIT_NPROC), resource.getrlimit(resource.RLIMIT_CORE))\n"
        "resource.setrlimit(resource.RLIMIT_NPROC, (5000, 5000))"
    )
    found = child(code, cwd=folder)
    assert found["lines"] == ["(4096, 4096) (0, 0)"]
    assert "not allowed to raise maximum limit" in found["log"]


@needs_root
def test_a_child_writes_to_nothing_of_roots(folder: Path) -> None:
    (folder / "workspace").mkdir(mode=0o755)
    (folder / "workspace/file").write_text("kept")
    (folder / "state").mkdir(mode=0o700)
    (folder / "state/secret").write_text(SECRET)
    code = (
        f"f = {str(folder)!r}\nacts = ["
        "lambda: open(f + '/workspace/new', 'w'), lambda: open(f + '/workspace/file', 'a'), "
        "lambda: os.remove(f + '/workspace/file'), lambda: os.listdir(f + '/state'), "
        "lambda: open(f + '/state/secret').read(), lambda: open('../new', 'w'), lambda: os.listdir('..'), "
        "lambda: os.rename('../home', '../other')]" + TRY
    )
    assert child(code, cwd=folder)["lines"] == ["PermissionError"] * 8


@needs_root
def test_a_model_where_only_root_may_look_is_read_and_no_more_of_it(folder: Path) -> None:
    closed = folder / "closed"
    model = closed / "the model"
    model.mkdir(parents=True)
    closed.chmod(0o700)
    for name, mode in {"config.json": 0o644, "weights.safetensors": 0o600, ".git-credentials": 0o600}.items():
        (model / name).write_text(name)
        (model / name).chmod(mode)
    code = (
        "m = args[0]; print(os.path.basename(m), sorted(os.listdir(m)))\n"
        "print([open(os.path.join(m, n)).read() for n in sorted(os.listdir(m))])\nacts = ["
        "lambda: open(m + '/config.json', 'a'), lambda: os.chmod(m + '/config.json', 0o777), "
        "lambda: os.remove(m + '/config.json'), lambda: open(m + '/new', 'w')]" + TRY
    )
    found = child(code, cwd=folder, args=f"Reads(Path({str(model)!r}))")
    assert found["lines"] == [
        "the model ['config.json', 'weights.safetensors']",
        "['config.json', 'weights.safetensors']",
        *["PermissionError"] * 4,
    ]
    assert stat.S_IMODE((model / "weights.safetensors").stat().st_mode) == 0o600
    assert (model / "config.json").stat().st_nlink == 1, "the links are gone"


@needs_root
@pytest.mark.parametrize("closed", [0o700, 0o755])
def test_a_link_in_a_model_shows_nothing_of_roots(folder: Path, closed: int) -> None:
    """A repository can hold links; followed by root, one would show the exporter any file of root's."""
    (folder / "secret").write_text(SECRET)
    (folder / "secret").chmod(0o600)
    model = folder / "model"
    model.mkdir()
    (model / "tokenizer.json").symlink_to(folder / "secret")
    model.chmod(closed)
    found = child("print(open(args[0] + '/tokenizer.json').read())", cwd=folder, args=f"Reads(Path({str(model)!r}))")
    assert found["error"] == "InvalidModelDirectory"
    assert found["lines"] == []


@needs_root
def test_a_snapshot_of_the_hubs_cache_is_read_through_its_links(folder: Path) -> None:
    cache = folder / "cache"
    (cache / "blobs").mkdir(parents=True)
    (cache / "blobs/0a").write_text("config")
    snapshot = cache / "snapshots/main"
    snapshot.mkdir(parents=True)
    (snapshot / "config.json").symlink_to("../../blobs/0a")
    cache.chmod(0o700)
    found = child("print(open(args[0] + '/config.json').read())", cwd=folder, args=f"Reads(Path({str(snapshot)!r}))")
    assert found["lines"] == ["config"]


@needs_root
def test_a_model_that_anybody_may_write_is_copied(folder: Path) -> None:
    model = folder / "model"
    model.mkdir()
    (model / "config.json").write_text("before")
    (model / "config.json").chmod(0o666)
    code = "acts = [lambda: open(args[0] + '/config.json', 'w')]" + TRY
    assert child(code, cwd=folder, args=f"Reads(Path({str(model)!r}))")["lines"] == ["PermissionError"]
    assert (model / "config.json").read_text() == "before"


OUT = "Writes(Path('out'))"
LOOK = (
    "out = Path('out'); there = [out, *out.rglob('*')] if out.exists() else []\n"
    "found['out'] = {str(p): [p.stat().st_uid, oct(p.stat().st_mode)] for p in there}"
)


@needs_root
def test_what_a_child_wrote_is_ours_afterwards(folder: Path) -> None:
    code = (
        "os.umask(0); os.makedirs(args[0] + '/sub', 0o777); open(args[0] + '/sub/file', 'w').write('x'); "
        "os.chmod(args[0] + '/sub/file', 0o6777); os.chmod(args[0] + '/sub', 0); print('made')"
    )
    found = child(code, cwd=folder, args=OUT, after=LOOK)
    assert found["lines"] == ["made"]
    assert found["out"] == {"out": [0, "0o40755"], "out/sub": [0, "0o40700"], "out/sub/file": [0, "0o100755"]}


SWAPS = [
    "os.symlink('/etc', args[0])",
    "os.mkdir(args[0]); os.symlink('/etc/shadow', args[0] + '/report.json')",
    "os.mkdir(args[0]); os.mkfifo(args[0] + '/report.json')",
    "os.mkdir(args[0]); open('kept', 'w').close(); os.link('kept', args[0] + '/report.json')",
    "import socket; os.mkdir(args[0]); os.chdir(args[0]); socket.socket(socket.AF_UNIX).bind('s')",
    "os.makedirs(args[0] + '/a/b/c/d/e/f/g/h/i/j')",
    "os.mkdir(args[0]); [open(f'{args[0]}/{n}', 'w').close() for n in range(10_001)]",
    "os.mkdir(args[0]); open(args[0] + '/a', 'w').close(); os.link(args[0] + '/a', args[0] + '/b')",
]
"""Landlock refuses the first five already; a kernel without it does not."""


def etc() -> list[tuple[int, int]]:
    return [(one.st_uid, one.st_mode) for one in (Path("/etc").stat(), Path("/etc/shadow").stat())]


@needs_root
@pytest.mark.parametrize("swap", SWAPS)
def test_nothing_but_plain_files_comes_out(folder: Path, swap: str) -> None:
    before = etc()
    found = child(swap, cwd=folder, args=OUT)
    out = folder / "out"
    if landlock.abi() and swap in SWAPS[:5]:
        assert found["code"] == 1 and "Error" in found["log"], found
        assert list(out.rglob("*")) == []
    else:
        assert found["error"] == "OutputNotTrusted", found
        assert not out.exists()
    assert not out.is_symlink()
    assert etc() == before


@needs_root
@pytest.mark.parametrize("swap", SWAPS)
def test_nothing_but_plain_files_is_taken(folder: Path, swap: str) -> None:
    """What a kernel without Landlock lets a child make."""
    before = etc()
    theirs = folder / "theirs"
    theirs.mkdir()
    os.chown(theirs, UID, UID)
    code = f"import os; args = ['there/out']; os.mkdir('there'); {swap}"
    subprocess.run(
        ["/usr/bin/env", "python3", "-c", code], cwd=theirs, user=UID, group=UID, extra_groups=[], check=True
    )
    with pytest.raises(OutputNotTrusted):
        places.take(privileges.User(uid=UID, gid=UID), theirs / "there/out", folder / "out")
    assert not (folder / "out").exists() and not (folder / "out").is_symlink()
    assert etc() == before


HIDE = """
def try_kill(pid, number):
    try:
        os.kill(pid, number)
    except OSError:
        pass
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        for fd in (0, 1, 2):
            os.close(fd)
        deadline = time.time() + 60
        while time.time() < deadline:
            {act}
    os._exit(0)
os.makedirs(args[0]); open(args[0] + '/file', 'w').write('x'); print('made', flush=True); time.sleep(0.3)
"""


@needs_root
@pytest.mark.parametrize(
    "act",
    [
        "time.sleep(0.01)",
        # Plays for time between root's look and root's deed.
        "os.path.islink(args[0]) or (os.rename(args[0], args[0] + '2'), os.symlink('/etc', args[0]))",
        # Kills and stops whatever appears under its number.
        "[try_kill(p, s) for p in range(os.getpid() - 200, os.getpid() + 200) if p > 1 and p != os.getpid() "
        "for s in (signal.SIGSTOP, signal.SIGKILL)]",
        # Is never one process for long.
        "os.fork() and os._exit(0)",
    ],
)
def test_nobody_outlives_the_child(folder: Path, act: str) -> None:
    after = LOOK + "\nfrom bot.sandbox import privileges; found['left'] = privileges.running(privileges.plan().user)"
    found = child(
        HIDE.format(act=act), cwd=folder, args=OUT, after=after.replace("Path('out').rglob", "Path('out').glob")
    )
    assert found["left"] == []
    assert found.get("error") in (None, "OutputNotTrusted"), found
    assert not (folder / "out").is_symlink()
    assert Path("/etc").stat().st_uid == 0


@needs_root
def test_nobody_holds_the_parent_up(folder: Path) -> None:
    """What has left the child's group still has its standard output; read to its end, that could last forever."""
    code = "if os.fork() == 0:\n    os.setsid(); time.sleep(20); os._exit(0)\nprint('done', flush=True)"
    started = time.monotonic()
    assert child(code, cwd=folder)["lines"] == ["done"]
    assert time.monotonic() - started < 15


@needs_root
def test_who_ends_them_cannot_be_ended_by_them(folder: Path) -> None:
    """The same process, held in front of its deed; with one number for all its identities they could be quicker."""
    act = "os.kill(-1, signal.SIGKILL)"
    assert act in privileges._SWEEP
    waiting = privileges._SWEEP.replace(act, "import time; print('ready', flush=True); time.sleep(20)")
    try_it = (
        "import os, sys\nfor number in (0, 9, 19):\n try:\n  os.kill(int(sys.argv[1]), number); print('did')\n"
        " except PermissionError:\n  print('refused')"
    )
    code = (
        "import subprocess, sys\n"
        f"sweep = [sys.executable, '-I', '-c', {waiting!r}, '{UID}', '{UID}', '{UID + 1000}']\n"
        "p = subprocess.Popen(sweep, stdout=-1)\n"
        "p.stdout.readline()\n"
        f"said = subprocess.run([sys.executable, '-I', '-c', {try_it!r}, str(p.pid)], user={UID}, group={UID}, "
        "extra_groups=[], capture_output=True, text=True)\n"
        "found.update(said=said.stdout.split(), log=said.stderr); p.kill()"
    )
    found = ptebot(code, cwd=folder)
    assert found["said"] == ["refused"] * 3, found


@needs_root
def test_what_a_killed_ptebot_left_is_ended_by_the_next(folder: Path) -> None:
    """SIGKILL leaves no time to end a process that has left the group; the next run has the lock and does it."""
    code = (
        "import subprocess, sys\n"
        f"p = subprocess.Popen(['sleep', '60'], user={UID}, group={UID}, extra_groups=[], start_new_session=True)\n"
        "from bot import child\nfrom bot.sandbox import privileges\n"
        f"with privileges.held(privileges.User(uid={UID}, gid={UID}), of_its_own=True): found['code'] = p.wait(5)"
    )
    assert ptebot(code, cwd=folder)["code"] == -9


@needs_root
def test_an_account_that_others_use_is_refused(folder: Path) -> None:
    code = (
        "import subprocess\nfrom bot import child\n"
        f"p = subprocess.Popen(['sleep', '60'], user={UID}, group={UID}, extra_groups=[])\n"
        "try:\n    child.run_module('bot.sandbox.probe', [], on_line=print)\n"
        "except Exception as error:\n    found['error'] = type(error).__name__\n"
        "found['alive'] = p.poll() is None; p.kill()"
    )
    assert ptebot(code, cwd=folder) == {"error": "SandboxUnavailable", "alive": True}


@needs_root
def test_two_at_once_are_two_users(folder: Path) -> None:
    code = (
        "from bot import child\nfrom bot.sandbox import privileges\n"
        "lines = []\nwith privileges.held(privileges.plan().user, of_its_own=False) as user:\n"
        "    child.run_module('bot.sandbox.probe', [], on_line=lambda line: lines.append(line.decode()))\n"
        "found.update(first=user.uid, second=lines)"
    )
    found = ptebot(code, cwd=folder)
    assert found["first"] == UID
    assert json.loads(found["second"][0])["user"] == FREE


@needs_root
def test_nothing_is_left_in_temporary_directories(folder: Path) -> None:
    (folder / "tmp").mkdir()
    (folder / "tmp").chmod(0o1777)
    found = child("os.makedirs(args[0]); os.chmod('.', 0)", cwd=folder, args=OUT, TMPDIR=str(folder / "tmp"))
    assert found["code"] == 0
    assert list((folder / "tmp").iterdir()) == []


@needs_root
def test_a_temporary_directory_that_only_root_may_enter_is_passed_over(folder: Path) -> None:
    (folder / "tmp").mkdir(mode=0o700)
    assert child("print(os.getcwd())", cwd=folder, TMPDIR=str(folder / "tmp"))["lines"][0].startswith("/var/tmp/")  # noqa: S108


def test_without_root_the_child_keeps_its_user(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    assert privileges.plan({"PTEBOT_EXPORT_USER": "anybody"}).why_not == "ptebot does not run as root"


@needs_root
@pytest.mark.parametrize("environ", [{}, {"PTEBOT_EXPORT_USER": ""}, {"PTEBOT_EXPORT_USER": " "}])
def test_without_an_account_the_reason_is_told(environ: dict[str, str]) -> None:
    assert privileges._find(privileges.DEFAULT) is None, "this machine has the account; the test does not fit it"
    planned = privileges.plan(environ)
    assert planned.user is None and planned.why_not


@needs_root
@pytest.mark.parametrize("name", ["no-such-account", "root", "0", "-1", "99999999999", "4294967295", "٣"])
def test_an_account_that_cannot_be_used_is_refused(name: str) -> None:
    """Asked for by name, and silently not had, would be the worst."""
    with pytest.raises(SandboxUnavailable):
        privileges.plan({"PTEBOT_EXPORT_USER": name})


@needs_root
def test_an_account_that_cannot_start_python_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "bin").mkdir(mode=0o700)
    (tmp_path / "bin/python").write_text("")
    monkeypatch.setattr(sys, "executable", str(tmp_path / "bin/python"))
    with pytest.raises(SandboxUnavailable, match="may not read"):
        privileges.plan({"PTEBOT_EXPORT_USER": str(UID)})
