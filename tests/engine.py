"""A Docker engine with the action's image in it, for tests; ``tools.engine`` and ``tools.image`` do the work.

``docker_engine()`` brings what is missing from Debian (CI starts with a bare machine), starts a daemon of its own
where none answers, builds the image from the checkout, and ends the daemon behind the block.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from tools import image
from tools.engine import Engine, engine

TAG = "ptebot:tests"


@dataclass(frozen=True, kw_only=True)
class DockerEngine(Engine):
    """An engine that has the image."""

    image: str
    seconds: dict[str, float] = field(default_factory=dict)
    """What the parts of making it took."""


@contextmanager
def docker_engine() -> Iterator[DockerEngine]:
    """The engine for the time of the block; the first time takes a minute or two, mostly the build."""
    with engine() as found:
        seconds = image.build(found, tag=TAG)
        yield DockerEngine(host=found.host, client=found.client, own=found.own, image=TAG, seconds=seconds)
