"""Real children of a ptebot that root runs, doing what a hostile model could do once its code runs."""

from __future__ import annotations

import ast
import json
import os
import sys
import time
from pathlib import Path

import pytest

from bot.errors import SandboxUnavailable
from bot.sandbox import privileges
from tests.bot.sandbox.as_root import LOOK, OUT, SECRET, TRY, UID, child, needs_root, ptebot

FREE = UID + 1
"""The number that a second ptebot takes while the first has its own."""


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
