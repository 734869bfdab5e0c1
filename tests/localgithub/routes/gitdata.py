"""Git's own objects over the API: refs, commits, trees, blobs."""

from __future__ import annotations

import base64
import binascii
from datetime import datetime
from typing import Any

import pygit2
from pygit2.enums import FileMode, ObjectType
from starlette.responses import Response

from tests.localgithub import git as gits
from tests.localgithub import payloads, refs
from tests.localgithub.call import Call, Router, no_content, page, reply
from tests.localgithub.errors import ApiError, invalid, not_found
from tests.localgithub.git import Who

router = Router()
MAX_BLOB = 100 * 1024 * 1024
MAX_TREE = 100_000
_REPO = "/repos/{owner}/{repo}/git"
_MODES = {"100644", "100755", "040000", "160000", "120000"}


def repository(call: Call) -> pygit2.Repository:
    """The git repository.

    Raises:
        ApiError: 409, it has no commit yet.
    """
    git = call.repo.git
    if gits.is_empty(git):
        raise ApiError(409, "Git Repository is empty.")
    return git


def thing(git: pygit2.Repository, sha: Any, kind: type[Any]) -> Any:
    """The object of that id and kind, or None."""
    if not isinstance(sha, str) or not gits.HEX.fullmatch(sha):
        return None
    try:
        found = git[sha]
    except KeyError:
        return None
    return found if isinstance(found, kind) else None


def who(call: Call, data: Any, fallback: Who | None = None) -> Who:
    """The author that a body names, or the caller."""
    account = call.account
    default = fallback or Who(account.login, f"{account.id}+{account.login}@users.noreply.github.com")
    if not isinstance(data, dict):
        return default
    when = data.get("date")
    try:
        seconds = int(datetime.fromisoformat(when).timestamp()) if when else None
    except (TypeError, ValueError):
        raise invalid("Commit", "date") from None
    name, email = data.get("name", default.name), data.get("email", default.email)
    if not isinstance(name, str) or not isinstance(email, str) or not name or not email:
        raise invalid("Commit", "author")
    return Who(name, email, seconds)


# -- refs --------------------------------------------------------------------------------------------------------------


@router.on("GET", f"{_REPO}/ref/{{ref:path}}", "contents=read")
def get_ref(call: Call) -> Response:
    git, name = repository(call), f"refs/{call.param('ref')}"
    if not pygit2.reference_is_valid_name(name) or name not in git.references:
        raise not_found()
    return reply(_ref(call, git, name))


def _ref(call: Call, git: pygit2.Repository, name: str) -> dict[str, Any]:
    return payloads.ref(call.github, call.repo, name, git[git.references[name].target])


@router.on("GET", f"{_REPO}/matching-refs/{{ref:path}}", "contents=read")
def matching(call: Call) -> Response:
    git, prefix = repository(call), f"refs/{call.param('ref')}"
    return page(call, [_ref(call, git, name) for name in sorted(git.references) if name.startswith(prefix)])


@router.on("POST", f"{_REPO}/refs", "contents=write")
def create_ref(call: Call) -> Response:
    git, data = repository(call), call.json()
    name, sha = data.get("ref"), data.get("sha")
    if not isinstance(name, str) or not isinstance(sha, str):
        raise ApiError(422, 'Invalid request.\n\n"ref" and "sha" are required.')
    if not name.startswith("refs/") or name.count("/") < 2:
        raise ApiError(
            422, "Reference name must start with 'refs/' and contain at least three slash-separated components."
        )
    if not pygit2.reference_is_valid_name(name):
        raise ApiError(422, f"{name} is not a valid ref name.")
    target = thing(git, sha, pygit2.Commit)
    if target is None:
        raise ApiError(422, "Object does not exist")
    if name in git.references:
        raise ApiError(422, "Reference already exists")
    if any(one.startswith(f"{name}/") or name.startswith(f"{one}/") for one in git.references):
        raise ApiError(422, "Reference update failed")
    refs.check_rules(call.repo, call.account.login, name, "creation")
    gits.set_ref(git, name, sha)
    refs.sync(call.github, call.repo)
    document = _ref(call, git, name)
    return reply(document, 201, {"Location": document["url"]})


