"""Reading repositories: trees, paths, commits, comparisons, and the files themselves (resolve)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, quote, urlencode

import pygit2
from starlette.responses import Response, StreamingResponse

from bot.localhub import pulls
from bot.localhub.context import Call, reply
from bot.localhub.errors import HubError, bad_request
from bot.localhub.gitrepo import Entry, GitRepo, check_path
from bot.localhub.lfs import object_store, xet_store
from bot.localhub.objects import CHUNK
from bot.localhub.repos import Repo
from bot.localhub.xet import token

TREE_PAGE, EXPANDED_PAGE, COMMITS_PAGE = 1000, 50, 50
_RANGE = re.compile(r"bytes=(\d{0,18})-(\d{0,18})")
_IMAGES = {"png": "image/png", "jpg": "image/jpeg", "jpeg": "image/jpeg", "gif": "image/gif", "webp": "image/webp"}


def tree(call: Call) -> Response:
    """GET .../tree/{rev}[/{path}]?recursive=&expand=&limit=&cursor=, paged by a Link header."""
    repo = call.repo()
    git = repo.git()
    head = git.commit(call.param("rev"))
    expand = call.flag("expand")
    entries = git.listing(head, call.param("path").strip("/"), recursive=call.flag("recursive"))
    start = call.number("cursor", 0, 0, 10**9)
    top = EXPANDED_PAGE if expand else TREE_PAGE
    limit = call.number("limit", top, 1, top)
    page = entries[start : start + limit]
    headers = _next(call, cursor=str(start + limit)) if start + limit < len(entries) else {}
    return reply(_entries_json(call, repo, git, head, page, expand=expand), headers=headers)


def paths_info(call: Call) -> Response:
    """POST .../paths-info/{rev} with paths and expand, as JSON or as a form (huggingface_hub sends a form)."""
    repo = call.repo()
    git = repo.git()
    head = git.commit(call.param("rev"))
    if call.request.headers.get("content-type", "").startswith("application/x-www-form-urlencoded"):
        try:
            form = parse_qs(call.body.decode(), keep_blank_values=True, max_num_fields=10_000)
        except ValueError:
            raise bad_request("The form cannot be read") from None
        paths: Any = form.get("paths", [])
        expand = form.get("expand", ["false"])[0].lower() == "true"
    else:
        body = call.json()
        paths, expand = body.get("paths"), body.get("expand") is True
    paths = [paths] if isinstance(paths, str) else paths
    if not isinstance(paths, list) or len(paths) > 2000 or not all(isinstance(path, str) for path in paths):
        raise bad_request("paths must list at most 2000 paths")
    found = [entry for path in paths if (entry := git.entry(head, check_path(path.strip("/")))) is not None]
    return reply(_entries_json(call, repo, git, head, found, expand=expand))


def commits(call: Call) -> Response:
    """GET .../commits/{rev}?p=&limit=&expand[]=formatted."""
    repo = call.repo()
    git = repo.git()
    found = list(git.log(git.commit(call.param("rev"))))
    page, limit = call.number("p", 0, 0, 10**6), call.number("limit", COMMITS_PAGE, 1, 1000)
    shown = found[page * limit : (page + 1) * limit]
    headers = {"X-Total-Count": str(len(found))}
    if (page + 1) * limit < len(found):
        headers |= _next(call, p=str(page + 1))
    return reply([commit_json(item) for item in shown], headers=headers)


def compare(call: Call) -> Response:
    """GET .../compare/{a}..{b}[?raw=1]: the unified diff (``...``: since the two parted)."""
    git = call.repo().git()
    left, dots, right = (
        re.split(r"(\.{2,3})", call.param("compare"), maxsplit=1)
        if ".." in call.param("compare")
        else ("", "", call.param("compare"))
    )
    new = git.commit(right)
    if not left:
        old = new.parents[0] if new.parents else None
        if old is None:
            raise bad_request("The first commit has nothing to compare with")
    else:
        old = git.commit(left)
        if dots == "..." and (common := git.git.merge_base(old.id, new.id)):
            old = git.commit(str(common))
    text = pulls.diff(git, str(old.id), str(new.id))
    return Response(text, media_type="text/plain") if call.flag("raw") else reply(text)


def xet_token(call: Call) -> Response:
    """GET .../xet-read-token/{rev} and .../xet-write-token/{rev} (``None?create_pr=1`` for a new pull request)."""
    kind = "write" if call.param("kind") == "write" else "read"
    repo = call.repo(writing=kind == "write")
    store = xet_store(call.hub, repo)
    with call.hub.locks[f"xet {repo.id}"]:
        return token(call, store, kind)


def resolve(call: Call) -> Response:
    """GET and HEAD /{repo}/resolve/{rev}/{path}: a file's bytes, with Range, ETag and the Hub's own headers.

    Large files are served from here too: a redirect to this same host would lose X-Repo-Commit, since
    huggingface_hub follows redirects to the same origin before it reads the headers.
    """
    repo = call.repo()
    git = repo.git()
    head = git.commit(call.param("rev"))
    try:
        entry = git.file(head, call.param("path"))
    except HubError as error:
        error.headers["X-Repo-Commit"] = str(head.id)  # huggingface_hub caches the file's absence under it
        raise
    headers = {
        "ETag": f'"{entry.etag}"',
        "X-Repo-Commit": str(head.id),
        "Accept-Ranges": "bytes",
        "Content-Security-Policy": "sandbox; default-src 'none'",
        "X-Content-Type-Options": "nosniff",
    }
    name = entry.path.rsplit("/", 1)[-1]
    media_type = _IMAGES.get(name.rsplit(".", 1)[-1].lower()) or (
        "application/octet-stream" if entry.lfs else "text/plain; charset=utf-8"
    )
    headers["Content-Type"] = media_type
    inline = media_type.startswith("image/") and not call.flag("download")
    headers["Content-Disposition"] = f"{'inline' if inline else 'attachment'}; filename*=UTF-8''{quote(name, safe='')}"
    if entry.lfs:
        headers |= {"X-Linked-Size": str(entry.size), "X-Linked-ETag": f'"{entry.etag}"'}
        xet_hash = object_store(call.hub, repo).xet_hashes().get(entry.etag)
        if xet_hash and call.is_local:
            auth = f"{call.endpoint}/api/models/{repo.full_name}/xet-read-token/{head.id}"
            headers |= {"X-Xet-Hash": xet_hash, "Link": f'<{auth}>; rel="xet-auth"'}
    return _send(call, repo, git, entry, headers)


def _send(call: Call, repo: Repo, git: GitRepo, entry: Entry, headers: dict[str, str]) -> Response:
    asked = call.request.headers
    known = [item.strip().removeprefix("W/") for item in asked.get("if-none-match", "").split(",")]
    if headers["ETag"] in known or "*" in known:
        return Response(status_code=304, headers=headers)
    size = entry.size
    start, stop, status = 0, size, 200
    if_range = asked.get("if-range")
    if (match := _RANGE.fullmatch(asked.get("range", ""))) and (not if_range or if_range == headers["ETag"]):
        first, last = match.groups()
        if first:
            start, stop = int(first), min(size, int(last) + 1 if last else size)
        elif last:
            start = max(0, size - int(last))
        if start >= stop or not (first or last):
            return Response(status_code=416, headers=headers | {"Content-Range": f"bytes */{size}"})
        status = 206
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{size}"
    headers["Content-Length"] = str(stop - start)
    if call.request.method == "HEAD":
        return Response(status_code=status, headers=headers)
    if entry.lfs is None:
        return Response(git.read(entry)[start:stop], status, headers)
    path = object_store(call.hub, repo).path(entry.lfs.sha256)
    if not path.is_file():
        raise HubError(404, "The large file behind this pointer was never uploaded", "EntryNotFound")
    return StreamingResponse(_slice(path, start, stop), status, headers)


def _slice(path: Path, start: int, stop: int) -> Iterator[bytes]:
    with path.open("rb") as file:
        file.seek(start)
        while start < stop and (chunk := file.read(min(CHUNK, stop - start))):
            start += len(chunk)
            yield chunk


# -- JSON ------------------------------------------------------------------------------------------------------


def iso(seconds: int) -> str:
    """Seconds since 1970 as the API's timestamp."""
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")


