"""The model directory as files: what is there, whether it may be read, what it hashes to.

Goes in: a path that may hold anything. Comes out: names of regular files inside it, decoded JSON of bounded
size, and ``SourceFile`` records; or a typed refusal. Stage 3 of the way of one request.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
from pathlib import Path
from typing import Any

from exporter.errors import InvalidModelDirectory
from exporter.guard import shown
from exporter.report import SourceFile

CHUNK = 1 << 20
"""Bytes read at a time while hashing."""
LARGEST_JSON = 16 << 20
"""Bytes of config.json and its like; real ones have a few thousand."""
_MOST_FILES = 10_000


def files_of(directory: Path) -> dict[str, Path]:
    """The regular files at the top of a model directory, by name.

    Subdirectories are not entered, and devices, pipes and sockets are left out. A symbolic link must stay inside
    the directory; the layout of the Hugging Face cache (``snapshots/<revision>`` with links into ``blobs``) is
    taken too, because a repository has no say in it.

    Raises:
        InvalidModelDirectory: not a directory, empty, unreadable, or a link leads out of it.
    """
    try:
        root = directory.resolve(strict=True)
        if not root.is_dir():
            raise InvalidModelDirectory(f"{directory} is a file, not a model directory.")
        names = sorted(path.name for path in root.iterdir())
    except (OSError, RuntimeError, ValueError) as error:
        raise InvalidModelDirectory(f"{directory} cannot be read: {_reason(error)}.") from None
    if not names:
        raise InvalidModelDirectory(f"{directory} is empty.")
    if len(names) > _MOST_FILES:
        raise InvalidModelDirectory(f"{directory} has {len(names)} entries; a model has fewer than {_MOST_FILES}.")
    allowed = [root]
    if root.parent.name == "snapshots":
        allowed.append(root.parent.parent / "blobs")
    found = {}
    for name in names:
        path = root / name
        try:
            target = path.resolve(strict=True)
            mode = target.stat().st_mode
        except (OSError, RuntimeError) as error:
            raise InvalidModelDirectory(f"{directory}: {shown(name)} cannot be read: {_reason(error)}.") from None
        if path.is_symlink() and not any(target.is_relative_to(place) for place in allowed):
            raise InvalidModelDirectory(f"{directory}: {shown(name)} is a symbolic link that leads out of it.")
        if stat.S_ISREG(mode):
            found[name] = path
    return found


def read_json(path: Path, largest: int = LARGEST_JSON) -> dict[str, Any]:
    """A JSON object from a file of bounded size.

    Raises:
        InvalidModelDirectory: unreadable, too large, not UTF-8, not JSON, or not an object.
    """
    try:
        with path.open("rb") as stream:
            data = stream.read(largest + 1)
    except OSError as error:
        raise InvalidModelDirectory(f"{path.name} cannot be read: {_reason(error)}.") from None
    if len(data) > largest:
        raise InvalidModelDirectory(f"{path.name} is larger than {largest >> 20} MiB.")
    try:
        value = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise InvalidModelDirectory(f"{path.name} is not JSON: {shown(error, 120)}.") from None
    if not isinstance(value, dict):
        raise InvalidModelDirectory(f"{path.name} holds {type(value).__name__}, not a JSON object.")
    return value


def fingerprint(path: Path) -> SourceFile:
    """A file's size, SHA-256 and git blob id, in one pass over its bytes.

    Raises:
        InvalidModelDirectory: it cannot be read, or changes while it is read.
    """
    sha256 = hashlib.sha256()
    try:
        with path.open("rb") as stream:
            size = os.fstat(stream.fileno()).st_size
            # Git's object ids are SHA-1 by definition; nothing here relies on them for security.
            blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
            read = 0
            while chunk := stream.read(CHUNK):
                sha256.update(chunk)
                blob.update(chunk)
                read += len(chunk)
    except OSError as error:
        raise InvalidModelDirectory(f"{path.name} cannot be read: {_reason(error)}.") from None
    if read != size:
        raise InvalidModelDirectory(f"{path.name} changed while it was read.")
    return SourceFile(path=path.name, size_bytes=size, sha256=sha256.hexdigest(), git_oid=blob.hexdigest())


def _reason(error: Exception) -> str:
    return getattr(error, "strerror", None) or shown(error, 120)
