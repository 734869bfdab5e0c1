"""The wall: what a process ``python -m exporter`` says on stdout, how it ends, and what it leaves behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from exporter import report
from exporter import spec as specs
from exporter.report import Status
from tests.exporter.conftest import ROOT, Exported, ModelCopy, environment, run_exporter

KEYS = {"stage", "backend", "precision", "fraction", "message"}


def _lines(exported: Exported) -> list[dict[str, Any]]:
    return [json.loads(line) for line in exported.lines]


def _run(command: list[str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600, check=False
    )


def test_every_line_of_stdout_is_progress(exported: Exported) -> None:
    """OpenVINO and others print to stdout by themselves; nothing of it may come through."""
    lines = _lines(exported)
    assert all(set(line) == KEYS for line in lines)
    fractions = [line["fraction"] for line in lines]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert all(line["message"] for line in lines)
    assert lines[0]["stage"] == "check"
    assert lines[-1] == {**dict.fromkeys(KEYS), "stage": "done", "fraction": 1.0, "message": "5 of 6 files are good"}


def test_progress_goes_through_every_stage_of_every_cell(exported: Exported) -> None:
    lines = _lines(exported)
    shared = [line["stage"] for line in lines if line["backend"] is None]
    once = list(dict.fromkeys(shared))
    assert once == ["check", "rehearse", "load", "reference", "quantize", "trace", "calibrate", "done"]
    for backend, precision in (("portable", "fp32"), ("xnnpack", "8da4w"), ("openvino", "fp32")):
        mine = [line["stage"] for line in lines if (line["backend"], line["precision"]) == (backend, precision)]
        judged = ["quality"] if precision != "fp32" else []
        assert list(dict.fromkeys(mine)) == ["lower", "write", "parity", *judged, "cell"]
    assert not [line for line in lines if (line["backend"], line["precision"]) == ("openvino", "8da4w")], "skipped"


def _refusal(done: Exported, error: str, code: int) -> dict[str, Any]:
    assert done.exit_code == code, done.log[-2000:]
    last: dict[str, Any] = json.loads(done.lines[-1])
    assert set(last) == {"stage", "error", "exit_code", "message", "remedy"}
    assert (last["stage"], last["error"], last["exit_code"]) == ("error", error, code)
    assert last["message"] and last["remedy"]
    assert all(set(json.loads(line)) == KEYS for line in done.lines[:-1])
    assert "Traceback" not in done.log
    return last


REFUSED: list[tuple[dict[str, Any], str, int, str]] = [
    ({"backends": ["portable", "tpu"]}, "UnknownBackend", 20, "portable, xnnpack, openvino"),
    ({"backends": ["openvino"], "precisions": ["8da4w"]}, "UnsupportedCombination", 22, "openvino takes: fp32"),
    ({"backend": ["xnnpack"]}, "InvalidSpec", 25, "backend"),
    ({"bounds": {"kl_mean": 0.1}}, "InvalidSpec", 25, "tightened only"),
    ({"bounds": {"kl_mean": "NaN"}}, "InvalidSpec", 25, "no bound"),
]


@pytest.mark.parametrize(
    ("spec", "error", "code", "said"), REFUSED, ids=[row[1] + str(i) for i, row in enumerate(REFUSED)]
)
def test_a_refusal_is_the_last_line_and_the_exit_status(
    spec: dict[str, Any], error: str, code: int, said: str, model_copy: ModelCopy, tmp_path: Path
) -> None:
    done = run_exporter(spec, model_copy(), tmp_path / "out")
    assert said in _refusal(done, error, code)["message"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "out.spec.json"], "nothing was written"


def test_a_budget_that_nothing_meets_is_the_exit_status(model_copy: ModelCopy, tmp_path: Path) -> None:
    spec = {"backends": ["xnnpack", "portable"], "precisions": ["auto"], "max_kl": 1e-9, "max_seq_len": 64}
    done = run_exporter(spec, model_copy(), tmp_path / "out")
    assert done.exit_code == 43, done.log[-2000:]
    made, skipped = report.load(tmp_path / "out" / "report.json").cells
    assert (made.status, made.failed_stage, made.exit_code) == (Status.FAILED, "quantize", 43)
    assert "Nothing is within a mean KL of 1e-09 nats: the best found costs" in str(made.reason)
    assert made.quantization is not None and made.quantization.tried, "the report lists what was tried"
    assert not any(row.within or row.chosen for row in made.quantization.tried)
    assert all(
        f"{row.size_bytes / 1e6:,.1f} MB {row.kl_mean:.3g} nats" in str(made.reason) for row in made.quantization.tried
    )
    assert (skipped.status, skipped.exit_code) == (Status.SKIPPED, None)


def test_calibration_text_that_is_missing_is_refused(model_copy: ModelCopy, tmp_path: Path) -> None:
    done = run_exporter({"calibration": ["own.txt"]}, model_copy(), tmp_path / "out")
    assert "own.txt" in _refusal(done, "InvalidCalibration", 42)["message"]


def test_a_model_that_is_refused_leaves_nothing(model_copy: ModelCopy, tmp_path: Path) -> None:
    model = model_copy()
    (model / "model.safetensors").write_bytes((model / "model.safetensors").read_bytes()[:-100])
    _refusal(run_exporter({}, model, tmp_path / "out"), "CorruptWeights", 15)
    assert not (tmp_path / "out").exists()


def test_an_output_directory_with_something_in_it_is_left_alone(model_copy: ModelCopy, tmp_path: Path) -> None:
    out = tmp_path / "out"
    out.mkdir()
    (out / "mine.txt").write_text("mine")
    last = _refusal(run_exporter({}, model_copy(), out), "OutputNotEmpty", 23)
    assert "mine.txt" in last["message"]
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [("mine.txt", "mine")]


@pytest.mark.parametrize("arguments", [[], ["a"], ["a", "b"], ["a", "b", "c", "d"]])
def test_wrong_usage_is_told_on_stderr(arguments: list[str]) -> None:
    command = [sys.executable, "-m", "exporter", *arguments]
    done = _run(command)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("usage: python -m exporter SPEC.json MODEL_DIR OUT_DIR")


def test_a_spec_that_is_no_json(tmp_path: Path) -> None:
    (tmp_path / "spec.json").write_text("{")
    command = [sys.executable, "-m", "exporter", str(tmp_path / "spec.json"), str(tmp_path), str(tmp_path / "out")]
    done = _run(command)
    found = Exported(
        model=tmp_path, out=tmp_path, exit_code=done.returncode, lines=done.stdout.splitlines(), log=done.stderr
    )
    _refusal(found, "InvalidSpec", 25)


# Runs main() with every cell failing at its end: parity compares with references of another model.
NO_GOOD = """
import sys
from exporter import parity
from exporter.__main__ import main
real = parity.reference
def spoiled(*args, **kwargs):
    found = real(*args, **kwargs)
    found.logits.update({name: logits.flip(-1) for name, logits in found.logits.items()})
    return found
