"""Large files on disk, by sha256 and per repository, and the signed addresses under which they travel.

A file enters only whole and checked: it is staged beside the store, hashed, and renamed into place. Each
repository has its own store, so knowing a hash gives nobody another repository's content.
"""

from __future__ import annotations

import hashlib
import hmac
import os
import re
import time
from pathlib import Path

from bot.localhub.database import Database, new_id
from bot.localhub.errors import HubError, bad_request, forbidden
from bot.localhub.repos import Repo

SHA256 = re.compile(r"[0-9a-f]{64}")
SIGNED_FOR = 24 * 3600
CHUNK = 1 << 20


def check_sha256(value: object) -> str:
    """A sha256 in lower-case hex.

    Raises:
        HubError: 400.
    """
    if not isinstance(value, str) or not SHA256.fullmatch(value):
        raise bad_request("oid must be a sha256 of 64 hexadecimal digits")
    return value


def file_sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


class ObjectStore:
    """The large files of one repository."""

    def __init__(self, database: Database, repo: Repo) -> None:
        self._db = database
        self._repo = repo
        self._root = repo.directory / "lfs"

    def path(self, sha256: str) -> Path:
        return self._root / sha256[:2] / sha256[2:]

    def size(self, sha256: str) -> int | None:
        """The stored file's size in bytes, or None when it is not here."""
        row = self._db.row("SELECT size FROM objects WHERE repo_id = ? AND sha256 = ?", self._repo.id, sha256)
        return int(row["size"]) if row else None

    def xet_hashes(self) -> dict[str, str]:
        """sha256 -> Xet hash of every file that the repository's Xet pool holds."""
        rows = self._db.rows(
            "SELECT sha256, xet_hash FROM objects WHERE repo_id = ? AND xet_hash IS NOT NULL", self._repo.id
        )
        return {row["sha256"]: row["xet_hash"] for row in rows}

    def staging(self) -> Path:
        """A fresh path for a file on its way in; it is removed at the next start if nobody finishes it."""
        directory = self._repo.directory / "incoming"
        directory.mkdir(exist_ok=True)
        return directory / new_id()

    def adopt(self, staged: Path, sha256: str, size: int, *, actual: str | None = None) -> None:
        """Check a staged file and move it into the store (``actual``: its sha256 when known already).

        Raises:
            HubError: 422, size or hash differs from what was announced; the staged file is gone then.
        """
        found = staged.stat().st_size
        if found != size or (actual or file_sha256(staged)) != sha256:
            staged.unlink()
            raise HubError(422, f"The uploaded content is not the announced object {sha256} of {size} bytes")
        target = self.path(sha256)
        target.parent.mkdir(parents=True, exist_ok=True)
        staged.replace(target)
        self._db.run(
            "INSERT INTO objects (repo_id, sha256, size) VALUES (?, ?, ?) ON CONFLICT DO NOTHING",
            self._repo.id, sha256, size,
        )  # fmt: skip

    def set_xet_hash(self, sha256: str, xet_hash: str) -> None:
        self._db.run(
            "UPDATE objects SET xet_hash = ? WHERE repo_id = ? AND sha256 = ?", xet_hash, self._repo.id, sha256
        )

    def copy_to(self, other: ObjectStore, sha256: str) -> None:
        """Give another repository this one's file (a hard link)."""
        size = self.size(sha256)
        if size is None:
            raise bad_request(f"No large file {sha256} here")
        if other.size(sha256) is None:
            staged = other.staging()
            os.link(self.path(sha256), staged)
            other.adopt(staged, sha256, size, actual=sha256)


def sign(key: bytes, *parts: str | int) -> str:
    """A query string that lets whoever holds it do exactly what ``parts`` say, for a day."""
    expires = int(time.time()) + SIGNED_FOR
    return f"expires={expires}&signature={_mac(key, expires, parts)}"


def check_signature(key: bytes, expires: str, signature: str, *parts: str | int) -> None:
    """Raises:
    HubError: 403, the address was changed, or is too old.
    """
    valid = expires.isascii() and expires.isdigit() and len(expires) < 12
    if not valid or not hmac.compare_digest(signature.encode(), _mac(key, int(expires), parts).encode()):
        raise forbidden("This upload address is not valid")
    if int(expires) < time.time():
        raise forbidden("This upload address has expired")


def _mac(key: bytes, expires: int, parts: tuple[str | int, ...]) -> str:
    return hmac.new(key, "\n".join(map(str, (expires, *parts))).encode(), hashlib.sha256).hexdigest()
