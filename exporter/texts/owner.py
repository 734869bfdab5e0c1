"""The owner's texts: files of the model repository that say what the model is used for.

Goes in: names of files and a model directory that may be hostile (exporter/calibration_files.py finds them). Comes out:
of each file, what calibrates (the first four fifths, by paragraphs) and what is judged on (the rest); or a typed
refusal that names the file, the fault and its place.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from exporter import calibration_files
from exporter.errors import InvalidCalibration

LEAST_CHARACTERS = 1_000
"""Of a file, white space not counted: less has too few paragraphs to be cut in two."""
_SHARE = 0.8
"""Of a file's characters, what calibrates."""


@dataclass(frozen=True, kw_only=True)
class OwnText:
    """One file, cut in two between paragraphs."""

    name: str
    calibration: str
    evaluation: str


def read(names: Sequence[str], directory: Path) -> list[OwnText]:
    """The files ``names`` of ``directory``, in this order.

    Raises:
        InvalidCalibration: a name cannot be a file's, there is no such file, or its text is empty, too short, too
            large, not UTF-8 or has NUL characters.
    """
    if (reason := calibration_files.wrong_list(names)) is not None:
        raise InvalidCalibration(f"The calibration texts cannot be read: {reason}.")
    return [_cut(name, _text(name, directory)) for name in names]


def _text(name: str, directory: Path) -> str:
    path = calibration_files.find(directory, name)
    try:
        with path.open("rb") as stream:
            data = stream.read(calibration_files.MOST_BYTES + 1)
    except OSError as error:
        raise InvalidCalibration(f"The calibration text {name} cannot be read: {error.strerror}.") from None
    calibration_files.check_size(name, len(data))
    if (nul := data.find(0)) >= 0:
        raise InvalidCalibration(f"The calibration text {name} has a NUL byte at {_place(data, nul)}: it is no text.")
    try:
        text = data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise InvalidCalibration(
            f"The calibration text {name} is not UTF-8: {error.reason} (0x{data[error.start]:02x}) at "
            f"{_place(data, error.start)}."
        ) from None
    text = text.replace("\r\n", "\n").replace("\r", "\n").strip()
    count = sum(map(len, text.split()))
    if count == 0:
        raise InvalidCalibration(f"The calibration text {name} has nothing but white space.")
    if count < LEAST_CHARACTERS:
        raise InvalidCalibration(
            f"The calibration text {name} is too short: {count:,} characters besides white space; "
            f"{LEAST_CHARACTERS:,} are the least."
        )
    return text


def _cut(name: str, text: str) -> OwnText:
    """Cut after the paragraph that ends nearest below four fifths; without one in the second half, after a line, a
    word, or in the middle of a text that has no white space at all."""
    aim = int(len(text) * _SHARE)
    for boundary in (r"\n[ \t]*\n\s*", r"\n", r"\s"):
        ends = [match.end() for match in re.finditer(boundary, text) if len(text) // 2 <= match.end() <= aim]
        if ends:
            return OwnText(name=name, calibration=text[: ends[-1]], evaluation=text[ends[-1] :])
    return OwnText(name=name, calibration=text[:aim], evaluation=text[aim:])


def _place(data: bytes, offset: int) -> str:
    return f"byte {offset:,} (line {data.count(10, 0, offset) + 1:,})"
