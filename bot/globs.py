"""Patterns of paths, as ``paths`` and ``branches`` of the configuration have them. Pure; stage 1.

``*`` and ``?`` stay within one part of a path, ``**`` stands for any number of parts, ``[ab]`` for one of several
characters, a leading ``!`` takes out again what an earlier pattern took in. Nothing here can be made slow: parts are
matched one by one, in time that grows with their number alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from fnmatch import fnmatchcase


def selected(path: str, patterns: Sequence[str]) -> bool:
    """Whether a path is taken: the last pattern that fits it decides."""
    taken = False
    for pattern in patterns:
        if fits(path, pattern.removeprefix("!")):
            taken = not pattern.startswith("!")
    return taken


def any_selected(paths: Iterable[str], patterns: Sequence[str]) -> bool:
    """Whether one of the paths is taken."""
    return any(selected(path, patterns) for path in paths)


def fits(path: str, pattern: str) -> bool:
    """Whether a pattern stands for a path; one that ends in ``/`` stands for all below."""
    pattern = pattern.removeprefix("./")
    wanted = (f"{pattern}**" if pattern.endswith("/") else pattern).split("/")
    # After each part of the path: how many parts of the pattern can have been used up.
    reached = _skipping({0}, wanted)
    for part in path.split("/"):
        after = {at for at in reached if at < len(wanted) and wanted[at] == "**"}
        after |= {at + 1 for at in reached if at < len(wanted) and wanted[at] != "**" and fnmatchcase(part, wanted[at])}
        reached = _skipping(after, wanted)
        if not reached:
            return False
    return len(wanted) in reached


def _skipping(at: set[int], wanted: list[str]) -> set[int]:
    """``**`` may stand for nothing."""
    found = set(at)
    for place in sorted(at):
        while place < len(wanted) and wanted[place] == "**":
            place += 1  # noqa: PLW2901 - a run of them is skipped whole
            found.add(place)
    return found
