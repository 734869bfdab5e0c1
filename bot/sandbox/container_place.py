"""Where ptebot stands towards a Docker engine: beside it, or in one of its containers.

Stage 3 of the way of one request, on the parent's side of the wall. In: an engine's client, and what the kernel says
of this process. Out: our own container, if there is one; and whether users in the engine's containers have other
numbers on the machine than inside, so that nobody could take what an export writes.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from docker.errors import NotFound

_ID = re.compile(r"/containers/([0-9a-f]{64})/|/(?:docker[-/]|libpod-)([0-9a-f]{64})(?:\.scope)?(?:/|$)", re.MULTILINE)
_SAID_BY = ("/proc/self/mountinfo", "/proc/self/cgroup")
"""Docker mounts a container's hostname file from a folder that has its id; older kernels name it in the cgroup."""


def own_container(client: Any, said_by: tuple[str, ...] = _SAID_BY) -> Any | None:
    """The container of this engine that this process runs in; None: in none of its.

    Raises: what the engine's client raises.
    """
    for found in _ids(said_by):
        try:
            return client.containers.get(found)
        except NotFound:
            continue
    return None


def _ids(said_by: tuple[str, ...]) -> list[str]:
    found: dict[str, None] = {}
    for name in said_by:
        try:
            text = Path(name).read_text(encoding="utf-8", errors="replace")
        except OSError:
            continue
        for match in _ID.finditer(text):
            # Only what the engine mounted for this container itself: others' folders may be mounted into it, too.
            if "cgroup" in name or _is_own(text, match):
                found[match[1] or match[2]] = None
    return list(found)


def _is_own(text: str, match: re.Match[str]) -> bool:
    line = text[text.rfind("\n", 0, match.start()) + 1 : text.find("\n", match.end())]
    fields = line.split(" ")
    return len(fields) > 4 and fields[4] in ("/etc/hostname", "/etc/hosts", "/etc/resolv.conf")


def strange_users(client: Any) -> str | None:
    """Why the engine's users are not those of this machine; None: they are."""
    about = client.info()
    if about.get("OSType", "linux") != "linux":
        return "The Docker engine runs no containers of Linux."
    options = " ".join(about.get("SecurityOptions") or [])
    if "name=rootless" in options or "name=userns" in options:
        return "The Docker engine gives its containers other users' numbers (rootless or userns-remap)."
    return None
