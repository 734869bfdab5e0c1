"""The one real model at hand, from its package to an answer: the main promise, on one file.

Minutes rather than seconds: 30 layers are lowered once. The rehearsal runs too, as for every model of this depth.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.export_process import Progress, run_export
from exporter.report import Status
from exporter.spec import ExportSpec
from tests.examples.by_path import load

QUESTION = "What is the capital of France? Answer in one sentence."


@pytest.mark.slow
def test_the_written_fp32_file_answers_as_transformers_does(tmp_path: Path) -> None:
    model_dir = load("smollm2/make_model.py").make()
    steps: list[Progress] = []
    spec = ExportSpec(backends=("xnnpack",), precisions=("fp32",), max_seq_len=256)
    report = run_export(spec, model_dir, tmp_path / "out", on_progress=steps.append)
    (cell,) = report.cells
    assert cell.status is Status.RAN, cell.reason
    assert cell.attention == "custom"
    assert any(step.stage == "rehearse" and step.backend == "xnnpack" for step in steps)
    assert any("stored twice" in note for note in cell.notes)
    ask = load("smollm2/ask.py")
    answer = ask.ask(tmp_path / "out" / str(cell.file), model_dir, QUESTION)
    expected = ask.reference_answer(model_dir, QUESTION)
    assert "Paris" in expected.text
    assert (answer.text, answer.stopped_by) == (expected.text, "eos")
