"""Xet storage: hands the client a directory to write to or read from, and takes in what it wrote.

hf_xet keeps a whole content-addressed store in a plain directory when the server's ``casUrl`` is
``local:///directory``. Two facts shape this module (hf_xet 1.8):

- Only one process can have such a directory open, for as long as its session lives. So every token gets a
  directory of its own: a clone of the repository's pool, made of hard links (xorbs and shards are never
  changed, only added) and a copy of the small index file.
- The server learns which sha256 is which Xet hash from the shards (``*.mdb``) alone.

At commit, the named files are rebuilt from the clone into the object store, their sha256 is checked, and
the clone becomes the new pool. When another commit changed the pool in the meantime, the files are
uploaded into a clone of the newer pool instead, so that none of either side is lost.
"""

from __future__ import annotations

import os
import shutil
import struct
import time
from collections.abc import Iterator
from pathlib import Path

from starlette.responses import Response

from bot.localhub.context import Call, reply
from bot.localhub.database import Database, new_id
from bot.localhub.errors import HubError, forbidden
from bot.localhub.objects import ObjectStore
from bot.localhub.repos import Repo

WRITE_FOR = 24 * 3600
READ_FOR = 300
"""Seconds; short, since a client keeps the directory of a read token until then, and a branch may move on."""
INDEX = Path("xet/xorbs/global_dedup_lookup.redb")
_PARTS = ("xorbs", "shards")
_LEAN = {
    "reconstruction.min_reconstruction_fetch_size": 32_000_000,
    "reconstruction.max_reconstruction_fetch_size": 64_000_000,
    "reconstruction.download_buffer_size": 64_000_000,
    "reconstruction.download_buffer_perfile_size": 32_000_000,
    "reconstruction.download_buffer_limit": 64_000_000,
    "reconstruction.min_prefetch_buffer": 32_000_000,
    "telemetry.enabled": False,
}
"""hf_xet's own buffers are made for a network: on a local disk these take half the memory and no more time."""
_HEADER, _ENTRY = 48, 48
_HAS_VERIFICATION, _HAS_METADATA = 1 << 31, 1 << 30


class XetStore:
    """The Xet side of one repository: ``xet/pool-*`` (one is current), ``xet/write-*`` and ``xet/read-*``."""

    def __init__(self, database: Database, repo: Repo, objects: ObjectStore) -> None:
        self._db = database
        self._repo = repo
        self._objects = objects
        self._root = repo.directory / "xet"

    def open(self, kind: str) -> Path:
        """A new clone of the pool for one client: ``write`` or ``read``."""
        self._sweep()
        pool = self._pool()
        clone = self._root / f"{kind}-{pool or 'none'}-{new_id()}"
        _clone(self._root / pool if pool else None, clone)
        return clone

    def take_in(self, wanted: dict[str, int]) -> None:
        """Bring files (sha256 -> bytes) that clients wrote into the object store and the pool.

        Those that no client wrote are left out; the caller holds the repository's Xet lock and looks what came.

        Raises:
            HubError: 422, a file does not have the content that it was announced with.
        """
        left = dict(wanted)
        failure: HubError | None = None
        newest_first = sorted(self._root.glob("write-*"), key=lambda path: path.stat().st_mtime, reverse=True)
        for source in newest_first:
            found = {sha: xet_hash for sha, xet_hash in _shard_files(source) if sha in left}
            if found:
                try:
                    self._adopt(source, found, left)
                except HubError as error:  # anybody may have written a wrong file under this name: look further
                    failure = error
                else:
                    left = {sha: size for sha, size in left.items() if sha not in found}
            if not left:
                return
        if failure:
            raise failure

    def _adopt(self, source: Path, found: dict[str, str], sizes: dict[str, int]) -> None:
        pool = self._pool()
        copy = self._root / f"pool-{new_id()}"
        _clone(source, copy)
        for sha, xet_hash in found.items():
            staged = self._objects.staging()
            _download(copy, xet_hash, sizes[sha], staged)
            self._objects.adopt(staged, sha, sizes[sha])
        if not source.name.startswith(f"write-{pool or 'none'}-"):
            shutil.rmtree(copy)
            _clone(self._root / pool, copy)
            _upload(copy, [(self._objects.path(sha), sha) for sha in found])
        with self._db.transaction():
            self._db.run("UPDATE repos SET xet_pool = ? WHERE id = ?", copy.name, self._repo.id)
            for sha, xet_hash in found.items():
                self._objects.set_xet_hash(sha, xet_hash)
        if pool:
            shutil.rmtree(self._root / pool, ignore_errors=True)

    def _pool(self) -> str:
        row = self._db.row("SELECT xet_pool FROM repos WHERE id = ?", self._repo.id)
        return row["xet_pool"] if row else ""

    def _sweep(self) -> None:
        """Drop clones that nobody can need any more, and pools that a killed process left behind."""
        self._root.mkdir(exist_ok=True)
        current = self._pool()
        for directory in self._root.iterdir():
            age = time.time() - directory.stat().st_mtime
            kind = directory.name.split("-")[0]
            if directory.name != current and age > {"read": 2 * READ_FOR + 3600}.get(kind, 2 * WRITE_FOR):
                shutil.rmtree(directory, ignore_errors=True)


