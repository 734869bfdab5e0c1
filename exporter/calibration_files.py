"""Text files that a model's owner names for calibration: which names can be meant, and where a file lies.

In: a name as it was written, and a model directory that may be hostile. Out: the path of a regular file inside it, of
bounded size; or why there is none. Nothing here imports torch or transformers: whoever takes an order, on either side
of the process wall, checks it by the same rules.
"""

from __future__ import annotations

import stat
from collections.abc import Iterable
from pathlib import Path

from exporter.errors import InvalidCalibration

MOST_FILES = 20
MOST_BYTES = 4 << 20
"""Of one file; calibration reads some ten thousand tokens, which 100 KB hold."""
MOST_CHARACTERS = 200
"""Of a name."""
POINTER = b"version https://git-lfs.github.com/spec/"
"""What a Git LFS pointer begins with."""


def wrong(name: str) -> str | None:
    """Why a name can be no file's of a model directory; None where it can.

    A name is a relative path with forward slashes; it is compared as it is written, so it has one spelling only.
    """
    parts = name.split("/")
    if not name or len(name) > MOST_CHARACTERS:
        return f"a name has 1 to {MOST_CHARACTERS} characters"
    if not name.isprintable() or "\\" in name or name != name.strip():
        return "a name has printable characters and forward slashes only"
    if any(part in ("", ".", "..") for part in parts):
        return "a name is a path below the model's own folder, without '.', '..' or a slash at its ends"
    return None


def wrong_list(names: Iterable[str]) -> str | None:
    """Why names cannot be taken together, or one of them by itself; None where they can."""
    listed = list(names)
    if len(listed) > MOST_FILES:
        return f"{len(listed)} files are named; {MOST_FILES} are the most"
    for name in listed:
        if (reason := wrong(name)) is not None:
            return f"{_shown(name)!r}: {reason}"
        if listed.count(name) > 1:
            return f"{_shown(name)!r} is named twice"
    return None


def find(directory: Path, name: str) -> Path:
    """Where the file ``name`` of a model directory lies; its size is checked and its text is not read.

    Symbolic links are followed as far as they stay inside the directory; the layout of the Hugging Face cache
    (``snapshots/<revision>`` with links into ``blobs``) is taken too.

    Raises:
        InvalidCalibration: there is no such regular file inside the directory, or it is empty, larger than
            ``MOST_BYTES``, or the Git LFS pointer of a file that was not downloaded.
    """
    if (reason := wrong(name)) is not None:
        raise InvalidCalibration(f"The calibration text {_shown(name)!r} cannot be read: {reason}.")
    try:
        root = directory.resolve(strict=True)
        target = (root / name).resolve(strict=True)
        status = target.stat()
    except FileNotFoundError:
        raise InvalidCalibration(
            f"The calibration text {name} is not there: {directory.name} has no such file.",
            remedy="Name a file by its path from the folder of config.json, as the repository spells it.",
        ) from None
    except (OSError, RuntimeError, ValueError) as error:
        why = getattr(error, "strerror", None) or "its path cannot be followed"
        raise InvalidCalibration(f"The calibration text {name} cannot be read: {why}.") from None
    allowed = [root, *([root.parent.parent / "blobs"] if root.parent.name == "snapshots" else [])]
    if not any(target.is_relative_to(place) for place in allowed):
        raise InvalidCalibration(f"The calibration text {name} is a link that leads out of {directory.name}.")
    if not stat.S_ISREG(status.st_mode):
        raise InvalidCalibration(f"The calibration text {name} is no file.")
    check_size(name, status.st_size)
    try:
        with target.open("rb") as stream:
            head = stream.read(len(POINTER))
    except OSError as error:
        raise InvalidCalibration(f"The calibration text {name} cannot be read: {error.strerror}.") from None
    if head == POINTER:
        raise InvalidCalibration(
            f"The calibration text {name} is a Git LFS pointer: the text itself is not there.",
            remedy="Fetch it with `git lfs pull`, or keep the text in git itself: it is small.",
        )
    return target


def check_size(name: str, size_bytes: int) -> None:
    """Raises InvalidCalibration for a file that is empty or too large."""
    if size_bytes == 0:
        raise InvalidCalibration(f"The calibration text {name} is empty.")
    if size_bytes > MOST_BYTES:
        raise InvalidCalibration(
            f"The calibration text {name} has {size_bytes:,} bytes; at most {MOST_BYTES:,} are taken.",
            remedy="Name a part of it: calibration reads some ten thousand tokens, which 100 KB hold.",
        )


def _shown(name: str) -> str:
    return "".join(one if one.isprintable() else "?" for one in name[:MOST_CHARACTERS])
