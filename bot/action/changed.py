"""Which paths a push or a pull request touched: the API's answer, where the event of a job does not say. Stage 2.

A runner's event lists commits without their files. That nobody can say is no failure: everything counts as touched
then, and an export of what did not change ends as ``unchanged``.
"""

from __future__ import annotations

from itertools import islice

from bot.action.commands import Log
from bot.errors import CommitConflict
from bot.githubapi import Client, asking
from bot.triggers.request import Origin
from exporter.errors import PtebotError

MOST_FILES = 300
"""GitHub lists no more of them in one comparison (docs.github.com, "Compare two commits")."""


def changed_files(client: Client, origin: Origin, log: Log) -> tuple[str, ...] | None:
    """Every path that differs between the two ends of an event; None where that is not known."""
    if origin.before is None or origin.sha is None or set(origin.before) == {"0"}:
        return None
    try:
        with asking(f"comparing two commits of {origin.repository}", client, needs="contents: read"):
            compared = client.gh.get_repo(origin.repository, lazy=True).compare(origin.before, origin.sha)
            files = list(islice(compared.files, MOST_FILES))
    except (PtebotError, CommitConflict) as error:
        log.detail(f"Which files changed is not known, so every model counts as touched: {error}")
        return None
    if len(files) >= MOST_FILES or compared.status == "diverged":
        return None  # a branch that was moved: what it lost again is not in the list
    return tuple(sorted({name for file in files for name in (file.filename, file.previous_filename) if name}))
