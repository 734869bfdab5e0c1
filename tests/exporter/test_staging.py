"""A directory appears as a whole or not at all; a full disk is told as that."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from exporter import pte, staging
from exporter.errors import DiskFull, OutputNotEmpty, OutputNotWritable
from exporter.run import Progress, export
from exporter.spec import ExportSpec
from tests.exporter.conftest import ROOT, ModelCopy, environment

SPEC = ExportSpec(backends=("portable",), precisions=("fp32",), max_seq_len=16)


def test_what_is_written_appears_at_once(tmp_path: Path) -> None:
    out = tmp_path / "a" / "b" / "out"
    with staging.staged(out) as work:
        (work / "file").write_text("x")
        assert not out.exists()
        assert work.parent == out.parent, "on the same disk, or the move would copy"
    assert [path.name for path in out.parent.iterdir()] == ["out"]
    assert (out / "file").read_text() == "x"


def test_an_empty_directory_is_taken_and_kept_with_its_place(tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    with staging.staged(out) as work:
        (work / "file").write_text("x")
        assert list(out.iterdir()) == []
    assert (out / "file").read_text() == "x"


@pytest.mark.parametrize("name", [".", "inner/..", "./"])
def test_the_current_directory_can_be_named_by_dots(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here = tmp_path / "here"
    (here / "inner").mkdir(parents=True) if name == "inner/.." else here.mkdir()
    monkeypatch.chdir(here)
    if name == "inner/..":
        with pytest.raises(OutputNotEmpty, match="inner"), staging.staged(Path(name)):
            pass
        return
    with staging.staged(Path(name)) as work:
        (work / "file").write_text("x")
    assert [path.name for path in here.iterdir()] == ["file"]
    assert [path.name for path in tmp_path.iterdir()] == ["here"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit])
def test_whatever_ends_the_block_leaves_nothing(error: type[BaseException], tmp_path: Path) -> None:
    with pytest.raises(error), staging.staged(tmp_path / "out") as work:
        (work / "deep").mkdir()
        (work / "deep" / "file").write_text("x")
        raise error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("kind", ["file", "full directory", "link to a directory", "link to nothing"])
def test_what_is_in_the_way_is_refused_and_left_alone(kind: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    elif kind == "full directory":
        out.mkdir()
        (out / ".hidden").write_text("mine")
    else:
        out.symlink_to(tmp_path / "elsewhere")
        if kind == "link to a directory":
            (tmp_path / "elsewhere").mkdir()
    before = sorted(path.name for path in tmp_path.rglob("*"))
    with pytest.raises(OutputNotEmpty), staging.staged(out):
        pytest.fail("the block must not run")
    assert sorted(path.name for path in tmp_path.rglob("*")) == before


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for out in (tmp_path / "file" / "out", tmp_path / ("n" * 300) / "out", Path("/proc/none/out")):
        with pytest.raises(OutputNotWritable, match="cannot be written"), staging.staged(out):
            pytest.fail("the block must not run")


def test_a_mount_point_is_refused_before_work(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A directory can be moved over an empty one, not over a mounted disk: better said now than after an hour."""
    monkeypatch.setattr(Path, "is_mount", lambda path: path == tmp_path)
    with pytest.raises(OutputNotWritable, match="where a disk is mounted") as caught:
        staging.check_empty(tmp_path)
    assert caught.value.advice == "Name a directory below it."
    staging.check_empty(tmp_path / "out")


def test_what_appears_meanwhile_is_not_overwritten(tmp_path: Path) -> None:
    out = tmp_path / "out"
    with pytest.raises(OutputNotEmpty, match=r"theirs\.txt"), staging.staged(out) as work:
        (work / "ours.txt").write_text("x")
        out.mkdir()
        (out / "theirs.txt").write_text("theirs")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "theirs.txt"]


def test_space_is_asked_for_before_work(tmp_path: Path) -> None:
    staging.check_space(tmp_path / "not" / "there" / "yet", 1)
    with pytest.raises(DiskFull, match=r"may need 1,000,000,000,000 MB below .* MB are free"):
        staging.check_space(tmp_path / "not" / "there" / "yet", 10**18)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO])
def test_what_says_that_a_disk_is_full(number: int, tmp_path: Path) -> None:
    wanted = OSError if number == errno.EIO else DiskFull
    with pytest.raises(wanted, match=os.strerror(number)), staging.disk_full_is_typed(tmp_path):
        raise OSError(number, os.strerror(number))


def test_a_quota_that_runs_full_ends_the_export_and_leaves_nothing(
    model_copy: ModelCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one more failed cell: the other cells would meet the same disk."""

    def full(program: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.EDQUOT, os.strerror(errno.EDQUOT))

    monkeypatch.setattr(pte, "write", full)
    model = model_copy(num_hidden_layers=1)
    with pytest.raises(DiskFull, match="ran full"):
        export(SPEC, model, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_other_errors_of_a_disk_are_a_cells_own(
    model_copy: ModelCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(program: object, path: Path) -> None:
        path.write_bytes(b"half")
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(pte, "write", broken)
    steps: list[Progress] = []
    report = export(SPEC, model_copy(num_hidden_layers=1), tmp_path / "out", steps.append)
    assert report.cells[0].failed_stage == "write"
    assert "Input/output error" in (report.cells[0].reason or "")
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.json"]
    assert steps[-1].message == "0 of 1 files are good"


# In a mount namespace of its own: a small disk that fills up when the first file is about to be written.
ON_A_FULL_DISK = """
import os, sys
from pathlib import Path
from exporter.errors import DiskFull
from exporter.run import export
from exporter.spec import ExportSpec
model, disk = Path(sys.argv[1]), Path(sys.argv[2])
def fill(step):
    if step.stage == "write":
        with open(disk / "filler", "wb", buffering=0) as file:
            try:
                while file.write(bytes(4096)):
                    pass
            except OSError:
                pass
try:
    export(ExportSpec(backends=("portable",), precisions=("fp32",), max_seq_len=16), model, disk / "out", fill)
except DiskFull as error:
    print(error.what)
print(sorted(os.listdir(disk)))
"""


@pytest.mark.platform
def test_a_real_disk_that_runs_full(model_copy: ModelCopy, tmp_path: Path) -> None:
    disk, script = tmp_path / "disk", 'mount -t tmpfs -o size=4m tmpfs "$0" && exec "$@"'
    disk.mkdir()
    own = ["unshare", "--mount", "--map-root-user"]
    tried = shutil.which("unshare") and subprocess.run(
        [*own, "sh", "-c", script, str(disk), "true"], capture_output=True, check=False
    )
    if not tried or tried.returncode:
        pytest.skip("no mount namespaces for this user here: a small disk cannot be made")
    python = [sys.executable, "-c", ON_A_FULL_DISK, str(model_copy(num_hidden_layers=1)), str(disk)]
    done = subprocess.run(
        [*own, "sh", "-c", script, str(disk), *python],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    said, left = done.stdout.splitlines()[-2:]
    assert "ran full (No space left on device); nothing was left behind" in said
    assert left == "['filler']"
