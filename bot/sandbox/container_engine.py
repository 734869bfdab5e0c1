"""An engine's client: one that answers, errors in our words, and a removal that may come late.

Stage 3 of the way of one request, on the parent's side of the wall. In: an address. Out: a client of the docker SDK.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import docker
import requests
import urllib3
from docker.errors import APIError, DockerException, NotFound

from bot.errors import SandboxUnavailable

ENGINE_SECONDS = 60
"""An engine that does not answer for so long is gone."""
ENGINE_ERRORS = (DockerException, requests.RequestException, urllib3.exceptions.HTTPError)


class EngineClient(docker.DockerClient):
    """A client that closes behind a block."""

    def __enter__(self) -> EngineClient:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def connect(base_url: str | None) -> EngineClient:
    """The engine at ``base_url``, or where DOCKER_HOST and the usual socket point.

    Raises:
        SandboxUnavailable: none answers.
    """
    try:
        if base_url is not None:
            return EngineClient(base_url=base_url, version="auto", timeout=ENGINE_SECONDS)
        client: EngineClient = EngineClient.from_env(version="auto", timeout=ENGINE_SECONDS)
    except ENGINE_ERRORS:
        where = base_url or os.environ.get("DOCKER_HOST") or "/var/run/docker.sock"
        raise SandboxUnavailable(
            f"No Docker engine answers at {where}.", remedy="Start one, or give this user the right to use it."
        ) from None
    return client


@contextmanager
def engine_told() -> Iterator[None]:
    """What the engine refuses, and an engine that went away, become ``SandboxUnavailable``."""
    try:
        yield
    except ENGINE_ERRORS as error:
        reason = getattr(error, "explanation", None) or type(error).__name__
        text = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
        raise SandboxUnavailable(
            f"The Docker engine did not do what it was asked: {text[:500]}",
            remedy="Look at the engine's own log, and run the same again.",
        ) from None


def remove_container(container: Any) -> None:
    """Kill it and everything in it, and remove it; no error where it went by itself."""
    try:
        container.remove(force=True, v=True)
    except NotFound:
        return
    except APIError as error:
        if error.response is None or error.response.status_code != 409:  # its removal goes on already
            raise
