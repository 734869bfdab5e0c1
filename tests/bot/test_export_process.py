"""What comes through the wall is data to judge: progress, failures and reports, honest and otherwise.

The children are real; ``timeit -n1 -r1 CODE`` runs any statements in one.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bot import export_process
from bot.errors import ExporterFailed, OutputNotTrusted, RemoteJobFailed, Stopped
from bot.export_process import Progress
from bot.sandbox.call import Call, Conditions, Exit
from exporter import report as reports
from exporter.errors import InvalidCalibration, NoGoodCell, NotACausalLM, NotEnoughMemory, QualityBudgetNotMet
from exporter.report import Status
from tests.bot.reports import cell, failed, report, write

ONE_FILE = report([cell()])


def stages(code: str, **options: Any) -> tuple[list[Progress], dict[str, Any] | None]:
    shown: list[Progress] = []
    last = export_process.run_stages("timeit", ["-n1", "-r1", code], on_progress=shown.append, **options)
    return shown, last


def says(*objects: object) -> str:
    lines = [json.dumps(item) if not isinstance(item, str) else item for item in objects]
    return f"import os, sys; [print(line, flush=True) for line in {lines!r}]"


def test_progress_comes_through_and_junk_does_not() -> None:
    line = {"stage": "lower", "backend": "xnnpack", "precision": "fp32", "fraction": 0.5, "message": "m"}
    shown, last = stages(says("[OpenvinoBackend.cpp:98] loaded", "{not json", "[1, 2]", "7", line, '{"a": ' * 5000))
    assert shown == [Progress(stage="lower", backend="xnnpack", precision="fp32", fraction=0.5, message="m")]
    assert last is None


@pytest.mark.parametrize("fraction", ["0.5", -1, 2, 1e400, float("nan"), [], {}, 10**300])
def test_a_fraction_that_is_none_is_left_out(fraction: object) -> None:
    shown, _ = stages(says({"stage": ["x"], "backend": 5, "fraction": fraction, "message": None}))
    assert shown == [Progress(stage="?")]


def test_a_typed_failure_comes_back_as_its_class() -> None:
    line = {"stage": "error", "error": "NotACausalLM", "exit_code": 10, "message": "It is BERT.", "remedy": "Do."}
    with pytest.raises(NotACausalLM) as caught:
        stages(says(line) + "; os._exit(10)")
    assert caught.value.what == "It is BERT."
    assert caught.value.advice == "Do."


@pytest.mark.parametrize("name", ["SystemExit", "PtebotErrorx", "__class__", None, 5])
def test_an_unknown_failure_is_no_class_of_the_childs_choice(name: object) -> None:
    with pytest.raises(ExporterFailed, match="because"):
        stages(says({"stage": "error", "error": name, "message": "because"}) + "; os._exit(10)")


def test_a_crash_is_told_with_the_end_of_the_log() -> None:
    with pytest.raises(ExporterFailed, match=r"exit code 9(.|\n)*it was the disk"):
        stages("import os, sys; print('it was the disk', file=sys.stderr, flush=True); os._exit(9)")


def test_a_segmentation_fault_is_named() -> None:
    with pytest.raises(ExporterFailed, match="SIGSEGV"):
        stages("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)")


def test_a_kill_from_outside_means_memory() -> None:
    with pytest.raises(NotEnoughMemory):
        stages("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")


def test_a_typed_failure_and_exit_code_0_is_no_failure() -> None:
    """A cell's failure is told as progress; only the exit code says that the whole job failed."""
    assert stages(says({"stage": "error", "error": "NotACausalLM", "message": "m"}))[1] is None


def test_an_output_that_agrees_with_its_report_is_taken(tmp_path: Path) -> None:
    made = report([cell(), failed()])
    write(made, tmp_path)
    assert export_process.load_output(tmp_path) == made


def test_other_bytes_are_refused(tmp_path: Path) -> None:
    write(ONE_FILE, tmp_path)
    path = tmp_path / "xnnpack/tiny_xnnpack_fp32.pte"
    path.write_bytes(path.read_bytes()[::-1])
    with pytest.raises(OutputNotTrusted, match="SHA-256"):
        export_process.load_output(tmp_path)


