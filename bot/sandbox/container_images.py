"""The image that exports run in: which one exactly, and whether the code in it is this very ptebot's.

Stage 3 of the way of one request, on the parent's side of the wall. In: a name by digest, an id, or the tag of an
image that is here already. Out: an id that means the same bytes for good. Only a digest is ever pulled: what a tag
brings, whoever can push it decides.
"""

from __future__ import annotations

import json
import re
from typing import Any

from docker.errors import ImageNotFound

from bot.errors import SandboxUnavailable
from exporter import __version__

PYTHON = "/opt/ptebot/bin/python"
"""In every image made by our Dockerfile."""
VERSION_LABEL = "org.opencontainers.image.version"
UNLABELLED = ("", "0")
"""What the label says of an image that was built without a version."""
START_SECONDS = 60.0
_DIGEST = re.compile(r"[^\s@]+@sha256:[0-9a-f]{64}")
_ID = re.compile(r"sha256:[0-9a-f]{64}")


def resolve(client: Any, image: str) -> str:
    """The image's id; one that is absent is pulled where it is named by digest.

    Raises:
        SandboxUnavailable: there is none, a pull was refused, or it is labelled as another version's.
    """
    try:
        found = client.images.get(image)
    except ImageNotFound:
        if not _DIGEST.fullmatch(image):
            remedy = "Name it by digest (name@sha256:...), so that it is pulled."
            if _ID.fullmatch(image):
                remedy = "Load it into this engine, or name it by digest (name@sha256:...), so that it is pulled."
            raise SandboxUnavailable(
                f"The image {image} is not here, and only a digest is pulled.", remedy=remedy
            ) from None
        found = client.images.pull(image)
    labelled = (found.labels or {}).get(VERSION_LABEL, "")
    if labelled not in UNLABELLED and labelled.removeprefix("v") != __version__:
        _other_version(image, labelled)
    return str(found.id)


def said(client: Any, options: dict[str, Any]) -> dict[str, Any]:
    """Run a container that prints one JSON object and ends; the object, or {} where it printed something else.

    Raises: what the engine's client raises.
    """
    container = client.containers.create(**options)
    try:
        container.start()
        container.wait(timeout=START_SECONDS)
        text = container.logs(stdout=True, stderr=False, tail=1)
    finally:
        container.remove(force=True, v=True)
    try:
        data = json.loads(text)
    except ValueError:
        return {}
    return data if isinstance(data, dict) else {}


def check(image: str, about: dict[str, Any], token: str, *, user: int) -> None:
    """Hold what an image said of itself (``bot.sandbox.inside --about``) against what is promised.

    Raises:
        SandboxUnavailable: it is no image of ours, of another version, or the wall has a hole.
    """
    if "version" not in about:
        raise SandboxUnavailable(
            f"The image {image} cannot start an export.", remedy=f"Name the image of ptebot {__version__}."
        )
    if about["version"] != __version__:
        _other_version(image, str(about["version"]))
    if about.get("found") != token:
        raise SandboxUnavailable(
            "The Docker engine does not see the folders of this process.",
            remedy="Run ptebot beside the engine, and give it a folder (TMPDIR) that both see under one name.",
        )
    if about.get("network") is not False or about.get("user") != user:
        raise SandboxUnavailable("A container of this engine has a network, or another user than it was given.")


def _other_version(image: str, version: str) -> None:
    raise SandboxUnavailable(
        f"The image {image} has ptebot {version[:40]!r}; this is {__version__}.",
        remedy="Use the image of the same release.",
    )
