"""What uploads to GitHub's storages have in common: a session, a body that is read as it is sent, a reply's words."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from typing import BinaryIO

import requests

TIMEOUT_SECONDS = (15, 120)
"""To connect, and between two pieces of a reply."""
_CHUNK = 1 << 20

Sent = Callable[[int], None]
"""Told how many bytes of one file were sent."""


def session() -> requests.Session:
    """One that sends what it is given and nothing else: no login from a .netrc."""
    made = requests.Session()
    made.auth = lambda request: request
    return made


class Body:
    """A file as a request's body of known length, hashed as it goes. Not kept in memory."""

    def __init__(self, stream: BinaryIO, size_bytes: int, sent: Sent) -> None:
        self._stream, self._size, self._sent = stream, size_bytes, sent
        self._digest = hashlib.sha256()

    def __len__(self) -> int:
        return self._size

    def __iter__(self) -> Iterator[bytes]:
        done = 0
        while piece := self._stream.read(_CHUNK):
            self._digest.update(piece)
            yield piece
            done += len(piece)
            self._sent(done)

    @property
    def sha256(self) -> str:
        """Of what was sent."""
        return self._digest.hexdigest()


def words(reply: requests.Response) -> str:
    """What a reply says, in at most some hundred characters on one line."""
    try:
        said = reply.json()["message"]
    except (ValueError, KeyError, TypeError):
        said = reply.text[:400] or reply.reason or "no reason given"
    return " ".join(str(said).split())[:400]


def headers(reply: requests.Response) -> dict[str, str]:
    """By lower-case name."""
    return {name.lower(): value for name, value in reply.headers.items()}
