"""A local Hub with Jobs and buckets."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bot.localhub.testing import RunningHub, running_hub
from tests.localjobs.server import LocalJobs


@contextmanager
def hub_with_jobs() -> Iterator[tuple[RunningHub, LocalJobs]]:
    """The Hub, and what runs its Jobs."""
    made: list[LocalJobs] = []

    with tempfile.TemporaryDirectory(prefix="localjobs-") as folder:

        def make(hub: object) -> LocalJobs:
            made.append(LocalJobs(hub, Path(folder)))  # type: ignore[arg-type]
            return made[0]

        with running_hub(jobs=make) as hub:
            made[0].endpoint = hub.endpoint
            try:
                yield hub, made[0]
            finally:
                made[0].close()
