"""One run of a name at a time: a second one waits for what a killed ptebot left, and for nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import psutil
import pytest

from bot import child
from bot.errors import SandboxUnavailable
from bot.sandbox import turns
from bot.sandbox.call import Conditions

KILLED = """
import os, signal, sys
from bot import child
from bot.sandbox.call import Conditions
def use(line):
    print(line.decode(), flush=True)
    os.kill(os.getpid(), signal.SIGKILL)
child.run_module("timeit", ["-n1", "-r1", "import os, time; print(os.getpid()); time.sleep(600)"], on_line=use,
                 conditions=Conditions(name=sys.argv[1]))
"""


def locks() -> list[Path]:
    return list(Path(tempfile.gettempdir()).glob("ptebot-run-*-test-*.lock"))


def test_what_a_killed_ptebot_left_is_gone_before_it_runs_anew() -> None:
    killed = subprocess.run([sys.executable, "-c", KILLED, "test-killed"], capture_output=True, text=True, check=False)
    assert killed.returncode == -9, killed.stderr
    code = "print('begun')"
    lines: list[bool] = []
    child.run_module(
        "timeit",
        ["-n1", "-r1", code],
        on_line=lambda line: lines.append(psutil.pid_exists(int(killed.stdout))),
        conditions=Conditions(name="test-killed"),
    )
    assert lines and not lines[0]
    assert locks() == []


def test_a_name_that_is_in_use_is_waited_for_and_then_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "WAIT_SECONDS", 0.2)
    with turns.turn("test-one"):
        with pytest.raises(SandboxUnavailable, match="has not ended"), turns.turn("test-one"):
            pass
        with turns.turn("test-other"):
            pass
    with turns.turn("test-one"):
        pass
    assert locks() == []


def test_the_exporter_does_not_hold_the_lock() -> None:
    """It could give it away."""
    lines: list[bytes] = []
    code = "import os; print([os.readlink('/proc/self/fd/' + n) for n in os.listdir('/proc/self/fd') if n not in '3'])"
    child.run_module("timeit", ["-n1", "-r1", code], on_line=lines.append, conditions=Conditions(name="test-held"))
    assert lines and b".lock" not in b"".join(lines)


def test_a_link_in_the_locks_place_is_not_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "gettempdir", lambda: str(tmp_path))
    (tmp_path / "elsewhere").write_text("x")
    (tmp_path / f"ptebot-run-{os.geteuid()}-test-link.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(SandboxUnavailable, match="cannot be made"), turns.turn("test-link"):
        pass