@router.on("PATCH", f"{_REPO}/refs/{{ref:path}}", "contents=write")
def update_ref(call: Call) -> Response:
    git, data, name = repository(call), call.json(), f"refs/{call.param('ref')}"
    if not pygit2.reference_is_valid_name(name) or name not in git.references:
        raise ApiError(422, "Reference does not exist")
    target = thing(git, data.get("sha"), pygit2.Commit)
    if target is None:
        raise ApiError(422, "Object does not exist")
    old = str(git.references[name].peel(pygit2.Commit).id)
    forward = gits.is_fast_forward(git, old, str(target.id))
    if not forward and data.get("force") is not True:
        raise ApiError(422, "Update is not a fast forward")
    if old != str(target.id):
        refs.check_rules(call.repo, call.account.login, name, "update" if forward else "force")
    gits.set_ref(git, name, str(target.id))
    refs.sync(call.github, call.repo)
    return reply(_ref(call, git, name))


@router.on("DELETE", f"{_REPO}/refs/{{ref:path}}", "contents=write")
def delete_ref(call: Call) -> Response:
    git, name = repository(call), f"refs/{call.param('ref')}"
    if not pygit2.reference_is_valid_name(name) or name not in git.references:
        raise ApiError(422, "Reference does not exist")
    if name == f"refs/heads/{call.repo.default_branch}":
        raise ApiError(422, "Cannot delete the default branch")
    refs.check_rules(call.repo, call.account.login, name, "deletion")
    gits.set_ref(git, name, None)
    refs.sync(call.github, call.repo)
    return no_content()


# -- blobs, trees, commits ---------------------------------------------------------------------------------------------


@router.on("POST", f"{_REPO}/blobs", "contents=write")
def create_blob(call: Call) -> Response:
    git, data = repository(call), call.json()
    content, encoding = data.get("content"), data.get("encoding", "utf-8")
    if not isinstance(content, str) or encoding not in ("utf-8", "base64"):
        raise invalid("Blob", "content")
    try:
        raw = base64.b64decode(content, validate=False) if encoding == "base64" else content.encode()
    except (binascii.Error, ValueError):
        raise ApiError(422, "content is not valid Base64") from None
    if len(raw) > MAX_BLOB:
        raise ApiError(422, "Sorry, the file is too large: blobs are limited to 100 MB.")
    sha = str(git.create_blob(raw))
    return reply({"sha": sha, "url": f"{payloads.repo_url(call.github, call.repo)}/git/blobs/{sha}"}, 201)


@router.on("GET", f"{_REPO}/blobs/{{sha}}", "contents=read")
def get_blob(call: Call) -> Response:
    found = thing(repository(call), call.param("sha"), pygit2.Blob)
    if found is None:
        raise not_found()
    if "raw" in call.accept:
        return Response(found.data, media_type="application/vnd.github.raw+json")
    url, sha = payloads.repo_url(call.github, call.repo), str(found.id)
    text = base64.encodebytes(found.data).decode()
    return reply(
        {"sha": sha, "node_id": f"B_{sha}", "size": found.size, "url": f"{url}/git/blobs/{sha}", "content": text,
         "encoding": "base64"}
    )  # fmt: skip


@router.on("GET", f"{_REPO}/trees/{{sha:path}}", "contents=read")
def get_tree(call: Call) -> Response:
    git, name = repository(call), call.param("sha")
    tree = thing(git, name, pygit2.Tree)
    if tree is None:
        commit = gits.find(git, name)
        if commit is None:
            raise not_found()
        tree = commit.tree
    return reply(_tree(call, tree, recursive="recursive" in call.request.query_params))


