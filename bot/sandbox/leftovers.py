"""Containers and folders that nobody will come back for.

Beside stage 3 of the way of one request: a worker that was killed leaves its container running, so that the next one
finds it by its name; a run that nobody asks for again stays. In: an age. Out: what was removed.
"""

from __future__ import annotations

import time
from datetime import datetime
from pathlib import Path
from typing import Any

from bot.sandbox import run_folder
from bot.sandbox.container_engine import connect, engine_told, remove_container
from bot.sandbox.containers import FOLDER_LABEL, LABEL, SECONDS_LABEL
from bot.sandbox.run_folder import Held, RunFolder
from bot.sandbox.sibling import shared

A_DAY = 86400.0


def sweep_leftovers(
    older_than: float = A_DAY, *, base_url: str | None = None, folders: tuple[Path, ...] = ()
) -> list[str]:
    """Remove containers of ours that no living process holds and that are older than so many seconds.

    A container whose folder is not to be seen here may be that of a ptebot in another container: while it runs, it
    is left alone for as long as its own time limit lasts, too.

    Args:
        older_than: seconds since it was created.
        base_url: of the engine; None: DOCKER_HOST, or the usual socket.
        folders: where runs' folders are made besides the usual places for temporary files, and what is mounted here.

    Returns:
        Names of the containers.

    Raises:
        SandboxUnavailable: no engine answers, or it refuses.
    """
    gone = []
    kept: set[Path] = set()
    with connect(base_url) as client, engine_told():
        mounted = [one.here for one in shared(client)]
        for container in client.containers.list(all=True, filters={"label": LABEL}, ignore_removed=True):
            path = Path(container.labels.get(FOLDER_LABEL, "/"))
            kept.add(path)
            if _age(container) <= older_than:
                continue
            try:
                folder = RunFolder.find(path)
            except Held:
                continue
            if folder is None and container.status == "running" and _age(container) <= older_than + _allowed(container):
                continue
            remove_container(container)
            gone.append(str(container.name))
            if folder is not None:
                folder.remove()
    for base in {run_folder.near(None), *mounted, *folders}:
        run_folder.sweep(base, older_than, but=kept)
    return gone


def _age(container: Any) -> float:
    return time.time() - datetime.fromisoformat(container.attrs["Created"]).timestamp()


def _allowed(container: Any) -> float:
    text = container.labels.get(SECONDS_LABEL, "")
    seconds = float(text) if text.isdecimal() else 0.0
    return seconds or 7 * A_DAY
