"""The process wall, with real children: secrets stay out, lines are bounded, nothing outlives its parent.

``timeit -n1 -r1 CODE`` stands for "a module that does this": it runs any statements in the child.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from bot import child
from bot.sandbox.call import Exit


def run(code: str) -> tuple[list[bytes], Exit]:
    lines: list[bytes] = []
    ended = child.run_module("timeit", ["-n1", "-r1", code], on_line=lines.append)
    return lines[:-1], ended  # timeit's own line comes last


def wait_until_gone(pid: int, seconds: float = 10) -> bool:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
            return True
        time.sleep(0.05)
    return False


def test_lines_and_exit_code_come_back() -> None:
    lines, ended = run("print('one'); print('two')")
    assert lines == [b"one", b"two"]
    assert ended.code == 0


def test_the_log_is_kept_and_bounded() -> None:
    logged: list[str] = []
    code = "import os, sys; [print('line', n, 'x' * 9000, file=sys.stderr) for n in range(500)]; os._exit(7)"
    ended = child.run_module("timeit", ["-n1", "-r1", code], on_line=lambda line: None, on_log=logged.append)
    assert ended.code == 7
    kept = ended.log_tail.splitlines()
    assert len(kept) == child.LOG_LINES
    assert kept[-1].startswith("line 499")
    assert max(map(len, kept)) == child.LOG_LINE_CHARACTERS
    assert len(logged) == 500


def test_no_secret_reaches_the_child(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "GITHUB_TOKEN", "AWS_SECRET_ACCESS_KEY", "HTTPS_PROXY", "PYTHONPATH", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "hf_secret")
    lines, _ = run("import os; [print(f'{k}={v}') for k, v in os.environ.items()]")
    found = dict(line.decode().split("=", 1) for line in lines)
    assert "hf_secret" not in found.values()
    assert set(found) <= {*child.PASSED_ON, *child.FIXED, "HOME", "LC_CTYPE"}
    assert found["HOME"] != os.environ["HOME"]
    assert not Path(found["HOME"]).exists(), "the scratch home is removed"


def test_the_current_directory_gives_no_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "colorsys.py").write_text("print('hijacked')")
    monkeypatch.chdir(tmp_path)
    lines, ended = run("import colorsys")
    assert ended.code == 0
    assert lines == []


def test_a_line_without_end_is_dropped_and_the_rest_is_read() -> None:
    size = 5 * child.MAX_LINE_BYTES
    lines, _ = run(f"print('before'); print('x' * {size}); print('after')")
    assert lines == [b"before", b"after"]


def test_a_line_of_exactly_the_limit_is_dropped_and_one_below_is_kept() -> None:
    lines, _ = run(f"print('x' * {child.MAX_LINE_BYTES}); print('y' * {child.MAX_LINE_BYTES - 1})")
    assert [line[:1] for line in lines] == [b"y"]


def test_a_failing_reader_stops_the_child() -> None:
    pids: list[int] = []

    def fail(line: bytes) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.run_module("timeit", ["-n1", "-r1", "import os, time; print(os.getpid()); time.sleep(600)"], on_line=fail)
    assert wait_until_gone(pids[0])


def test_an_interrupted_child_may_clean_up(tmp_path: Path) -> None:
    left = tmp_path / "staging"
    code = (
        f"import pathlib, time\np = pathlib.Path({str(left)!r})\np.mkdir()\n"
        "try:\n print('ready')\n time.sleep(600)\nfinally:\n p.rmdir()"
    )

    def interrupt(line: bytes) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        child.run_module("timeit", ["-n1", "-r1", code], on_line=interrupt)
    assert not left.exists()


def test_a_child_that_ignores_the_interrupt_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(child, "GRACE_SECONDS", 0.5)
    pids: list[int] = []

    def interrupt(line: bytes) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    code = "import os, signal, time; signal.signal(signal.SIGINT, signal.SIG_IGN); print(os.getpid()); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        child.run_module("timeit", ["-n1", "-r1", code], on_line=interrupt)
    assert wait_until_gone(pids[0])


def test_a_child_does_not_outlive_a_killed_parent(tmp_path: Path) -> None:
    """SIGKILL leaves the parent no chance to stop anything: the leash has to."""
    note = tmp_path / "pid"
    inner = f"import os, pathlib, time; pathlib.Path({str(note)!r}).write_text(str(os.getpid())); time.sleep(600)"
    script = f"from bot import child; child.run_module('timeit', ['-n1', '-r1', {inner!r}], on_line=print)"
    parent = subprocess.Popen([sys.executable, "-c", script])
    try:
        deadline = time.monotonic() + 30
        while not (note.exists() and note.read_text()) and time.monotonic() < deadline:
            time.sleep(0.05)
        pid = int(note.read_text())
        assert psutil.pid_exists(pid)
        parent.send_signal(signal.SIGKILL)
        assert wait_until_gone(pid)
    finally:
        parent.kill()
        parent.wait()


def test_grandchildren_go_too() -> None:
    pids: list[int] = []

    def interrupt(line: bytes) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    code = "import subprocess, time; p = subprocess.Popen(['sleep', '600']); print(p.pid); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        child.run_module("timeit", ["-n1", "-r1", code], on_line=interrupt)
    assert wait_until_gone(pids[0])
