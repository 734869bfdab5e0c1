"""bubblewrap: what is there inside, what its own process shows, a real export (the hostile one is in test_hostile)."""

from __future__ import annotations

import os
import subprocess
import tempfile
from pathlib import Path

import pytest

from bot import child, export_process
from bot.errors import SandboxUnavailable
from bot.sandbox import bubblewrap, landlock
from bot.sandbox.bubblewrap import BubblewrapExecutor
from bot.sandbox.call import Call, Conditions, Exit, Limits, Reads
from exporter import spec as specs
from tests.bot.sandbox import executors
from tests.exporter.models import tiny_model

SECRET = "hf_parentsOwnSecret"


@pytest.fixture(autouse=True)
def bwrap(monkeypatch: pytest.MonkeyPatch) -> None:
    executors.bubblewrap()
    monkeypatch.setenv("HF_TOKEN", SECRET)


def inside(*command: str, reads: tuple[Path, ...] = ()) -> str:
    """What a plain program says there, where nothing but bubblewrap holds it."""
    with child.prepared([Reads(path) for path in reads]) as start:
        whole = ["bwrap", *bubblewrap._options(start), "--", *command]
        env: dict[str, str] = {}
        done = subprocess.run(whole, env=env, capture_output=True, text=True, check=False, executable="/usr/bin/bwrap")
    return done.stdout + done.stderr


def test_no_process_there_has_a_secret_in_its_environment() -> None:
    """bwrap's own is process 1 there, and its environment is what it was started with."""
    said = inside("/bin/sh", "-c", "cat /proc/[0-9]*/environ | tr '\\0' '\\n'; ls -d /proc/[0-9]*")
    assert "PTEBOT" not in said and SECRET not in said
    assert "HF_HUB_OFFLINE=1" in said
    processes = [line for line in said.splitlines() if line.startswith("/proc/")]
    assert "/proc/1" in processes and len(processes) <= 5


def test_nothing_is_there_but_what_is_needed(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model/config.json").write_text("{}")
    (tmp_path / "beside").write_text(SECRET)
    said = inside(
        "/bin/sh", "-c", f"ls / /etc {tmp_path} {tmp_path}/model; cat {tmp_path}/beside", reads=(tmp_path / "model",)
    )
    assert "config.json" in said and "No such file" in said
    words = set(said.split())
    assert not words & {"passwd", "shadow", "hostname", "boot", "mnt", "srv", "run", SECRET}


def test_python_may_lie_below_what_is_empty_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        Path(folder, "module.py").write_text("here")
        monkeypatch.setattr(landlock, "interpreter", lambda: [folder])
        assert inside("/bin/cat", f"{folder}/module.py") == "here"
        assert "Read-only" in inside("/bin/touch", f"{folder}/new")


@pytest.mark.parametrize("place", ["/", "/usr", "/etc", "/dev", "/proc/sys/kernel", "/sys/devices/system"])
def test_nothing_there_can_be_written(place: str) -> None:
    assert "cannot touch" in inside("/bin/touch", f"{place}/new") or "No such" in inside("/bin/touch", f"{place}/new")


def test_its_memory_disks_are_small() -> None:
    said = inside("/bin/df", "--output=size", "-k", "/tmp", "/dev/shm")  # noqa: S108 - those in there
    assert said.split()[1:] == ["65536", "65536"]


def run(code: str) -> tuple[Exit, list[bytes]]:
    lines: list[bytes] = []
    call = Call(module="timeit", args=["-n1", "-r1", code], limits=Limits(seconds=60))
    ended = BubblewrapExecutor().run(call, on_line=lines.append, on_log=lambda line: None)
    return ended, lines


@pytest.mark.parametrize(
    ("code", "expected"), [("import os; os._exit(7)", 7), ("import os; os.kill(os.getpid(), 11)", -11)]
)
def test_how_it_ended_comes_back(code: str, expected: int) -> None:
    assert run(code)[0].code == expected


def test_there_is_no_network_even_for_what_passes_the_filter() -> None:
    assert inside("/bin/cat", "/proc/net/dev").count(":") == 1, "the loopback device alone"


def test_without_bwrap_it_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert BubblewrapExecutor.available("") == "bwrap is not installed"
    with pytest.raises(SandboxUnavailable, match="bwrap is not installed"):
        run("pass")


def test_a_real_export(tmp_path: Path) -> None:
    model = tiny_model("llama", tmp_path / "model", num_hidden_layers=1)
    asked = {"backends": ["xnnpack"], "precisions": ["fp32"], "max_seq_len": 64, "rehearse": False}
    limits = Limits(memory_bytes=8 << 30, output_bytes=1 << 30, seconds=500, cpus=1)
    conditions = Conditions(executor=BubblewrapExecutor(), limits=limits)
    report = export_process.run_export(specs.parse(asked), model, tmp_path / "out", conditions=conditions)
    assert [(cell.backend, cell.status.value) for cell in report.cells] == [("xnnpack", "ran")]
    assert {path.stat().st_uid for path in (tmp_path / "out").iterdir()} == {os.geteuid()}
    file = tmp_path / "out" / str(report.cells[0].file)
    found = export_process.run_stages("exporter.validate", [Reads(file), Reads(model)], conditions=conditions)
    assert found is not None and found["validation"]["passed"]