def _tree(call: Call, tree: pygit2.Tree, *, recursive: bool) -> dict[str, Any]:
    url = f"{payloads.repo_url(call.github, call.repo)}/git"
    entries = []
    for path, item in gits.walk(tree, recursive=recursive):
        kind = {ObjectType.TREE: "tree", ObjectType.COMMIT: "commit"}.get(item.type, "blob")
        entry: dict[str, Any] = {"path": path, "mode": f"{item.filemode:06o}", "type": kind, "sha": str(item.id)}
        if isinstance(item, pygit2.Blob):
            entry["size"] = item.size
        entries.append(entry | {"url": f"{url}/{kind}s/{item.id}"})
    truncated = len(entries) > MAX_TREE
    return {"sha": str(tree.id), "url": f"{url}/trees/{tree.id}", "tree": entries[:MAX_TREE], "truncated": truncated}


@router.on("POST", f"{_REPO}/trees", "contents=write")
def create_tree(call: Call) -> Response:
    git, data = repository(call), call.json()
    base, entries = data.get("base_tree"), data.get("tree")
    if not isinstance(entries, list) or (not entries and not base):
        raise ApiError(422, "Invalid tree info")
    found = None
    if base is not None:
        commit = thing(git, base, pygit2.Commit)
        found = commit.tree if commit else thing(git, base, pygit2.Tree)
        if found is None:
            raise ApiError(422, "base_tree is not a valid tree oid")
    changes = [_entry(git, item) for item in entries]
    try:
        sha = gits.write_tree(git, found, changes)
    except KeyError:
        raise ApiError(422, "GitRPC::BadObjectState") from None
    return reply(_tree(call, git[sha].peel(pygit2.Tree), recursive=False), 201)


def _entry(git: pygit2.Repository, item: Any) -> tuple[str, str | None, int]:
    path = item.get("path") if isinstance(item, dict) else None
    if not isinstance(path, str) or not path:
        raise ApiError(422, "Must supply a valid tree.path")
    if path.startswith("/"):
        raise ApiError(422, "tree.path cannot start with a slash")
    if any(part.lower() in ("", ".", "..", ".git") for part in path.split("/")):
        raise ApiError(422, "tree.path contains a malformed path component")
    mode, sha, content = item.get("mode"), item.get("sha", ""), item.get("content")
    if mode not in _MODES:
        raise ApiError(422, "Must supply a valid tree.mode")
    if "sha" in item and sha is None:
        return path, None, 0
    if content is not None:
        if not isinstance(content, str) or sha:
            raise ApiError(422, "Must supply either tree.sha or tree.content, not both")
        return path, str(git.create_blob(content.encode())), int(mode, 8)
    wanted = pygit2.Tree if int(mode, 8) == FileMode.TREE else pygit2.Blob
    if thing(git, sha, wanted) is None:
        raise ApiError(422, f"tree.sha {sha} is not a valid {'tree' if wanted is pygit2.Tree else 'blob'}")
    return path, sha, int(mode, 8)


@router.on("POST", f"{_REPO}/commits", "contents=write")
def create_commit(call: Call) -> Response:
    git, data = repository(call), call.json()
    message, parents = data.get("message"), data.get("parents", [])
    if not isinstance(message, str) or not message:
        raise invalid("Commit", "message", "missing_field")
    if thing(git, data.get("tree"), pygit2.Tree) is None:
        raise ApiError(422, "Tree SHA does not exist")
    if not isinstance(parents, list) or any(thing(git, one, pygit2.Commit) is None for one in parents):
        raise ApiError(422, "Parent SHA does not exist or is not a commit object")
    author = who(call, data.get("author"))
    committer = who(call, data.get("committer"), author)
    sha = gits.commit_tree(git, data["tree"], parents, author, message, committer)
    return reply(payloads.git_commit(call.github, call.repo, git[sha].peel(pygit2.Commit)), 201)


@router.on("GET", f"{_REPO}/commits/{{sha}}", "contents=read")
def get_commit(call: Call) -> Response:
    found = thing(repository(call), call.param("sha"), pygit2.Commit)
    if found is None:
        raise not_found()
    return reply(payloads.git_commit(call.github, call.repo, found))
