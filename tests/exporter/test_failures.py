"""What fails takes no more with it than it must, and says at which stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from exporter import backends, checkpoint, lower, pte, quantize, rehearse, runtime, trace
from exporter.report import Report, Status
from exporter.run import Progress, export
from exporter.runtime import RuntimeFailed
from exporter.spec import ExportSpec, ModelRef
from tests.exporter.conftest import ModelCopy

SPEC = ExportSpec(backends=("portable",), precisions=("fp32",), max_seq_len=16)


def _export(spec: ExportSpec, model: Path, out: Path) -> tuple[Report, list[Progress]]:
    steps: list[Progress] = []
    report = export(spec, model, out, steps.append)
    fractions = [step.fraction for step in steps if step.fraction is not None]
    assert fractions == sorted(fractions)
    assert fractions[-1] == 1.0
    return report, steps


def _raising(text: str) -> Any:
    def fail(*args: object, **kwargs: object) -> Any:
        raise RuntimeError(text)

    return fail


def test_a_recipe_that_fails_takes_its_own_cells_only(
    model_copy: ModelCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(type(quantize.get("8da4w")), "apply", _raising("no scale"))
    spec = ExportSpec(backends=("portable",), max_seq_len=16)
    report, _ = _export(spec, model_copy(num_hidden_layers=1), tmp_path / "out")
    good, bad = report.cells
    assert (good.precision, good.status) == ("fp32", Status.RAN)
    assert (bad.precision, bad.status, bad.failed_stage) == ("8da4w", Status.FAILED, "quantize")
    assert bad.reason == "RuntimeError: no scale"
    assert [cell.precision for cell in report.good_cells] == ["fp32"]


@pytest.mark.parametrize(
    ("module", "name", "stage"),
    [(trace, "trace", "trace"), (lower, "lower", "lower"), (pte, "write", "write"), (pte, "read", "read back")],
)
def test_a_stage_that_fails_is_named(
    module: Any, name: str, stage: str, model_copy: ModelCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        lower, "lower", lambda *args, **kwargs: lower.Lowered(program=None, edge=None, delegated_ops={})
    )  # type: ignore[arg-type]
    monkeypatch.setattr(pte, "write", lambda program, path: path.write_bytes(b"half"))
    monkeypatch.setattr(module, name, _raising("something\nof many lines \x1b[31m"))
    report, steps = _export(SPEC, model_copy(num_hidden_layers=1), tmp_path / "out")
    (cell,) = report.cells
    assert (cell.status, cell.failed_stage) == (Status.FAILED, stage)
    assert cell.reason == "RuntimeError: something of many lines ?[31m", "one printable line"
    assert (cell.file, cell.size_bytes, cell.sha256) == (None, None, None)
    assert steps[-1].message == "0 of 1 files are good"
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["report.json"]


def test_a_file_that_the_runtime_does_not_run_fails_at_parity(
    model_copy: ModelCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def load(path: Path) -> Any:
        def step(ids: object, position: object) -> Any:
            raise RuntimeFailed("Failed to execute method forward, error: 0x1")

        return step

    monkeypatch.setattr(runtime, "load", load)
    report, _ = _export(SPEC, model_copy(num_hidden_layers=1), tmp_path / "out")
    (cell,) = report.cells
    assert (cell.status, cell.failed_stage) == (Status.FAILED, "parity")
    assert cell.reason == "Failed to execute method forward, error: 0x1"
    assert cell.delegation is not None, "what is known of the file is told all the same"
    assert cell.metadata["get_max_seq_len"] == 16


def test_a_file_below_the_floor_is_refused(
    model_copy: ModelCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Export succeeded, and nothing was delegated."""
    xnnpack = backends.get("xnnpack")
    monkeypatch.setattr(xnnpack, "partitioners", lambda precision: [])
    spec = ExportSpec(backends=("xnnpack",), precisions=("fp32",), max_seq_len=16, attention="stock")
    report, _ = _export(spec, model_copy(num_hidden_layers=1), tmp_path / "out")
    (cell,) = report.cells
    assert (cell.status, cell.failed_stage) == (Status.FAILED, "read back")
    assert cell.reason == "delegation is below the backend's floor: nothing was delegated to XNNPACK"
    assert cell.attention == "stock", "the choice of the asker"


def test_the_rehearsal_finds_what_would_fail_at_the_end(
    model_copy: ModelCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On one layer, before the model is even loaded."""
    monkeypatch.setattr(rehearse, "FROM_LAYERS", 2)
    monkeypatch.setattr(lower, "lower", _raising("Missing out variants: {'torchao::dequantize_affine'}"))
    monkeypatch.setattr(checkpoint, "load_model", _raising("the model was loaded"))
    report, steps = _export(SPEC, model_copy(), tmp_path / "out")
    (cell,) = report.cells
    assert (cell.status, cell.failed_stage) == (Status.FAILED, "rehearse")
    assert cell.reason == (
        "the rehearsal on one layer failed at lower: RuntimeError: Missing out variants: {'torchao::dequantize_affine'}"
    )
    assert "the whole chain on one layer" in {step.message for step in steps}


def test_a_rehearsal_that_was_not_asked_for_is_not_made(
    model_copy: ModelCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rehearse, "FROM_LAYERS", 1)
    monkeypatch.setattr(rehearse, "chain", _raising("rehearsed"))
    monkeypatch.setattr(lower, "lower", _raising("lowered"))
    spec = ExportSpec(backends=("portable",), precisions=("fp32",), max_seq_len=16, rehearse=False)
    report, _ = _export(spec, model_copy(num_hidden_layers=1), tmp_path / "out")
    assert report.cells[0].reason == "RuntimeError: lowered"


@pytest.mark.parametrize(("backend", "precision"), [("portable", "fp32"), ("openvino", "fp32"), ("xnnpack", "8da4w")])
def test_a_rehearsal_of_what_works_finds_nothing(backend: str, precision: str, model_copy: ModelCopy) -> None:
    ckpt = checkpoint.inspect(model_copy(), ModelRef())
    assert rehearse.chain(ckpt, backends.get(backend), precision, "8w", "stock") is None


def test_small_models_are_not_rehearsed(model_copy: ModelCopy) -> None:
    assert not rehearse.worth_it(checkpoint.inspect(model_copy(), ModelRef()))
