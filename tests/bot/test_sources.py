"""A directory as a model: its owner's texts are part of what an export depends on."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot import job
from bot.sources import LocalModel
from exporter.errors import InvalidCalibration
from exporter.spec import ExportSpec
from tests.bot import reports


@pytest.fixture
def model(tmp_path: Path) -> LocalModel:
    for name, data in reports.MODEL_FILES.items():
        (tmp_path / name).write_bytes(data)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "use.txt").write_bytes(b"what it is for")
    return LocalModel(tmp_path)


def test_texts_are_in_the_tree_by_their_paths(model: LocalModel) -> None:
    assert "docs/use.txt" not in model.tree
    found = model.with_texts(["docs/use.txt"])
    assert {*found.tree} == {*model.tree, "docs/use.txt"}
    assert found.tree["docs/use.txt"].size_bytes == 14


def test_another_text_is_another_export(model: LocalModel) -> None:
    spec = ExportSpec(calibration=("docs/use.txt",))
    before = job.export_key(spec, model.with_texts(spec.calibration).tree, {})
    assert job.export_key(spec, model.with_texts(spec.calibration).tree, {}) == before
    (model.directory / "docs" / "use.txt").write_bytes(b"what it was for")
    assert job.export_key(spec, model.with_texts(spec.calibration).tree, {}) != before


def test_a_text_that_is_not_there_is_told_at_once(model: LocalModel) -> None:
    with pytest.raises(InvalidCalibration, match=r"docs/gone\.txt is not there"):
        model.with_texts(["docs/gone.txt"])
