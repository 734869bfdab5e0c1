"""Names of an owner's text files, and where they lead: nothing outside the model's directory is ever read."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from exporter import calibration_files
from exporter import spec as specs
from exporter.errors import InvalidCalibration, InvalidSpec


@pytest.fixture
def model(tmp_path: Path) -> Path:
    directory = tmp_path / "model"
    (directory / "docs").mkdir(parents=True)
    (directory / "docs" / "use.txt").write_text("text", encoding="utf-8")
    (directory / ".hidden.txt").write_text("text", encoding="utf-8")
    return directory


@pytest.mark.parametrize("name", ["docs/use.txt", ".hidden.txt"])
def test_a_file_below_the_directory_is_found(model: Path, name: str) -> None:
    assert calibration_files.find(model, name) == model.resolve() / name


BAD = [
    "",
    "/etc/passwd",
    "../x",
    "docs/../x",
    "docs//use.txt",
    "docs/",
    "./docs/use.txt",
    "a\\b",
    "a\nb",
    " a",
    "x" * 201,
]


@pytest.mark.parametrize("name", BAD)
def test_a_name_that_can_be_no_file_is_refused_everywhere(model: Path, name: str) -> None:
    assert calibration_files.wrong(name) is not None
    with pytest.raises(InvalidCalibration):
        calibration_files.find(model, name)
    with pytest.raises(InvalidSpec, match="calibration"):
        specs.parse({"calibration": [name]})


def test_lists_are_short_and_name_each_file_once() -> None:
    assert calibration_files.wrong_list([]) is None
    assert "named twice" in str(calibration_files.wrong_list(["a", "a"]))
    assert "are the most" in str(calibration_files.wrong_list([f"{number}" for number in range(21)]))


def test_what_is_not_there_is_named_with_what_to_do(model: Path) -> None:
    with pytest.raises(InvalidCalibration, match=r"docs/other\.txt is not there: model has no such file") as failure:
        calibration_files.find(model, "docs/other.txt")
    assert failure.value.exit_code == 42 and "folder of config.json" in failure.value.advice


def test_what_is_no_plain_file_is_refused(model: Path) -> None:
    os.mkfifo(model / "pipe")
    for name in ("docs", "pipe"):
        with pytest.raises(InvalidCalibration, match="is no file"):
            calibration_files.find(model, name)
    (model / "ring").symlink_to("ring")
    with pytest.raises(InvalidCalibration, match="cannot be read"):
        calibration_files.find(model, "ring")
    with pytest.raises(InvalidCalibration):
        calibration_files.find(model, ".hidden.txt/below")


def test_a_link_stays_inside(model: Path, tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("secret", encoding="utf-8")
    (model / "out.txt").symlink_to(tmp_path / "secret.txt")
    (model / "folder").symlink_to(tmp_path)
    (model / "in.txt").symlink_to("docs/use.txt")
    for name in ("out.txt", "folder/secret.txt"):
        with pytest.raises(InvalidCalibration, match="leads out"):
            calibration_files.find(model, name)
    assert calibration_files.find(model, "in.txt").read_text(encoding="utf-8") == "text"


def test_the_cache_of_the_hub_has_links_into_its_blobs(tmp_path: Path) -> None:
    model = tmp_path / "snapshots" / ("1" * 40)
    (tmp_path / "blobs").mkdir()
    model.mkdir(parents=True)
    (tmp_path / "blobs" / "abc").write_text("text", encoding="utf-8")
    (model / "use.txt").symlink_to("../../blobs/abc")
    assert calibration_files.find(model, "use.txt").read_text(encoding="utf-8") == "text"


def test_empty_large_and_pointers_are_refused(model: Path) -> None:
    (model / "empty.txt").touch()
    with pytest.raises(InvalidCalibration, match="is empty"):
        calibration_files.find(model, "empty.txt")
    with (model / "large.txt").open("wb") as file:
        file.truncate(calibration_files.MOST_BYTES + 1)
    with pytest.raises(InvalidCalibration, match=r"4,194,305 bytes; at most 4,194,304"):
        calibration_files.find(model, "large.txt")
    pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{'a' * 64}\nsize 9\n"
    (model / "pointer.txt").write_text(pointer, encoding="utf-8")
    with pytest.raises(InvalidCalibration, match="Git LFS pointer") as failure:
        calibration_files.find(model, "pointer.txt")
    assert "git lfs pull" in failure.value.advice
