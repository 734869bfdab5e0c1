"""The rung ``docker``: exports in containers of an engine on this machine, which sees its folders by their own names.

Stage 3 of the way of one request, on the parent's side of the wall. In: an image and an engine. Out: an executor, or
why this machine has none. ``bot.sandbox.containers`` does the work.
"""

from __future__ import annotations

from pathlib import Path

from bot.errors import SandboxUnavailable
from bot.sandbox import run_folder
from bot.sandbox.container_engine import EngineClient, connect, engine_told
from bot.sandbox.container_place import own_container, strange_users
from bot.sandbox.containers import ContainerExecutor


class DockerExecutor(ContainerExecutor):
    """Implements ``bot.sandbox.call.Executor``."""

    rung = "docker"

    @classmethod
    def available(cls, image: str, *, base_url: str | None = None, folder: Path | None = None) -> str | None:
        """Why exports cannot run so here; None: they can. An image that is named by digest is pulled if need be."""
        try:
            with connect(base_url) as client, engine_told():
                if (reason := strange_users(client)) is not None:
                    return reason
                if own_container(client) is not None:
                    return "ptebot itself runs in a container of this Docker engine (rung sibling)."
                cls(image, base_url=base_url, folder=folder).image_id(client)
        except SandboxUnavailable as error:
            return error.what
        return None

    def base(self, client: EngineClient, output: Path | None) -> Path:
        return self._folder or run_folder.near(output)

    def on_host(self, client: EngineClient, path: Path) -> Path:
        return path.resolve()
