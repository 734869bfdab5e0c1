"""Whether an export gives the same files again: two reports in, differences in words out. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from exporter.report import Cell, Report, SourceFile


@dataclass(frozen=True, kw_only=True)
class Differences:
    """What differs between a manifest and its rebuild, each a line of text."""

    inputs: list[str] = field(default_factory=list)
    versions: list[str] = field(default_factory=list)
    """Versions alone do not spoil a match: files that are the same are the same."""
    files: list[str] = field(default_factory=list)

    @property
    def match(self) -> bool:
        return not self.inputs and not self.files


def inputs(then: list[SourceFile], now: Mapping[str, str | None]) -> list[str]:
    """Model files that are not what they were; ``now`` gives the SHA-256 of each, None for one that is missing."""
    found = []
    for file in then:
        sha256 = now.get(file.path)
        if sha256 is None:
            found.append(f"input {file.path}: it is missing; it was {_short(file.sha256)}")
        elif sha256 != file.sha256:
            found.append(f"input {file.path}: it was {_short(file.sha256)}, it is {_short(sha256)}")
    return found


def versions(then: Mapping[str, str], now: Mapping[str, str]) -> list[str]:
    """Packages whose version is another one."""
    return [
        f"version of {name}: it was {then.get(name, 'not there')}, it is {now.get(name, 'not there')}"
        for name in sorted({*then, *now})
        if then.get(name) != now.get(name)
    ]


def files(then: Report, now: Report) -> list[str]:
    """Files of the manifest that did not come out with the same bytes."""
    made = {(cell.backend, cell.precision): cell for cell in now.cells}
    found = []
    for cell in then.good_cells:
        again = made.get((cell.backend, cell.precision))
        line = _file(cell, again)
        if line:
            found.append(f"file {cell.file}: {line}")
    return found


def _file(cell: Cell, again: Cell | None) -> str | None:
    if again is None:
        return "it was not made"
    if again.sha256 is None:
        return f"it is {again.status.value}: {again.reason or 'no reason given'}"
    if again.sha256 != cell.sha256:
        return (
            f"it was {_short(cell.sha256)} ({cell.size_bytes:,} bytes), "
            f"it is {_short(again.sha256)} ({again.size_bytes:,} bytes)"
        )
    return None if again.status.good else f"it has the same bytes and is {again.status.value}: {again.reason}"


def _short(sha256: str | None) -> str:
    return f"sha256 {sha256[:12]}" if sha256 else "not there"
