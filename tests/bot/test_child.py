"""The process wall, with real children: secrets stay out, lines are bounded, nothing outlives its parent.

``timeit -n1 -r1 CODE`` stands for "a module that does this": it runs any statements in the child.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

from bot import child
from bot.sandbox.call import Conditions, Exit, Limits, Reads, Writes


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
    assert set(found) <= {*child.PASSED_ON, *child.FIXED, "HOME", "TMPDIR", "USER", "LOGNAME", "LC_CTYPE"}
    assert found["HOME"] != os.environ["HOME"] and found["TMPDIR"] == found["HOME"]
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


def test_an_interrupted_child_may_clean_up() -> None:
    cleaned = threading.Event()
    code = (
        "import pathlib, sys, time\np = pathlib.Path('staging')\np.mkdir()\n"
        "try:\n print('ready')\n time.sleep(600)\nfinally:\n p.rmdir(); print('cleaned', file=sys.stderr)"
    )

    def interrupt(line: bytes) -> None:
        raise KeyboardInterrupt

    def listen(line: str) -> None:
        if line == "cleaned":
            cleaned.set()

    with pytest.raises(KeyboardInterrupt):
        child.run_module("timeit", ["-n1", "-r1", code], on_line=interrupt, on_log=listen)
    assert cleaned.wait(10)


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


FAMILY = """
import os, time
ready, say = os.pipe()
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        os.write(1, b"%d\\n" % os.getpid())
        os.write(say, b"x")
        time.sleep(600)
    os._exit(0)
os.wait()
os.read(ready, 1)
os.write(1, b"%d\\n" % os.getpid())
time.sleep(600)
"""
"""A child, and one that has left its group and has no parent any more."""


def test_nothing_outlives_a_killed_parent() -> None:
    """SIGKILL leaves the parent no chance to stop anything: the leash has to."""
    script = (
        "from bot import child; import sys\n"
        f"child.run_module('timeit', ['-n1', '-r1', {FAMILY!r}], on_line=lambda line: print(int(line), flush=True))"
    )
    parent = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert parent.stdout
    try:
        pids = [int(parent.stdout.readline()) for _ in range(2)]
        assert all(psutil.pid_exists(pid) for pid in pids)
        parent.send_signal(signal.SIGKILL)
        assert all(map(wait_until_gone, pids))
    finally:
        parent.kill()
        parent.wait()
        parent.stdout.close()


def test_what_has_left_the_group_ends_with_the_child() -> None:
    lines, ended = run(FAMILY.removesuffix("time.sleep(600)\n"))
    assert ended.code == 0 and len(lines) == 2
    assert all(wait_until_gone(int(line)) for line in lines)


def test_who_was_ended_never_looks_well() -> None:
    """The guard's own thread may reap the module before the guard does: then nobody knows its status."""
    code = "import os; from bot import leash; leash._guard(os.getpid(), False)  # nobody is there to wait for"
    guard = subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, start_new_session=True)
    assert guard.stdin
    with guard.stdin:
        assert guard.wait(60) == -signal.SIGKILL


LIMITS = {
    "too_long": (Limits(seconds=1), "import time; time.sleep(600)"),
    "too_much_output": (Limits(output_bytes=1 << 20), "open('file', 'wb').write(bytes(2 << 20))"),
    "holes": (Limits(output_bytes=1 << 20), "open('file', 'wb').truncate((1 << 20) + 1)"),
    "many": (Limits(output_bytes=1 << 20), "import time; [open(str(n), 'w').close() for n in range(300)]"),
    "slowly": (
        Limits(output_bytes=1 << 20),
        "import time\nfor n in range(600): open(str(n), 'wb').write(bytes(100 << 10)); time.sleep(0.05)",
    ),
    "closed": (
        Limits(output_bytes=1 << 20),
        "import os\nos.mkdir('d'); os.chdir('d'); fd = os.open('.', os.O_RDONLY)\n"
        "open('file', 'wb').write(bytes(900 << 10)); open('more', 'wb').write(bytes(900 << 10)); os.fchmod(fd, 0)",
    ),
    "deep": (Limits(output_bytes=1 << 30), "import os\nfor n in range(70): os.mkdir('d'); os.chdir('d')"),
}


@pytest.mark.parametrize("which", LIMITS)
def test_a_limit_ends_the_child_and_says_so(which: str) -> None:
    limits, code = LIMITS[which]
    started = time.monotonic()
    ended = child.run_module(
        "timeit", ["-n1", "-r1", code], on_line=lambda line: None, conditions=Conditions(limits=limits)
    )
    assert (ended.too_long, ended.too_much_output) == (which == "too_long", which != "too_long"), ended
    assert not ended.stopped and not ended.too_much_memory
    assert time.monotonic() - started < 15


def test_below_its_limits_a_child_is_left_alone() -> None:
    limits = Limits(output_bytes=1 << 20, seconds=60, processes=64, cpus=0.5, memory_bytes=1 << 30)
    lines: list[bytes] = []
    ended = child.run_module(
        "timeit",
        ["-n1", "-r1", "import os; open('f', 'wb').write(bytes(900 << 10)); print(len(os.sched_getaffinity(0)))"],
        on_line=lines.append,
        conditions=Conditions(limits=limits),
    )
    assert lines[0] == b"1"
    assert ended.code == 0
    assert not (ended.too_long or ended.too_much_output or ended.stopped or ended.too_much_memory)


def test_who_asked_for_it_can_stop_it() -> None:
    stop = threading.Event()
    pids: list[int] = []

    def note(line: bytes) -> None:
        pids.append(int(line))
        if len(pids) == 2:
            stop.set()

    ended = child.run_module("timeit", ["-n1", "-r1", FAMILY], on_line=note, conditions=Conditions(stop=stop))
    assert ended.stopped and ended.code == -signal.SIGKILL
    assert all(map(wait_until_gone, pids))


def test_what_a_stopped_child_wrote_is_not_taken(tmp_path: Path) -> None:
    stop = threading.Event()
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys, time; os.mkdir(sys.argv[1]); open(sys.argv[1] + '/f', 'w').close(); print('made', flush=True);"
        "time.sleep(600)"
    )
    (tmp_path / "there").mkdir()
    ended = child.run_module(
        "cProfile",
        ["-o", "/dev/null", Reads(script), Writes(tmp_path / "there/out")],
        on_line=lambda line: stop.set(),
        conditions=Conditions(stop=stop),
    )
    assert ended.stopped
    assert list((tmp_path / "there").iterdir()) == []


def test_what_a_child_wrote_is_put_in_its_place(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("import os, sys; os.mkdir(sys.argv[1]); open(sys.argv[1] + '/f', 'w').write('x')")
    (tmp_path / "there").mkdir()
    args = ["-o", "/dev/null", Reads(script), Writes(tmp_path / "there/out")]
    ended = child.run_module("cProfile", args, on_line=lambda line: None)
    assert ended.code == 0, ended.log_tail
    assert (tmp_path / "there/out/f").read_text() == "x"
    assert [path.name for path in (tmp_path / "there").iterdir()] == ["out"]


def test_grandchildren_go_too() -> None:
    pids: list[int] = []

    def interrupt(line: bytes) -> None:
        pids.append(int(line))
        raise KeyboardInterrupt

    code = "import subprocess, time; p = subprocess.Popen(['sleep', '600']); print(p.pid); time.sleep(600)"
    with pytest.raises(KeyboardInterrupt):
        child.run_module("timeit", ["-n1", "-r1", code], on_line=interrupt)
    assert wait_until_gone(pids[0])
