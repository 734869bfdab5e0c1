"""File commands: what a step leaves in the files that GITHUB_OUTPUT, GITHUB_ENV and others name."""

from __future__ import annotations

from pathlib import Path

MAX_SUMMARY_BYTES = 1024 * 1024
NAMES = {
    "GITHUB_ENV": "set_env",
    "GITHUB_OUTPUT": "set_output",
    "GITHUB_PATH": "add_path",
    "GITHUB_STATE": "save_state",
    "GITHUB_STEP_SUMMARY": "step_summary",
}
"""Variable -> how the file's name begins."""


class InvalidFile(Exception):
    """The runner cannot read the file, and fails the step."""


def pairs(text: str) -> dict[str, str]:
    """``name=value`` lines, and ``name<<DELIMITER`` with the value up to a line that is the delimiter alone.

    Raises:
        InvalidFile: as the runner would say it.
    """
    found: dict[str, str] = {}
    lines = iter(_lines(text))
    for line in lines:
        if not line:
            continue
        equals, heredoc = line.find("="), line.find("<<")
        if equals >= 0 and (heredoc < 0 or equals < heredoc):
            name, _, value = line.partition("=")
            if not name:
                raise InvalidFile(f"Invalid format '{line}'. Name must not be empty")
        elif heredoc >= 0:
            name, _, delimiter = line.partition("<<")
            if not name or not delimiter:
                raise InvalidFile(f"Invalid format '{line}'. Name must not be empty and delimiter must not be empty")
            value = _until(lines, delimiter)
        else:
            raise InvalidFile(f"Invalid format '{line}'")
        found[name] = value
    return found


def _until(lines: object, delimiter: str) -> str:
    value: list[str] = []
    for line in lines:  # type: ignore[attr-defined]
        if line == delimiter:
            return "\n".join(value)
        value.append(line)
    raise InvalidFile(f"Invalid value. Matching delimiter not found '{delimiter}'")


def _lines(text: str) -> list[str]:
    return text.replace("\r\n", "\n").removesuffix("\n").split("\n") if text else []


def paths(text: str) -> list[str]:
    """What is put before PATH, last line first."""
    return [line for line in reversed(_lines(text)) if line]


def summary(path: Path) -> str | None:
    """The step's summary, None where there is none.

    Raises:
        InvalidFile: it is larger than the runner uploads; nothing of it is shown then.
    """
    size = path.stat().st_size
    if size > MAX_SUMMARY_BYTES:
        raise InvalidFile(
            f"$GITHUB_STEP_SUMMARY upload aborted, supports content up to a size of 1024k, got {size // 1024}k."
        )
    return path.read_text(encoding="utf-8") if size else None
