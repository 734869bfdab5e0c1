"""Our files: exported by the product in a process of its own, then run on the ExecuTorch runtime.

Goes in: a model directory, precisions and budgets. Comes out: reports and scores of the written files. Exports are kept
in a folder and found there again; one that was made of other weights or with other settings is refused.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Any

import torch

from bench.quality_parts.score import Score, Sequence, compare
from exporter import report as reports
from exporter import runtime
from exporter import spec as specs
from exporter.backends import xnnpack
from exporter.report import Cell, Report

BACKEND = "xnnpack"
ROOT = Path(__file__).resolve().parents[2]
_WEIGHTS = "model.safetensors"


class ExportFailed(Exception):
    """An export gave no report; the text is its last words."""


def takes(precision: str) -> bool:
    """Whether the backend takes a precision."""
    return precision in xnnpack.BACKEND.precisions


def weights_sha256(model_dir: Path) -> str:
    """Of the weights' file; of the names and sizes of the parts where a model is stored in several."""
    digest = hashlib.sha256()
    if (whole := model_dir / _WEIGHTS).exists():
        with whole.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    for part in sorted(model_dir.glob("*.safetensors")):
        digest.update(f"{part.name} {part.stat().st_size}\n".encode())
    return digest.hexdigest()


def export(model_dir: Path, out_dir: Path, precisions: Items[str], max_seq_len: int, **budget: Any) -> Report:
    """The report of an export in ``out_dir``, made where there is none.

    Args:
        budget: ``max_kl`` or ``max_size`` of the precision ``auto``.

    Raises:
        ExportFailed: the export ended without a report, or what is in the folder is another one.
    """
    spec = specs.parse(
        {
            "backends": (BACKEND,),
            "precisions": tuple(precisions),
            "embedding": "8w",
            "max_seq_len": max_seq_len,
            **budget,
        }
    )
    if (out_dir / "report.json").exists():
        found = reports.load(out_dir / "report.json")
        shas = {file.path: file.sha256 for file in found.model.files}
        if shas.get(_WEIGHTS, "") != weights_sha256(model_dir):
            raise ExportFailed(f"{out_dir} holds an export of other weights; remove it or take another folder")
        if found.spec != spec:
            raise ExportFailed(f"{out_dir} holds an export with other settings; remove it or take another folder")
        return found
    out_dir.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ptebot-bench-spec-") as scratch:
        file = Path(scratch, "spec.json")
        file.write_text(json.dumps(specs.to_dict(spec)), "utf-8")
        command = [sys.executable, "-m", "exporter", str(file), str(model_dir), str(out_dir)]
        done = subprocess.run(command, check=False, cwd=ROOT, capture_output=True, text=True)
    if not (out_dir / "report.json").exists():
        said = _last_words(done.stdout, done.stderr)
        raise ExportFailed(f"the export of {', '.join(precisions)} ended with {done.returncode}: {said}")
    return reports.load(out_dir / "report.json")


def _last_words(stdout: str, stderr: str) -> str:
    """The message of the exporter's typed failure; without one, the last line of a crash."""
    lines = stdout.strip().splitlines()
    last = json.loads(lines[-1]) if lines else {}
    if last.get("stage") == "error":
        return str(last["message"])
    return (stderr.strip().splitlines() or ["nothing was said"])[-1][:600]


def cell(report: Report, precision: str) -> Cell:
    """The good cell of a precision; raises ExportFailed with its reason when it has no file."""
    for found in report.cells:
        if found.precision == precision and found.status.good and found.file:
            return found
        if found.precision == precision:
            raise ExportFailed(f"{precision}: {found.failed_stage}: {found.reason}")
    raise ExportFailed(f"{precision} is not in the report")


def score(file: Path, sequences: Items[Sequence], full: Items[torch.Tensor]) -> dict[str, Score]:
    """Scores of a .pte, each sequence fed as one prefill from position 0; ours and a peer's alike."""
    xnnpack.BACKEND.prepare()
    step = runtime.load(file)
    return compare(sequences, full, lambda ids: step(ids[None], torch.arange(len(ids))))
