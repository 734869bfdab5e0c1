"""An ASGI application on a real port, and plain requests to it."""

from __future__ import annotations

import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvicorn


@dataclass
class Reply:
    status: int
    headers: dict[str, str]
    text: str


@dataclass
class Served:
    """A running application."""

    url: str
    sent: list[str] = field(default_factory=list)

    def get(self, path: str, headers: dict[str, str] | None = None, data: bytes | None = None) -> Reply:
        request = urllib.request.Request(f"{self.url}{path}", headers=headers or {}, data=data)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return _reply(response)
        except urllib.error.HTTPError as error:
            return _reply(error)


def _reply(response: Any) -> Reply:
    headers = {name.lower(): value for name, value in response.headers.items()}
    return Reply(response.status, headers, response.read().decode())


@contextmanager
def serving(app: Any) -> Iterator[Served]:
    """Serve for the time of the block, as ``ptebot serve`` does."""
    listener = socket.create_server(("127.0.0.1", 0))
    config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="off")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]}, daemon=True)
    thread.start()
    try:
        yield Served(f"http://127.0.0.1:{listener.getsockname()[1]}")
    finally:
        server.should_exit = True
        thread.join()
        listener.close()
