"""A small whole report and its files on disk, for tests of what reads them."""

from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path
from typing import Any

from exporter import report as reports
from exporter.report import Cell, Host, ModelInfo, Report, SourceFile, Status
from exporter.spec import ExportSpec, ModelRef

CONTENT = b"a stand-in for a program"


def cell(**changes: Any) -> Cell:
    """A good cell whose file holds ``CONTENT``."""
    made = Cell(
        backend="portable",
        precision="fp32",
        status=Status.RAN,
        file="portable/tiny_portable_fp32.pte",
        size_bytes=len(CONTENT),
        sha256=hashlib.sha256(CONTENT).hexdigest(),
    )
    return dataclasses.replace(made, **changes)


def report(*cells: Cell, **changes: Any) -> Report:
    """A report of one good cell, or of the given ones."""
    made = Report(
        schema_version=reports.SCHEMA_VERSION,
        generator="ptebot 0",
        model=ModelInfo(
            name="tiny",
            repo_id="owner/tiny",
            revision="0" * 40,
            architecture="LlamaForCausalLM",
            model_type="llama",
            parameters=1,
            dtype="float32",
            max_position_embeddings=128,
            sliding_window=None,
            tied_embedding=True,
            files=[SourceFile(path="config.json", size_bytes=2, sha256="a" * 64, git_oid="b" * 40)],
        ),
        spec=ExportSpec(
            model=ModelRef(repo_id="owner/tiny", revision="0" * 40), backends=("portable",), precisions=("fp32",)
        ),
        max_seq_len=128,
        toolchain={"torch": "1"},
        host=Host(system="Linux", machine="x86_64", cpu="a CPU", logical_cpus=2, memory_bytes=1),
        seconds={"total": 1.0},
        peak_rss_bytes=1,
        cells=list(cells) or [cell()],
    )
    return dataclasses.replace(made, **changes)


def write(directory: Path, found: Report) -> None:
    """The report and a file of ``CONTENT`` for each cell that names one."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "report.json").write_text(reports.dumps(found), encoding="utf-8")
    for item in found.cells:
        if item.file:
            path = directory / item.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(CONTENT)
