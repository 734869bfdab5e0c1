"""Text of one export: made once, when it is wanted, and what judges stays apart from what calibrates."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter import calibration, checkpoint, facts, quality
from exporter.material import Material
from exporter.quality import QualityReference
from exporter.quantize import Calibration
from exporter.spec import ExportSpec, ModelRef

SAMPLE = Path(__file__).parents[2] / "examples/sample-model"


@pytest.fixture(scope="module")
def material(tmp_path_factory: pytest.TempPathFactory) -> Material:
    ckpt = checkpoint.inspect(SAMPLE, ModelRef())
    return Material(
        model=checkpoint.load_model(ckpt),
        tokenizer=checkpoint.load_tokenizer(ckpt),
        ckpt=ckpt,
        spec=ExportSpec(),
        max_seq_len=128,
        scratch=tmp_path_factory.mktemp("scratch"),
        clock=facts.Clock(),
        progress=lambda stage, fraction, message: None,
    )


def _runs(tokens: list[int], length: int = 13) -> set[tuple[int, ...]]:
    return {tuple(tokens[at : at + length]) for at in range(len(tokens) - length + 1)}


def test_nothing_that_judges_is_in_what_calibrates(material: Material) -> None:
    """No run of 13 tokens, the original's own answers included."""
    text, judge = material.calibration(), material.judge()
    calibrating = set[tuple[int, ...]]()
    for ids in (*text.sequences, *text.held_out):
        calibrating |= _runs(ids[0].tolist())
    assert {passage.kind for passage in judge.passages} >= {"docs", "code", "chat"}
    for passage in judge.passages:
        judged = passage.ids[0, passage.first + 1 if passage.kind == "chat" else 0 :].tolist()
        assert not _runs(judged) & calibrating, passage.name


def test_each_is_made_once(material: Material, monkeypatch: pytest.MonkeyPatch) -> None:
    text, judge = material.calibration(), material.judge()

    def again(*args: object, **options: object) -> None:
        raise AssertionError("made a second time")

    monkeypatch.setattr(calibration, "prepare", again)
    monkeypatch.setattr(quality, "reference", again)
    assert isinstance(text, Calibration) and isinstance(judge, QualityReference)
    assert material.calibration() is text
    assert material.judge() is judge
    assert {"calibration text", "quality reference"} <= set(material.clock.seconds)