parity.reference = spoiled
sys.exit(main(sys.argv[1:]))
"""


def test_when_no_cell_is_good_the_report_says_why_and_the_exit_status_is_3(
    model_copy: ModelCopy, tmp_path: Path
) -> None:
    model, out, path = model_copy(num_hidden_layers=1), tmp_path / "out", tmp_path / "spec.json"
    spec = specs.ExportSpec(backends=("portable",), precisions=("fp32",), max_seq_len=16)
    path.write_text(json.dumps(specs.to_dict(spec)))
    command = [sys.executable, "-c", NO_GOOD, str(path), str(model), str(out)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=300, check=False
    )
    assert done.returncode == 3, done.stderr[-2000:]
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    assert lines[-1]["message"] == "0 of 1 files are good"
    assert [path.name for path in out.iterdir()] == ["report.json"], "no file that nobody should use"
    cell = json.loads((out / "report.json").read_text())["cells"][0]
    assert (cell["status"], cell["failed_stage"], cell["file"]) == ("failed", "parity", None)
    assert "max_difference_over_std" in cell["reason"]
    assert not cell["parity"]["passed"]
    # The reference itself is what is wrong, so the very first stage differs from it.
    assert cell["parity"]["first_difference"].startswith("eager module (")


@pytest.mark.parametrize(("sign", "stage"), [
    (signal.SIGTERM, "lower"), (signal.SIGINT, "load"), (signal.SIGKILL, "lower")
])  # fmt: skip
def test_an_end_in_the_middle_leaves_nothing_under_the_outputs_name(
    sign: signal.Signals, stage: str, model_copy: ModelCopy, tmp_path: Path
) -> None:
    model, out, path = model_copy(num_hidden_layers=1), tmp_path / "here" / "out", tmp_path / "spec.json"
    path.write_text(json.dumps({"backends": ["portable"], "precisions": ["fp32"], "max_seq_len": 16}))
    command = [sys.executable, "-m", "exporter", str(path), str(model), str(out)]
    with subprocess.Popen(
        command, cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if json.loads(line)["stage"] == stage:
                break
        time.sleep(0.2)
        os.kill(process.pid, sign)
        rest = process.stdout.read()
        code = process.wait(timeout=120)
    assert not out.exists()
    left = list(out.parent.iterdir()) if out.parent.exists() else []
    if sign == signal.SIGKILL:
        assert code == -signal.SIGKILL
        assert all(path.name.startswith(".out.") and path.name.endswith(".partial") for path in left)
    else:
        assert code == 128 + sign
        assert left == [], "the staging directory is gone too"
        assert '"error"' not in rest
