"""The body of a commit request: the Hub's ndjson or JSON form in, a checked ``CommitRequest`` out."""

from __future__ import annotations

import base64
import binascii
from dataclasses import dataclass, field
from typing import Any

from bot.localhub.context import Call, parse_json, text_field
from bot.localhub.errors import HubError, bad_request
from bot.localhub.gitrepo import check_path
from bot.localhub.objects import check_sha256

MAX_OPERATIONS = 25_000


@dataclass
class CommitRequest:
    """A parsed commit body."""

    summary: str = ""
    description: str = ""
    parent: str | None = None
    files: dict[str, bytes] = field(default_factory=dict)
    large: dict[str, tuple[str, int | None]] = field(default_factory=dict)
    """path -> (sha256, bytes; None when the client leaves them out for a file that is here already)."""
    renames: dict[str, str] = field(default_factory=dict)
    """new path -> old path."""
    deleted: list[str] = field(default_factory=list)
    deleted_folders: list[str] = field(default_factory=list)

    def is_empty(self) -> bool:
        return not (self.files or self.large or self.renames or self.deleted or self.deleted_folders)


def parse(call: Call) -> CommitRequest:
    """The commit request in either of the Hub's two forms.

    Raises:
        HubError: 400 what is malformed; 413 a regular file that should have been a large one.
    """
    request = CommitRequest()
    if call.request.headers.get("content-type", "").startswith("application/json"):
        data = call.json()
        items: list[tuple[str, Any]] = [
            ("header", {key: data[key] for key in ("summary", "description", "parentCommit") if key in data})
        ]
        for key, name in (("files", "file"), ("lfsFiles", "lfsFile"), ("deletedEntries", "deletedEntry")):
            values = data.get(key, [])
            if not isinstance(values, list):
                raise bad_request(f"{key} must be a list")
            items += [(name, value) for value in values]
    else:
        items = [_line(parse_json(line)) for line in call.body.splitlines() if line.strip()]
    if len(items) > MAX_OPERATIONS:
        raise bad_request(f"At most {MAX_OPERATIONS} operations fit in one commit")
    for key, value in items:
        if not isinstance(value, dict):
            raise bad_request(f"The value of {key} must be an object")
        _apply(request, key, value, call.hub.limits.regular_file)
    if not request.summary.strip():
        raise bad_request("The commit needs a header with a summary")
    if request.is_empty():
        raise bad_request("The commit has no operations")
    return request


def _line(item: Any) -> tuple[str, Any]:
    if not isinstance(item, dict) or not isinstance(item.get("key"), str):
        raise bad_request("Each line must be an object with key and value")
    return item["key"], item.get("value")


def _apply(request: CommitRequest, key: str, value: dict[str, Any], limit: int) -> None:
    if key == "header":
        request.summary = text_field(value, "summary", 1, 500)
        request.description = text_field(value, "description", 0, 65536) if value.get("description") else ""
        parent = value.get("parentCommit")
        if parent is not None and not isinstance(parent, str):
            raise bad_request("parentCommit must be a commit id")
        request.parent = parent
        return
    path = check_path(value.get("path", "").rstrip("/") if isinstance(value.get("path"), str) else None)
    if key in ("file", "lfsFile") and value.get("oldPath") is not None:
        request.renames[path] = check_path(value["oldPath"])
    elif key == "file":
        data = _content(value)
        if len(data) > limit:
            raise HubError(413, f"{path} has {len(data)} bytes: files over {limit} must be uploaded as large files")
        request.files[path] = data
    elif key == "lfsFile":
        size = value.get("size")
        if value.get("algo", "sha256") != "sha256":
            raise bad_request("algo must be sha256")
        if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 0):
            raise bad_request("size must be a number of bytes")
        request.large[path] = (check_sha256(value.get("oid")), size)
    elif key in ("deletedFile", "deletedEntry"):
        request.deleted.append(path)
    elif key == "deletedFolder":
        request.deleted_folders.append(path)
    else:
        raise bad_request(f"Unknown operation {key!r}")


def _content(value: dict[str, Any]) -> bytes:
    content, encoding = value.get("content"), value.get("encoding", "utf-8")
    if not isinstance(content, str) or encoding not in ("utf-8", "base64"):
        raise bad_request("content must be text, encoding utf-8 or base64")
    try:
        return base64.b64decode(content, validate=True) if encoding == "base64" else content.encode()
    except (binascii.Error, ValueError):
        raise bad_request(f"content is not valid {encoding}") from None
