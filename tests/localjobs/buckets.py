"""Buckets as huggingface_hub asks for them, with hf_xet's own stores in plain directories behind them.

Every token leads to a directory of its own: for writing an empty one, from which a batch takes the files that it names;
for reading one with all files of the bucket. That is slow and simple; the buckets of tests are small.
"""

from __future__ import annotations

import json
import shutil
import struct
import tempfile
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import hf_xet

CAS = 48


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


@dataclass
class Bucket:
    """One bucket."""

    id: str
    folder: Path
    object_id: str
    private: bool = True
    files: dict[str, tuple[str, int]] = field(default_factory=dict)
    """Path to Xet hash and size."""
    created: str = field(default_factory=now)

    def __post_init__(self) -> None:
        (self.folder / "content").mkdir(parents=True)

    def token(self, kind: str) -> dict[str, Any]:
        directory = Path(tempfile.mkdtemp(prefix=f"{kind}-", dir=self.folder))
        if kind == "read" and self.files:
            self._upload(directory, [self.content(path) for path in self.files])
        return {"casUrl": f"local://{directory}", "exp": int(time.time()) + 3600, "accessToken": directory.name}

    def content(self, path: str) -> Path:
        return self.folder / "content" / path

    def batch(self, lines: list[dict[str, Any]]) -> list[dict[str, str]]:
        """Do the operations; those that failed."""
        failed = []
        for line in lines:
            if line["type"] == "deleteFile":
                self.files.pop(line["path"], None)
                self.content(line["path"]).unlink(missing_ok=True)
            elif line["type"] == "addFile" and self._take(line["path"], line["xetHash"]):
                continue
            else:
                failed.append({"path": line["path"], "error": "not uploaded"})
        return failed

    def put(self, source: Path, path: str) -> None:
        """As a job's mount does it."""
        target = self.content(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, target)
        scratch = Path(tempfile.mkdtemp(prefix="hash-", dir=self.folder))
        (found,) = self._upload(scratch, [target])
        shutil.rmtree(scratch)
        self.files[path] = (found, target.stat().st_size)

    def entry(self, path: str) -> dict[str, Any]:
        xet_hash, size = self.files[path]
        return {"type": "file", "path": path, "size": size, "xetHash": xet_hash, "uploadedAt": now()}

    def _take(self, path: str, xet_hash: str) -> bool:
        target = self.content(path)
        target.parent.mkdir(parents=True, exist_ok=True)
        for directory in self.folder.glob("write-*"):
            for shard in (directory / "xet/xorbs/shards").glob("*.mdb"):
                sizes = dict(shard_sizes(shard.read_bytes()))
                if xet_hash in sizes:
                    with hf_xet.XetSession().new_file_download_group(**_connection(directory)) as group:
                        group.start_download_file(hf_xet.XetFileInfo(xet_hash, sizes[xet_hash]), str(target))
                    self.files[path] = (xet_hash, sizes[xet_hash])
                    return True
        return False

    @staticmethod
    def _upload(directory: Path, paths: list[Path]) -> list[str]:
        with hf_xet.XetSession().new_upload_commit(**_connection(directory)) as commit:
            handles = [commit.start_upload_file(str(path), sha256=hf_xet.SKIP_SHA256) for path in paths]
        return [str(handle.result().xet_info.hash) for handle in handles]


def _connection(directory: Path) -> dict[str, Any]:
    return {
        "endpoint": f"local://{directory}",
        "token": "local",
        "token_expiry_unix_secs": int(time.time()) + 3600,
    }


def shard_sizes(data: bytes) -> list[tuple[str, int]]:
    """(Xet hash, bytes) of every file that a shard describes; the layout is told in bot.localhub.xet."""
    found, offset = [], CAS
    while offset + CAS <= len(data):
        file_hash, flags, count = struct.unpack_from("<32sII", data, offset)
        if file_hash == b"\xff" * 32:
            break
        offset += CAS
        # One entry: a hash of 32 bytes, flags, bytes of the file in it, and its first and last chunk, 32 bits each.
        size = sum(struct.unpack_from("<32sII", data, offset + CAS * index)[2] for index in range(count))
        found.append(("".join(f"{number:016x}" for number in struct.unpack("<4Q", file_hash)), size))
        offset += CAS * count * (2 if flags >> 31 & 1 else 1) + (CAS if flags >> 30 & 1 else 0)
    return found


def ndjson(body: bytes) -> list[dict[str, Any]]:
    return [json.loads(line) for line in body.splitlines() if line.strip()]