def test_another_size_is_refused(tmp_path: Path) -> None:
    write(ONE_FILE, tmp_path)
    (tmp_path / "xnnpack/tiny_xnnpack_fp32.pte").write_bytes(b"")
    with pytest.raises(OutputNotTrusted, match="0 bytes"):
        export_process.load_output(tmp_path)


@pytest.mark.parametrize("name", ["../secret", "/etc/hostname", "portable/../../secret", "", "xnnpack", "gone.pte"])
def test_a_file_elsewhere_is_refused(tmp_path: Path, name: str) -> None:
    out = tmp_path / "out"
    write(ONE_FILE, out)
    (tmp_path / "secret").write_text("secret")
    (out / "report.json").write_text(reports.dumps(report([cell(file=name)])))
    with pytest.raises(OutputNotTrusted):
        export_process.load_output(out)


@pytest.mark.parametrize("link", ["xnnpack/tiny_xnnpack_fp32.pte", "xnnpack", "report.json"])
def test_a_link_is_refused(tmp_path: Path, link: str) -> None:
    """A link could lead to any file of the person who publishes."""
    out = tmp_path / "out"
    write(ONE_FILE, out)
    (out / link).rename(tmp_path / "elsewhere")
    (out / link).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OutputNotTrusted):
        export_process.load_output(out)


@pytest.mark.parametrize("text", ["", "{}", "[]", '{"schema_version": 1}', "\x00"])
def test_what_is_no_report_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "report.json").write_text(text)
    with pytest.raises(OutputNotTrusted):
        export_process.load_output(tmp_path)


def test_no_report_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputNotTrusted):
        export_process.load_output(tmp_path / "nothing")


class EndedFromOutside:
    """An executor somewhere else, whose machine was taken away."""

    rung = "docker"

    def run(self, call: Call, *, on_line: Callable[[bytes], None], on_log: Callable[[str], None]) -> Exit:
        return Exit(code=-15, log_tail="", stopped=True)


def test_who_was_ended_from_outside_is_tried_again_and_who_was_stopped_is_not() -> None:
    stop = threading.Event()
    conditions = Conditions(executor=EndedFromOutside(), stop=stop)
    with pytest.raises(RemoteJobFailed, match="from outside"):
        export_process.run_stages("exporter", [], conditions=conditions)
    stop.set()
    with pytest.raises(Stopped):
        export_process.run_stages("exporter", [], conditions=conditions)


def test_halves_of_characters_do_not_come_through() -> None:
    line = json.dumps({"stage": "error", "error": "PickledWeightsOnly", "message": "\ud800 pickles"})
    error = export_process._typed_error(json.loads(line))
    assert error.what.encode() == b"? pickles"


def test_a_budget_that_nothing_meets_is_the_exports_end(tmp_path: Path) -> None:
    best = "No assignment is within max_kl 0.001: the best, int8 throughout, has 0.0021 at 61.2 MB"
    budget = {"failed_stage": "quantize", "exit_code": 43, "reason": best}
    skipped = failed("openvino", "auto", status=Status.SKIPPED, reason="not taken there")
    made = report([failed("xnnpack", "auto", **budget), failed("portable", "auto", **budget), skipped])
    assert made.exit_code == 43
    error = export_process.nothing_good(made, "none")
    assert isinstance(error, QualityBudgetNotMet) and error.what == f"{best}."
    for other in (failed("portable", "auto"), failed("portable", "auto", exit_code=42)):
        mixed = report([failed("xnnpack", "auto", **budget), other])
        assert mixed.exit_code == 3
        assert isinstance(export_process.nothing_good(mixed, "none"), NoGoodCell)
    assert report([cell(), failed("xnnpack", "auto", **budget)]).exit_code == 0
    assert report([skipped]).exit_code == 3


def test_a_report_may_come_with_what_all_its_cells_have_in_common(tmp_path: Path) -> None:
    stages("import os; os._exit(43)", good_exits=(43,))
    line = {"stage": "error", "error": "InvalidCalibration", "message": "use.txt is not there.", "remedy": ""}
    with pytest.raises(InvalidCalibration, match=r"use\.txt"):
        stages(says(line) + "; os._exit(42)", good_exits=(3, 42, 43))
    assert stages(says(line) + "; os._exit(3)", good_exits=(3, 42, 43))[1] is None  # it was a cell's
    with pytest.raises(ExporterFailed):
        stages("import os; os._exit(62)", good_exits=(3, 42, 43))
