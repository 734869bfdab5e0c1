"""One event's payload as something that can be asked without trust: JSON of any shape in, checked values out. Pure.

Stage 1. A value of another shape than the wanted one counts as none; ``needed`` makes an error of that.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bot.errors import InvalidEvent
from bot.triggers.request import Origin

REPOSITORY = re.compile(r"(?!\.{1,2}/)[A-Za-z0-9._-]{1,100}/(?!\.{1,2}\Z)[A-Za-z0-9._-]{1,100}")
LOGIN = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_-]{0,99})(?:\[bot\])?")
SHA = re.compile(r"(?!0{40})[0-9a-f]{40}")
BRANCH = re.compile(r"(?!-)[^\x00-\x20\x7f~^:?*\[\\]{1,255}")
"""What git lets a branch or tag be called, about (git help check-ref-format)."""
MOST_NUMBER = 1 << 53


class Payload:
    """One event's payload, from which only values of the wanted shape come out."""

    def __init__(self, name: str, data: dict[str, Any], env: Mapping[str, str]) -> None:
        self.name, self.data, self.env = name, data, env

    def get(self, *path: str) -> Any:
        """What stands at the end of a path of keys; None where there is nothing."""
        found: Any = self.data
        for key in path:
            found = found.get(key) if isinstance(found, dict) else None
        return found

    def text(self, *path: str, shape: re.Pattern[str]) -> str | None:
        found = self.get(*path)
        return found if isinstance(found, str) and shape.fullmatch(found) else None

    def number(self, *path: str) -> int | None:
        found = self.get(*path)
        return found if isinstance(found, int) and not isinstance(found, bool) and 0 < found < MOST_NUMBER else None

    def needed(self, value: Any, *path: str) -> Any:
        """The value; raises InvalidEvent where there is none."""
        if value is None:
            raise InvalidEvent(f"The payload of {self.name} has no valid {'.'.join(path)}.")
        return value

    def origin(self, actor: str | None = None, **fields: Any) -> Origin:
        """Where the event came from."""
        ours = self.env.get("GITHUB_REPOSITORY", "")
        named = self.text("repository", "full_name", shape=REPOSITORY)
        repository = ours if REPOSITORY.fullmatch(ours) else self.needed(named, "repository", "full_name")
        by = self.env.get("GITHUB_ACTOR", "")
        actor = actor or self.text("sender", "login", shape=LOGIN) or (by if LOGIN.fullmatch(by) else "")
        branch = self.text("repository", "default_branch", shape=BRANCH)
        return Origin(event=self.name, repository=repository, actor=actor, default_branch=branch, **fields)

    def running(self, **fields: Any) -> Origin:
        """Where an event came from that has no commit of its own: the commit that the job runs on counts."""
        sha, ref = self.env.get("GITHUB_SHA", ""), self.env.get("GITHUB_REF", "")
        return self.origin(
            sha=sha if SHA.fullmatch(sha) else None, ref=ref if ref_of(ref) is not None else None, **fields
        )


def ref_of(ref: Any) -> tuple[str, str] | None:
    """Whether a full ref is a branch or a tag, and its short name; None where it is neither."""
    for kind, prefix in (("branch", "refs/heads/"), ("tag", "refs/tags/")):
        if isinstance(ref, str) and ref.startswith(prefix) and BRANCH.fullmatch(short := ref[len(prefix) :]):
            return kind, short
    return None
