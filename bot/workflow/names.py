"""What the queue and the engine call things, and where both find the database."""

from __future__ import annotations

from bot.server.store import Store

QUEUE = "exports"
WORKFLOW = "export"
APPLICATION = "ptebot"
VERSION = "1"
"""Of the workflow in ``engine``: jobs that an older ptebot began go on under it. Only a change of the order or the
meaning of steps raises it; then jobs of the old one are begun anew."""
MOST_RECOVERIES = 20
"""A job whose process dies so often is not tried again: it is the reason, most likely."""


def workflow_id(job_id: str, attempt: int) -> str:
    """The workflow of one attempt of a job."""
    return f"{job_id}-{attempt}"


def database(store: Store) -> str:
    """The address of the store's database, for the engine."""
    return store.engine.url.render_as_string(hide_password=False)
