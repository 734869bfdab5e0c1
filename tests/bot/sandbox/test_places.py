"""What is put within a child's reach: the top of a model directory, the owner's texts, and nothing else of it."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.sandbox import errand, places
from bot.sandbox.call import Limits
from bot.sandbox.errand import Word
from bot.sandbox.run_folder import RunFolder, container_user
from exporter.errors import InvalidCalibration


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "docs" / "deep").mkdir(parents=True)
    for name in ("config.json", ".env", "docs/deep/use.txt", "docs/secret.txt", ".use.txt"):
        (directory / name).write_text(name, encoding="utf-8")
        (directory / name).chmod(0o600)
    return directory


def staged(target: Path) -> dict[str, str]:
    return {path.relative_to(target).as_posix(): path.read_text() for path in target.rglob("*") if path.is_file()}


def test_named_texts_are_staged_and_nothing_beside_them(model: Path, tmp_path: Path) -> None:
    places.stage(model, tmp_path / "plain")
    assert staged(tmp_path / "plain") == {"config.json": "config.json"}
    texts = ("docs/deep/use.txt", ".use.txt", "config.json")
    places.stage(model, tmp_path / "there", texts)
    assert staged(tmp_path / "there") == {name: name for name in texts}
    for path in (tmp_path / "there").rglob("*"):
        assert path.stat().st_mode & 0o005 == (0o005 if path.is_dir() else 0o004), "every user can read it"


def test_a_text_that_leads_out_is_not_staged(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("secret", encoding="utf-8")
    (model / "docs" / "link.txt").symlink_to(tmp_path / "secret")
    with pytest.raises(InvalidCalibration, match="leads out"):
        places.stage(model, tmp_path / "there", ("docs/link.txt",))


def test_a_container_gets_them_too(model: Path, tmp_path: Path) -> None:
    folder = RunFolder.make(tmp_path, container_user())
    place = folder.stage(model, ("docs/deep/use.txt",))
    assert staged(folder.inputs / place) == {"config.json": "config.json", "docs/deep/use.txt": "docs/deep/use.txt"}
    folder.remove()


def test_another_machine_is_told_of_them() -> None:
    words = [Word(kind="read", value="/in/1/model", texts=("docs/use.txt",)), Word(kind="text", value="x")]
    assert errand.unpack(errand.pack("exporter", words, Limits()))[1] == words
