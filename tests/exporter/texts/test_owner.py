"""The owner's text files: where they are cut, and which are refused before any work."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from exporter import calibration
from exporter.errors import InvalidCalibration
from exporter.spec import ExportSpec
from exporter.texts import owner
from tests.exporter.loaded import paragraphs


@pytest.mark.parametrize(
    "text", ["word " * 500, "x" * 4_000, "line of text\n" * 300, paragraphs(20).replace("\n", "\r\n")]
)
def test_texts_are_cut_at_four_fifths(text: str, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_bytes(b"\xef\xbb\xbf" + text.encode())
    (found,) = owner.read(["own.txt"], tmp_path)
    whole = text.replace("\r\n", "\n").strip()
    assert found.calibration + found.evaluation == whole
    assert 0.7 < len(found.calibration) / len(whole) <= 0.8


def _symlink(path: Path) -> None:
    (path.parent.parent / "outside.txt").write_text(paragraphs(40))
    path.symlink_to(path.parent.parent / "outside.txt")


ENOUGH = paragraphs(40).encode()


BAD: dict[str, tuple[Callable[[Path], object], str]] = {
    "empty": (lambda path: path.write_bytes(b""), "own.txt is empty"),
    "white space": (lambda path: path.write_bytes(b" \n" * 3_000), "own.txt has nothing but white space"),
    "too short": (lambda path: path.write_text("a b " * 499), "own.txt is too short: 998 characters.* 1,000 are"),
    "latin-1": (
        lambda path: path.write_bytes(ENOUGH[:1200] + "é".encode("latin-1") + ENOUGH),
        r"own.txt is not UTF-8: .* \(0xe9\) at byte 1,200 \(line 2\d\)",
    ),
    "UTF-16": (lambda path: path.write_bytes(ENOUGH.decode().encode("utf-16")), "NUL byte at byte|not UTF-8"),
    "cut in a character": (lambda path: path.write_bytes(ENOUGH + b"\xe2\x82"), f"at byte {len(ENOUGH):,}"),
    "surrogate": (lambda path: path.write_bytes(ENOUGH + b"\xed\xa0\x80" + ENOUGH), "own.txt is not UTF-8"),
    "NUL": (lambda path: path.write_bytes(ENOUGH + b"\0"), f"NUL byte at byte {len(ENOUGH):,}"),
    "too large": (lambda path: path.write_bytes(b"word \n" * 700_000), "own.txt has 4,200,000 bytes"),
    "link outside": (_symlink, "own.txt is a link that leads out"),
    "link to itself": (lambda path: path.symlink_to(path), "own.txt"),
    "missing": (lambda path: None, "own.txt is not there"),
    "directory": (lambda path: path.mkdir(), "own.txt is no file"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_cannot_be_used_is_refused_before_any_work(name: str, tmp_path: Path) -> None:
    make, said = BAD[name]
    directory = tmp_path / "model"
    directory.mkdir()
    make(directory / "own.txt")
    with pytest.raises(InvalidCalibration, match=said) as caught:
        calibration.check(ExportSpec(calibration=("own.txt",)), directory)
    assert caught.value.exit_code == 42


@pytest.mark.parametrize("name", ["../own.txt", "/etc/passwd", "a/../../own.txt", "", "a\0b", "a\\b", "./own.txt"])
def test_a_name_that_leads_elsewhere_is_refused(name: str, tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_bytes(ENOUGH)
    (tmp_path / "model").mkdir()
    with pytest.raises(InvalidCalibration):
        calibration.check(ExportSpec(calibration=(name,)), tmp_path / "model")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    import os

    os.mkfifo(tmp_path / "own.txt")
    with pytest.raises(InvalidCalibration, match="is no file"):
        calibration.check(ExportSpec(calibration=("own.txt",)), tmp_path)


def test_good_files_pass(tmp_path: Path) -> None:
    (tmp_path / "own.txt").write_bytes(ENOUGH)
    (tmp_path / "link.txt").symlink_to("own.txt")
    calibration.check(ExportSpec(calibration=("own.txt", "link.txt")), tmp_path)
    calibration.check(ExportSpec(), tmp_path)
