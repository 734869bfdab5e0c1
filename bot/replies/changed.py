"""Which paths an event touched, asked of GitHub where the event does not tell, as in a runner's file. Stage 2.

Only to leave out work that nobody needs: where it cannot be told, the answer is that it is not known, and everything
counts as touched.
"""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from bot.errors import CommitConflict
from bot.githubapi import Client, asking
from bot.triggers.github import MOST_FILES
from bot.triggers.request import Origin
from exporter.errors import PtebotError

MOST_LISTED = 300
"""Files of one comparison, which GitHub lists no more of; of a pull request it lists ``MOST_FILES``."""


def changed_files(client: Client, origin: Origin) -> tuple[str, ...] | None:
    """Every path that a push or a pull request added, changed, renamed or removed; None where that is not known."""
    try:
        if origin.is_pull_request and origin.number is not None:
            return _of_a_pull_request(client, origin, origin.number)
        if origin.before is None or origin.sha is None:
            return None
        return _between(client, origin, origin.before, origin.sha)
    except (PtebotError, CommitConflict):
        return None


def _between(client: Client, origin: Origin, before: str, after: str) -> tuple[str, ...] | None:
    """A comparison of two commits; of commits that do not follow each other it does not say what the first had."""
    path = f"/repos/{origin.repository}/compare/{quote(before)}...{quote(after)}"
    with asking(f"comparing commits of {origin.repository}", client, needs="contents: read"):
        answer = client.call("GET", path, query={"per_page": 1})
    if not isinstance(answer, dict) or answer.get("status") not in ("ahead", "identical"):
        return None
    return _names(answer.get("files"), MOST_LISTED)


def _of_a_pull_request(client: Client, origin: Origin, number: int) -> tuple[str, ...] | None:
    listed: list[Any] = []
    with asking(f"listing the files of pull request {number}", client, needs="pull-requests: read"):
        while len(listed) < MOST_FILES:
            query = {"per_page": 100, "page": len(listed) // 100 + 1}
            page = client.call("GET", f"/repos/{origin.repository}/pulls/{number}/files", query=query)
            if not isinstance(page, list):
                return None
            listed += page
            if len(page) < 100:
                break
    return _names(listed, MOST_FILES)


def _names(files: Any, most: int) -> tuple[str, ...] | None:
    """Paths, old names of renamed ones included; None where the list may have been cut or is none."""
    if not isinstance(files, list) or len(files) >= most:
        return None
    found: set[str] = set()
    for one in files:
        if not isinstance(one, dict) or not isinstance(one.get("filename"), str):
            return None
        found.add(one["filename"])
        if isinstance(old := one.get("previous_filename"), str):
            found.add(old)
    return tuple(sorted(found))