def commit_json(item: pygit2.Commit) -> dict[str, Any]:
    title, _, message = item.message.partition("\n")
    return {
        "id": str(item.id), "title": title, "message": message.strip("\n"),
        "authors": [{"user": item.author.name, "avatar": "/static/avatar.svg"}], "date": iso(item.commit_time),
    }  # fmt: skip


def _entries_json(
    call: Call, repo: Repo, git: GitRepo, head: pygit2.Commit, entries: list[Entry], *, expand: bool
) -> list[dict[str, Any]]:
    hashes = object_store(call.hub, repo).xet_hashes() if call.is_local else {}
    last = git.last_commits(head, [entry.path for entry in entries]) if expand else {}
    result = []
    for entry in entries:
        item: dict[str, Any] = {"type": entry.kind, "oid": entry.oid, "size": entry.size, "path": entry.path}
        if entry.lfs:
            item["lfs"] = {"oid": entry.lfs.sha256, "size": entry.lfs.size, "pointerSize": entry.lfs.pointer_size}
            if entry.lfs.sha256 in hashes:
                item["xetHash"] = hashes[entry.lfs.sha256]
        if entry.path in last:
            made = last[entry.path]
            item["lastCommit"] = {
                "id": str(made.id), "title": made.message.split("\n")[0], "date": iso(made.commit_time)
            }  # fmt: skip
        result.append(item)
    return result


def _next(call: Call, **changed: str) -> dict[str, str]:
    query = urlencode(dict(call.request.query_params) | changed)
    path = call.request.scope["raw_path"].decode("ascii").split("?")[0]
    return {"Link": f'<{call.endpoint}{path}?{query}>; rel="next"'}
