"""The rung ``docker``: exports in containers of an engine on this machine, which sees its folders by their own names.

Stage 3 of the way of one request, on the parent's side of the wall. In: an image and an engine. Out: an executor, or
why this machine has none. ``bot.sandbox.containers`` does the work.
"""

from __future__ import annotations

from pathlib import Path

from bot.sandbox import run_folder
from bot.sandbox.container_engine import EngineClient
from bot.sandbox.container_place import own_container
from bot.sandbox.containers import ContainerExecutor


class DockerExecutor(ContainerExecutor):
    """Implements ``bot.sandbox.call.Executor``."""

    rung = "docker"

    @classmethod
    def misplaced(cls, client: EngineClient) -> str | None:
        if own_container(client) is not None:
            return "ptebot itself runs in a container of this Docker engine (rung sibling)."
        return None

    def base(self, client: EngineClient, output: Path | None) -> Path:
        return self._folder or run_folder.near(output)

    def on_host(self, client: EngineClient, path: Path) -> Path:
        return path.resolve()
