"""What a kill must not cost: finished exports are found again whole, half-written ones never."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from bot.workspace import KEPT_SECONDS, Workspace, open_workspace
from exporter.report import Report
from tests.bot import reports

KEY = "0123456789abcdef"


def folder(root: Path) -> Path:
    (found,) = (root / "work").iterdir()
    return found


def export(out: Path) -> Report:
    made = reports.report()
    reports.write(made, out)
    return made


def make(space: Workspace) -> Path:
    return space.make(KEY, export)[0]


def test_a_finished_export_is_found_again(tmp_path: Path) -> None:
    with open_workspace(tmp_path, "owner/name") as space:
        assert space.finished(KEY) is None
        path = make(space)
    with open_workspace(tmp_path, "owner/name") as space:
        found = space.finished(KEY)
        assert found == (path, reports.report())
        assert space.finished("another") is None
        space.discard(KEY)
        assert space.finished(KEY) is None


def test_a_damaged_one_is_not_found_and_goes(tmp_path: Path) -> None:
    with open_workspace(tmp_path, "owner/name") as space:
        path = make(space)
        (path / "xnnpack/tiny_xnnpack_fp32.pte").write_bytes(b"cut")
        assert space.finished(KEY) is None
        assert not path.exists()


def test_a_failed_export_leaves_nothing(tmp_path: Path) -> None:
    def fail(out: Path) -> Report:
        export(out)
        raise KeyboardInterrupt

    with open_workspace(tmp_path, "owner/name") as space:
        with pytest.raises(KeyboardInterrupt):
            space.make(KEY, fail)
        assert space.finished(KEY) is None
    assert [path.name for path in folder(tmp_path).iterdir()] == ["lock"]


def test_what_a_killed_one_left_goes_and_the_finished_stays(tmp_path: Path) -> None:
    script = f"""
import sys
from pathlib import Path
from bot.workspace import open_workspace
from tests.bot.test_workspace import make
with open_workspace(Path({str(tmp_path)!r}), "owner/name") as space:
    make(space)
    def hang(out):
        out.mkdir()
        (out / "big.pte").write_bytes(b"half")
        print("now", flush=True)
        sys.stdin.read()
    space.make("other", hang)
"""
    root = Path(__file__).parent.parent.parent
    process = subprocess.Popen([sys.executable, "-c", script], stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=root)
    assert process.stdout
    assert process.stdout.readline() == b"now\n"
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(list(folder(tmp_path).glob(".attempt-*"))) == 1
    with open_workspace(tmp_path, "owner/name") as space:
        assert not list(folder(tmp_path).glob(".attempt-*"))
        assert space.finished("other") is None
        assert space.finished(KEY) is not None


def test_one_at_a_time_for_each_repository(tmp_path: Path) -> None:
    waited, entered = threading.Event(), threading.Event()

    def second() -> None:
        with open_workspace(tmp_path, "owner/name", waiting=waited.set):
            entered.set()

    with open_workspace(tmp_path, "owner/name"):
        thread = threading.Thread(target=second)
        thread.start()
        assert waited.wait(10)
        assert not entered.is_set()
        with open_workspace(tmp_path, "owner/other", waiting=lambda: pytest.fail("another repository is free")):
            pass
    thread.join(10)
    assert entered.is_set()


@pytest.mark.parametrize("name", ["../../etc", "a/../b", "x" * 500, "http://host:1 o/n", "\u202e", "."])
def test_any_name_stays_below_the_root(tmp_path: Path, name: str) -> None:
    with open_workspace(tmp_path / "root", name):
        assert folder(tmp_path / "root").resolve().parent == (tmp_path / "root/work").resolve()
    assert [path.name for path in tmp_path.iterdir()] == ["root"]


def test_an_export_that_nobody_published_goes_after_a_while(tmp_path: Path) -> None:
    with open_workspace(tmp_path, "owner/name") as space:
        path = make(space)
    old = time.time() - KEPT_SECONDS - 60
    os.utime(path, (old, old))
    with open_workspace(tmp_path, "owner/name") as space:
        assert space.finished(KEY) is None
    assert not path.exists()
