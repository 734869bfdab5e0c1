"""Files by path: reading, and the single-file commits of the contents API."""

from __future__ import annotations

import base64
import binascii
from typing import Any
from urllib.parse import quote

import pygit2
from starlette.responses import Response

from tests.localgithub import git as gits
from tests.localgithub import payloads, refs
from tests.localgithub.call import Call, Router, reply
from tests.localgithub.errors import ApiError, invalid, not_found
from tests.localgithub.routes.gitdata import who

router = Router()
INLINE = 1024 * 1024
_PATH = "/repos/{owner}/{repo}/contents/{path:path}"


@router.on("GET", _PATH, "contents=read")
def read(call: Call) -> Response:
    git, path = call.repo.git, call.param("path").strip("/")
    if gits.is_empty(git):
        raise ApiError(404, "This repository is empty.")
    rev = call.query("ref", call.repo.default_branch)
    commit = gits.find(git, rev)
    if commit is None:
        raise ApiError(404, f"No commit found for the ref {rev}")
    found = _at(commit.tree, path)
    if found is None:
        raise not_found()
    if isinstance(found, pygit2.Tree):
        prefix = f"{path}/" if path else ""
        return reply([_document(call, prefix + (item.name or ""), item, rev) for item in found])
    if "raw" in call.accept:
        return Response(found.data, media_type="application/vnd.github.raw+json")
    return reply(_document(call, path, found, rev, content=True))


def _at(tree: pygit2.Tree, path: str) -> Any:
    if not path:
        return tree
    try:
        return tree[path]
    except (KeyError, ValueError):
        return None


def _document(call: Call, path: str, item: Any, rev: str, *, content: bool = False) -> dict[str, Any]:
    url, html = payloads.repo_url(call.github, call.repo), f"{call.github.server_url}/{call.repo.full_name}"
    kind = "dir" if isinstance(item, pygit2.Tree) else "file"
    own = f"{url}/contents/{quote(path)}?ref={quote(rev)}"
    git_url = f"{url}/git/{'trees' if kind == 'dir' else 'blobs'}/{item.id}"
    page = f"{html}/{'tree' if kind == 'dir' else 'blob'}/{quote(rev)}/{quote(path)}"
    document: dict[str, Any] = {
        "type": kind, "name": path.rpartition("/")[2], "path": path, "sha": str(item.id),
        "size": 0 if kind == "dir" else item.size, "url": own, "git_url": git_url, "html_url": page,
        "download_url": None if kind == "dir" else f"{html}/raw/{quote(rev)}/{quote(path)}",
        "_links": {"self": own, "git": git_url, "html": page},
    }  # fmt: skip
    if content:
        small = item.size <= INLINE
        text = base64.encodebytes(item.data).decode() if small else ""
        document |= {"content": text, "encoding": "base64" if small else "none"}
    return document


@router.on("PUT", _PATH, "contents=write")
def write(call: Call) -> Response:
    data = call.json()
    try:
        content = base64.b64decode(data["content"], validate=False)
    except (binascii.Error, KeyError, ValueError, TypeError):
        raise ApiError(422, "content is not valid Base64") from None
    return _commit(call, data, content)


@router.on("DELETE", _PATH, "contents=write")
def delete(call: Call) -> Response:
    return _commit(call, call.json() or dict(call.request.query_params), None)


def _commit(call: Call, data: dict[str, Any], content: bytes | None) -> Response:
    git, path = call.repo.git, call.param("path")
    message = data.get("message")
    if not isinstance(message, str) or not message:
        raise invalid("Commit", "message", "missing_field")
    if any(part.lower() in ("", ".", "..", ".git") for part in path.split("/")):
        raise ApiError(422, "path contains a malformed path component")
    branch = str(data.get("branch") or call.repo.default_branch)
    tip = gits.branch(git, branch)
    if tip is None and not gits.is_empty(git):
        raise ApiError(404, f"Branch {branch} not found")
    old = _at(git[tip].peel(pygit2.Commit).tree, path) if tip else None
    if old is None and content is None:
        raise not_found()
    if old is not None and not data.get("sha"):
        raise ApiError(422, 'Invalid request.\n\n"sha" wasn\'t supplied.')
    if old is not None and data.get("sha") != str(old.id):
        raise ApiError(409, f"{path} does not match {data.get('sha')}")
    refs.check_rules(call.repo, call.account.login, f"refs/heads/{branch}", "update" if tip else "creation", 409)
    author = who(call, data.get("author") or data.get("committer"))
    sha = gits.commit_files(git, {path: content}, [tip] if tip else [], author, message)
    refs.move(call.github, call.repo, branch, sha)
    commit = git[sha].peel(pygit2.Commit)
    document = None if content is None else _document(call, path, commit.tree[path], branch)
    body = {"content": document, "commit": payloads.git_commit(call.github, call.repo, commit)}
    return reply(body, 200 if old is not None else 201)
