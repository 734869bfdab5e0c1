"""Exports of one model, a backend each, made into one output. Between stages 3 and 5 of the way of one request.

In: the spec of the whole, and for each backend its finished export or why there is none. Out: a directory with all
files and one ``report.json``, as one export of all backends would have left it. A backend without an export has cells
that say so: what befell one must not cost the others.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from bot import plan
from bot.errors import OutputNotTrusted
from bot.export_process import REPORT_NAME
from exporter import report as reports
from exporter.errors import PtebotError, UnsupportedCombination
from exporter.report import Cell, Report, Status
from exporter.spec import ExportSpec

Part = tuple[Path, Report]


def one_backend(spec: ExportSpec, backend: str) -> ExportSpec:
    """The part of an export that a step makes."""
    return replace(spec, backends=(backend,))


def assemble(spec: ExportSpec, parts: Mapping[str, Part], failed: Mapping[str, PtebotError], into: Path) -> Report:
    """Put the finished parts together in ``into``, which is absent; files are linked, not copied, where they can be.

    Args:
        parts: finished exports, by backend.
        failed: why there is none, by backend; together with ``parts`` every backend of ``spec``.

    Raises:
        OutputNotTrusted: the parts are not of one model and one toolchain.
    """
    report = merge(spec, [parts[name][1] for name in spec.backends if name in parts], failed)
    staging = into.with_name(f".{into.name}.partial")
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    for directory, part in parts.values():
        for cell in part.cells:
            if cell.file is not None:
                _link(directory / cell.file, staging / cell.file)
    (staging / REPORT_NAME).write_text(reports.dumps(report), encoding="utf-8")
    staging.replace(into)
    return report


def merge(spec: ExportSpec, parts: Sequence[Report], failed: Mapping[str, PtebotError]) -> Report:
    """One report of several; raises OutputNotTrusted where they do not belong together."""
    if not parts:
        raise OutputNotTrusted("No backend has a report.")
    first = parts[0]
    for part in parts[1:]:
        same_files = plan.source_fingerprint(part.model.files) == plan.source_fingerprint(first.model.files)
        same_way = (part.toolchain, part.max_seq_len) == (first.toolchain, first.max_seq_len)
        if not same_files or not same_way:
            raise OutputNotTrusted("The backends' reports are not of one model and one toolchain.")
    made = {(cell.backend, cell.precision): cell for part in parts for cell in part.cells}
    cells = []
    for backend in spec.backends:
        for precision in spec.precisions:
            cell = made.get((backend, precision))
            if cell is None and backend not in failed:
                raise OutputNotTrusted(f"No report has {backend} at {precision}.")
            cells.append(cell or _lost(backend, precision, failed[backend]))
    names = list(dict.fromkeys(name for part in parts for name in part.seconds))
    return replace(
        first,
        spec=spec,
        seconds={name: round(sum(part.seconds.get(name, 0.0) for part in parts), 3) for name in names},
        peak_rss_bytes=max(part.peak_rss_bytes for part in parts),
        cells=cells,
    )


def _lost(backend: str, precision: str, error: PtebotError) -> Cell:
    if isinstance(error, UnsupportedCombination):  # one export of all backends skips it too
        return Cell(backend=backend, precision=precision, status=Status.SKIPPED, reason=error.what)
    return Cell(
        backend=backend,
        precision=precision,
        status=Status.FAILED,
        reason=error.what,
        failed_stage="export",
        exit_code=error.exit_code,
    )


def _link(there: Path, here: Path) -> None:
    here.parent.mkdir(parents=True, exist_ok=True)
    try:
        os.link(there, here)
    except OSError:
        shutil.copyfile(there, here)
