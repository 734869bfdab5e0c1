"""A limit on memory, with real children that take real memory."""

from __future__ import annotations

import re
import time
from pathlib import Path

import pytest

from bot import child, export_process, watch
from bot.errors import MemoryLimitReached
from bot.sandbox.call import Exit, within
from exporter import spec as specs
from exporter.errors import NotEnoughMemory
from tests.bot.sandbox.as_root import UID, needs_root, open_folder, ptebot
from tests.exporter.models import tiny_model

LIMIT = 200 << 20
TAKE = "x = bytearray({size} << 20); x[::4096] = bytes(len(x[::4096]))"


def run(code: str, limit: int | None = LIMIT) -> Exit:
    return child.run_module(
        "timeit",
        ["-n1", "-r1", code],
        on_line=lambda line: None,
        conditions=within(limit),
    )


def test_a_child_below_its_limit_ends_by_itself() -> None:
    # Long enough to be looked at on a busy machine too: once in 0.5 s it was not.
    ended = run(TAKE.format(size=64) + "; import time; time.sleep(3)")
    assert (ended.code, ended.too_much_memory) == (0, False)
    assert ended.peak_bytes is not None and 64 << 20 < ended.peak_bytes < LIMIT


def test_a_child_above_its_limit_is_ended_at_once() -> None:
    started = time.monotonic()
    ended = run(TAKE.format(size=400) + "; import time; time.sleep(15)")
    assert (ended.code, ended.too_much_memory) == (-9, True)
    assert ended.peak_bytes is not None and ended.peak_bytes > LIMIT
    assert time.monotonic() - started < 10


def test_what_a_child_starts_counts() -> None:
    inner = TAKE.format(size=150) + "; import time; time.sleep(15)"
    code = f"import subprocess, sys\nboth = [subprocess.Popen([sys.executable, '-c', {inner!r}]) for _ in range(2)]\n"
    code += "for one in both: one.wait()"
    assert run(code).too_much_memory


def test_shared_pages_count_once() -> None:
    """A fork shares its parent's pages; counted twice, an export would end for one that it never had."""
    code = TAKE.format(size=120) + "\nimport os, time\nif os.fork() == 0:\n time.sleep(2.5)\n os._exit(0)\nos.wait()"
    ended = run(code)
    assert (ended.code, ended.too_much_memory) == (0, False)


def test_without_a_limit_nothing_is_sampled() -> None:
    assert run("pass", None).peak_bytes is None


def test_the_failure_names_limit_peak_and_stage() -> None:
    line = '{"stage": "lower", "backend": "xnnpack", "precision": "fp32"}'
    code = f"print({line!r}, flush=True); {TAKE.format(size=400)}; import time; time.sleep(15)"
    with pytest.raises(MemoryLimitReached) as caught:
        export_process.run_stages("timeit", ["-n1", "-r1", code], conditions=within(LIMIT))
    assert re.search(r"held 0\.\d+ GB .* 'lower xnnpack fp32'; its limit is 0\.21 GB", caught.value.what)


def test_an_export_that_takes_too_much_leaves_nothing(tmp_path: Path) -> None:
    """Python with torch takes more than half of this before anything is sized, and an export takes all."""
    model = tiny_model("llama", tmp_path / "model")
    spec = specs.parse({"backends": ["portable"], "precisions": ["fp32"], "max_seq_len": 64})
    with pytest.raises(MemoryLimitReached, match="stage"):
        export_process.run_export(spec, model, tmp_path / "out", conditions=within(300 << 20))
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_a_model_that_cannot_do_with_the_limit_is_refused_before_it_starts(tmp_path: Path) -> None:
    model = tiny_model("llama", tmp_path / "model", max_position_embeddings=1 << 21)
    spec = specs.parse({"backends": ["portable"], "precisions": ["fp32"], "max_seq_len": 1 << 20})
    stages: list[str] = []

    def show(step: export_process.Progress) -> None:
        stages.append(step.stage)

    with pytest.raises(NotEnoughMemory, match=r"at least 1\.\d GB of memory; its limit is 0\.8 GB"):
        export_process.run_export(
            spec,
            model,
            tmp_path / "out",
            on_progress=lambda step: stages.append(step.stage),
            conditions=within(800 << 20),
        )
    assert stages == ["check"]


@needs_root
def test_what_has_left_the_family_of_another_user_counts_too() -> None:
    inner = TAKE.format(size=400) + "; import time; time.sleep(15)"
    code = f"import subprocess, sys, time; subprocess.Popen([sys.executable, '-c', {inner!r}], start_new_session=True)"
    outer = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {code!r}]); time.sleep(15)"
    script = (
        "from bot import child\nfrom bot.sandbox import call\n"
        f"limit = call.within({LIMIT})\n"
        f"ended = child.run_module('timeit', ['-n1', '-r1', {outer!r}], on_line=print, conditions=limit)\n"
        "found['ended'] = ended.too_much_memory"
    )
    with open_folder() as folder:
        assert ptebot(script, cwd=Path(folder), user=str(UID + 16)) == {"ended": True}


def test_files_without_bytes_are_counted_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MOST_ENTRIES", 50)
    for number in range(50):
        (tmp_path / f"{number}").touch()
    assert watch.size_of(tmp_path, 1 << 40) <= 1 << 40
    (tmp_path / "one more").touch()
    assert watch.size_of(tmp_path, 1 << 40) > 1 << 40


def test_nothing_runs_that_nobody_watches(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise OSError("no look is possible")

    monkeypatch.setattr(watch.Watch, "_passed", broken)
    ended = run("import time; time.sleep(600)")
    assert ended.code == -9