def token(call: Call, store: XetStore, kind: str) -> Response:
    """The reply that sends a client to a directory of its own.

    Raises:
        HubError: 403, the client is on another machine and cannot reach the directory.
    """
    if not call.is_local:
        raise forbidden("Xet transfer works on the Hub's own machine only: set HF_HUB_DISABLE_XET=1")
    directory = store.open(kind)
    expires = int(time.time()) + (WRITE_FOR if kind == "write" else READ_FOR)
    value = {"casUrl": f"local://{directory}", "exp": expires, "accessToken": directory.name}
    headers = {
        "X-Xet-Cas-Url": value["casUrl"],
        "X-Xet-Access-Token": value["accessToken"],
        "X-Xet-Token-Expiration": str(expires),
    }
    return reply(value, headers=headers)  # type: ignore[arg-type]


def _clone(source: Path | None, target: Path) -> None:
    for part in _PARTS:
        directory = target / "xet/xorbs" / part
        directory.mkdir(parents=True)
        for file in (source / "xet/xorbs" / part).glob("*") if source else ():
            if file.suffix == ".tagset":
                shutil.copyfile(file, directory / file.name)  # rewritten in place by hf_xet, unlike the others
            elif file.is_file() and not file.is_symlink():
                os.link(file, directory / file.name)
    if source and (source / INDEX).is_file():
        shutil.copyfile(source / INDEX, target / INDEX)


def _shard_files(directory: Path) -> Iterator[tuple[str, str]]:
    """(sha256, Xet hash) of every file that the shards in a clone describe."""
    for shard in sorted((directory / "xet/xorbs/shards").glob("*.mdb")):
        if not shard.is_symlink():
            yield from parse_shard(shard.read_bytes())


def parse_shard(data: bytes) -> Iterator[tuple[str, str]]:
    """(sha256, Xet hash) pairs of one shard file; what is malformed ends the list.

    Layout: a header of 48 bytes; then per file a header (hash, flags u32, count u32, 8 unused bytes), count
    entries, count verification entries if flag bit 31 is set, and one metadata entry that begins with the
    sha256 if bit 30 is. A file hash of all ones ends the section.
    """
    offset = _HEADER
    while offset + _HEADER <= len(data):
        file_hash, flags, count = struct.unpack_from("<32sII", data, offset)
        if file_hash == b"\xff" * 32:
            return
        offset += _HEADER + count * _ENTRY * (2 if flags & _HAS_VERIFICATION else 1)
        if flags & _HAS_METADATA:
            if offset + _ENTRY > len(data):
                return
            yield _hex(data[offset : offset + 32]), _hex(file_hash)
            offset += _ENTRY


def _hex(raw: bytes) -> str:
    """Xet writes its 32-byte values as four little-endian 64-bit numbers."""
    return "".join(f"{number:016x}" for number in struct.unpack("<4Q", raw))


def _connection(directory: Path) -> dict[str, object]:
    return {
        "endpoint": f"local://{directory}",
        "token": "local",
        "token_expiry_unix_secs": int(time.time()) + WRITE_FOR,
    }


def _download(directory: Path, xet_hash: str, size: int, target: Path) -> None:
    """Rebuild one file from a Xet directory.

    Raises:
        HubError: 422, the directory does not hold it whole.
    """
    import hf_xet  # a native library that only Xet transfers need

    try:
        with hf_xet.XetSession(hf_xet.XetConfig().with_config(_LEAN)).new_file_download_group(
            **_connection(directory)
        ) as group:
            group.start_download_file(hf_xet.XetFileInfo(xet_hash, size), str(target))
    except (RuntimeError, OSError) as error:
        target.unlink(missing_ok=True)
        raise HubError(422, "The uploaded Xet data is incomplete or not of the announced size") from error


def _upload(directory: Path, files: list[tuple[Path, str]]) -> None:
    import hf_xet

    with hf_xet.XetSession().new_upload_commit(**_connection(directory)) as commit:
        for path, sha256 in files:
            commit.start_upload_file(str(path), sha256=sha256)
