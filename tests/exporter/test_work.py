"""What the cells of one export share, and what one precision must not leave behind for the next."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from exporter import backend_quantize, parity, quantize
from exporter.errors import DiskFull
from exporter.material import Material
from exporter.progress import Progress
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


@pytest.mark.parametrize(("backends", "plain"), [(("xnnpack",), 1), (("xnnpack", "portable"), 2)])
def test_a_reference_is_run_for_files_that_are_held_to_it(
    backends: tuple[str, ...],
    plain: int,
    tmp_path: Path,
    _models: Callable[..., Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """XNNPACK's cache is in int8, so that its quantized reference goes through the caches; the other's is float32."""
    ran: list[str] = []

    def count(name: str, run: Callable[..., Any]) -> None:
        def counted(*given: Any) -> Any:
            ran.append(name)
            return run(*given)

        monkeypatch.setattr(parity, name, counted)

    count("reference", parity.reference)
    count("reference_through_caches", parity.reference_through_caches)
    spec = ExportSpec(backends=backends, precisions=("8da4w-rtn",), cache="int8", max_seq_len=32)
    result = export(spec, _models("llama", num_hidden_layers=1), tmp_path / "out")
    assert [cell.cache for cell in result.cells] == ["int8", "fp32"][: len(backends)]
    for cell in result.cells:
        assert cell.parity is not None and len(cell.parity.comparisons) == 2, "and each file is held to one of its own"
    assert ran.count("reference") == plain, "the original's, and that of files with float32 caches"
    assert ran.count("reference_through_caches") == 1


def test_a_backends_own_quantization_tells_how_far_it_is(
    tmp_path: Path, _models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    def looking(job: Any, text: Any, progress: Callable[[float, str], None]) -> None:
        progress(0.25, "it looks at text")
        raise ArithmeticError("no")

    monkeypatch.setattr(backend_quantize, "by_itself", looking)
    told: list[Progress] = []
    spec = ExportSpec(backends=("openvino",), precisions=("4w-nncf",), max_seq_len=32)
    (cell,) = export(spec, _models("llama", num_hidden_layers=1), tmp_path / "out", told.append).cells
    assert (cell.status, cell.reason) == (Status.FAILED, "ArithmeticError: no")
    assert ("quantize", "openvino", "4w-nncf", "it looks at text (25%)") in [
        (one.stage, one.backend, one.precision, one.message) for one in told
    ]


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
