"""Exports of single backends put together, with what befell the others."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from bot import assemble, export_process
from bot.errors import ExportTimedOut, OutputNotTrusted
from exporter import spec as specs
from exporter.errors import UnsupportedCombination
from exporter.report import Report, Status
from tests.bot import reports

WHOLE = specs.parse({"backends": ["portable", "xnnpack"], "precisions": ["fp32", "8da4w"]})


def part(folder: Path, backend: str) -> assemble.Part:
    spec = assemble.one_backend(WHOLE, backend)
    cells = [reports.cell(backend, precision) for precision in WHOLE.precisions]
    report = reports.report(cells, spec=spec)
    reports.write(report, folder / backend)
    return folder / backend, report


def test_parts_make_one_output_that_bears_its_report_out(tmp_path: Path) -> None:
    parts = {backend: part(tmp_path, backend) for backend in ("xnnpack", "portable")}
    report = assemble.assemble(WHOLE, parts, {}, tmp_path / "whole")
    assert [(cell.backend, cell.precision) for cell in report.cells] == [
        ("portable", "fp32"),
        ("portable", "8da4w"),
        ("xnnpack", "fp32"),
        ("xnnpack", "8da4w"),
    ]
    assert report.spec == WHOLE
    assert export_process.load_output(tmp_path / "whole") == report
    assert [path.name for path in tmp_path.iterdir() if path.name.startswith(".")] == []


def test_what_befell_a_backend_stands_in_its_cells(tmp_path: Path) -> None:
    parts = {"xnnpack": part(tmp_path, "xnnpack")}
    failed = {"portable": ExportTimedOut("ended after 60 s")}
    report = assemble.assemble(WHOLE, parts, failed, tmp_path / "whole")
    lost = [cell for cell in report.cells if cell.backend == "portable"]
    assert [(cell.status, cell.reason, cell.file) for cell in lost] == [(Status.FAILED, "ended after 60 s", None)] * 2
    assert {cell.backend for cell in report.good_cells} == {"xnnpack"}


def test_a_backend_that_takes_none_of_the_precisions_is_skipped(tmp_path: Path) -> None:
    """As one export of all backends has it: no failure, and no exit status of its own."""
    parts = {"xnnpack": part(tmp_path, "xnnpack")}
    report = assemble.assemble(WHOLE, parts, {"portable": UnsupportedCombination("not taken")}, tmp_path / "whole")
    lost = [cell for cell in report.cells if cell.backend == "portable"]
    assert [(cell.status, cell.reason, cell.exit_code) for cell in lost] == [(Status.SKIPPED, "not taken", None)] * 2


def other_model(report: Report) -> Report:
    files = [replace(report.model.files[0], sha256="0" * 64), *report.model.files[1:]]
    return replace(report, model=replace(report.model, files=files))


def other_toolchain(report: Report) -> Report:
    return replace(report, toolchain={**report.toolchain, "torch": "0"})


@pytest.mark.parametrize("change", [other_model, other_toolchain, lambda one: replace(one, max_seq_len=7)])
def test_parts_of_different_models_or_tools_are_refused(tmp_path: Path, change: object) -> None:
    parts = {backend: part(tmp_path, backend) for backend in ("xnnpack", "portable")}
    parts["xnnpack"] = (parts["xnnpack"][0], change(parts["xnnpack"][1]))  # type: ignore[operator]
    with pytest.raises(OutputNotTrusted):
        assemble.assemble(WHOLE, parts, {}, tmp_path / "whole")
    assert not (tmp_path / "whole").exists()


def test_a_backend_that_nobody_accounts_for_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OutputNotTrusted, match="portable"):
        assemble.assemble(WHOLE, {"xnnpack": part(tmp_path, "xnnpack")}, {}, tmp_path / "whole")
