"""What the cells of one export share, and what one precision must not leave behind for the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from exporter import quantize
from exporter.errors import DiskFull
from exporter.material import Material
from exporter.report import Status
from exporter.run import export
from exporter.spec import ExportSpec


def test_a_calibrated_file_after_an_exact_one_of_the_same_backend(tmp_path: Path, _models: Callable[..., Path]) -> None:
    """The exact recipe hands on the loaded model itself, and tracing leaves it with the runtime's attention."""
    spec = ExportSpec(backends=("xnnpack",), precisions=("fp32", "8da4w"), max_seq_len=64)
    result = export(spec, _models("mixtral", num_hidden_layers=1), tmp_path / "out")
    assert [(cell.precision, cell.status, cell.reason) for cell in result.cells] == [
        ("fp32", Status.RAN, None),
        ("8da4w", Status.RAN, None),
    ]
    quantization = result.cells[1].quantization
    assert quantization is not None and quantization.calibration is not None
    assert any(layer.algorithm == "calibrated" for layer in quantization.layers)


def test_a_disk_that_runs_full_ends_the_whole_export(
    tmp_path: Path, _models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(self: Material) -> None:
        raise DiskFull("The disk ran full.")

    monkeypatch.setattr(Material, "judge", full)
    with pytest.raises(DiskFull):
        export(ExportSpec(backends=("xnnpack",), precisions=("8da4w-rtn",)), _models("llama"), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_recipe_that_fails_takes_its_own_files_only(
    tmp_path: Path, _models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*args: object) -> None:
        raise ArithmeticError("no")

    monkeypatch.setattr(quantize.get("8da4w-rtn"), "apply", broken, raising=False)
    spec = ExportSpec(backends=("portable",), precisions=("8da4w-rtn", "fp32"), max_seq_len=32)
    first, second = export(spec, _models("llama", num_hidden_layers=1), tmp_path / "out").cells
    assert (first.status, first.failed_stage, first.reason) == (Status.FAILED, "quantize", "ArithmeticError: no")
    assert second.status is Status.RAN
