"""The rung ``sibling``: ptebot runs in a container, and exports run beside it, through the engine's mounted socket.

Stage 3 of the way of one request, on the parent's side of the wall. In: an image and the socket. Out: an executor, or
why this machine has none. The engine knows other names for our folders: those that are mounted into our container
(volumes, folders of the host) it can mount into another one, too, and it tells itself what they are called there. So
nothing is packed, sent or unpacked; what an export writes is looked at as on the rung ``docker``.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bot.errors import SandboxUnavailable
from bot.sandbox.container_engine import EngineClient
from bot.sandbox.container_place import own_container
from bot.sandbox.containers import ContainerExecutor

REMEDY = "Mount a volume or a folder of the host into ptebot's container, and put PTEBOT_DATA into it."


@dataclass(frozen=True, kw_only=True)
class Shared:
    """A folder that is mounted into our container."""

    here: Path
    there: Path
    """On the engine's machine."""


class SiblingExecutor(ContainerExecutor):
    """Implements ``bot.sandbox.call.Executor``."""

    rung = "sibling"

    @classmethod
    def misplaced(cls, client: EngineClient) -> str | None:
        if own_container(client) is None:
            return "ptebot runs in no container of the Docker engine that answers."
        return None

    def base(self, client: EngineClient, output: Path | None) -> Path:
        found = shared(client)
        if self._folder:
            wanted = [self._folder]
        else:
            wanted = [path for path in (output, Path(tempfile.gettempdir())) if path] + [one.here for one in found]
        for path in wanted:
            place = _topmost(found, path.resolve())
            if place is not None:
                return self._folder or place
        raise SandboxUnavailable("The Docker engine cannot reach the folders of this container.", remedy=REMEDY)

    def on_host(self, client: EngineClient, path: Path) -> Path:
        over = _over(shared(client), path.resolve())
        if over is None:
            raise SandboxUnavailable(f"{path} is in no folder that this container shares.", remedy=REMEDY)
        return over.there / path.resolve().relative_to(over.here)


def shared(client: Any) -> list[Shared]:
    """What is mounted into our own container and can be written, the deepest first."""
    own = own_container(client)
    mounts = [] if own is None else own.attrs.get("Mounts", [])
    found = [
        Shared(here=Path(mount["Destination"]).resolve(), there=Path(mount["Source"]))
        for mount in mounts
        if mount.get("Type") in ("bind", "volume") and mount.get("RW") and mount.get("Source")
    ]
    return sorted((one for one in found if one.here.is_dir()), key=lambda one: len(one.here.parts), reverse=True)


def _over(found: list[Shared], path: Path) -> Shared | None:
    return next((one for one in found if path.is_relative_to(one.here)), None)


def _topmost(found: list[Shared], path: Path) -> Path | None:
    """The folder nearest to the mount over ``path`` that can be written: later processes come to the same."""
    over = _over(found, path)
    if over is None:
        return None
    ways = [way for way in (*reversed(path.parents), path) if way.is_relative_to(over.here)]
    return next((way for way in ways if way.is_dir() and os.access(way, os.W_OK)), None)
