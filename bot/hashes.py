"""The two hashes by which a Hub names a file's content: git's blob id and, for large files, SHA-256. Pure."""

from __future__ import annotations

import hashlib
from pathlib import Path

_CHUNK = 1 << 20


def git_oid(data: bytes) -> str:
    """The git blob id of ``data``: SHA-1 by git's definition, not a matter of security here."""
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest()


def git_oid_of(path: Path) -> str:
    """The git blob id of a file; raises OSError."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def sha256_of(path: Path) -> str:
    """The SHA-256 of a file in hexadecimal; raises OSError."""
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()
