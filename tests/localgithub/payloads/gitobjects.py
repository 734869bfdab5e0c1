"""Commits, refs and changed files."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pygit2

from tests.localgithub import git as gits
from tests.localgithub.payloads.people import repo_url
from tests.localgithub.state import Repo, State


def signature(who: pygit2.Signature) -> dict[str, str]:
    return {"name": who.name, "email": who.email, "date": _date(who.time)}


def _date(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


_UNSIGNED = {"verified": False, "reason": "unsigned", "signature": None, "payload": None, "verified_at": None}


def git_commit(state: State, repo: Repo, one: pygit2.Commit) -> dict[str, Any]:
    """What /git/commits answers."""
    url, html, sha = repo_url(state, repo), f"{state.server_url}/{repo.full_name}", str(one.id)
    parents = [
        {"sha": str(oid), "url": f"{url}/git/commits/{oid}", "html_url": f"{html}/commit/{oid}"}
        for oid in one.parent_ids
    ]
    return {
        "sha": sha, "node_id": f"C_{sha}", "url": f"{url}/git/commits/{sha}", "html_url": f"{html}/commit/{sha}",
        "author": signature(one.author), "committer": signature(one.committer), "message": one.message,
        "tree": {"sha": str(one.tree_id), "url": f"{url}/git/trees/{one.tree_id}"}, "parents": parents,
        "verification": _UNSIGNED,
    }  # fmt: skip


def commit(state: State, repo: Repo, one: pygit2.Commit, files: list[gits.Changed] | None = None) -> dict[str, Any]:
    """What /commits answers; with ``files`` the reply about a single one."""
    url, html, sha = repo_url(state, repo), f"{state.server_url}/{repo.full_name}", str(one.id)
    plain = git_commit(state, repo, one)
    document: dict[str, Any] = {
        "sha": sha, "node_id": plain["node_id"], "url": f"{url}/commits/{sha}", "html_url": plain["html_url"],
        "comments_url": f"{url}/commits/{sha}/comments", "author": None, "committer": None,
        "commit": {
            "author": plain["author"], "committer": plain["committer"], "message": one.message, "tree": plain["tree"],
            "url": plain["url"], "comment_count": 0, "verification": _UNSIGNED,
        },
        "parents": [
            _parent(f"{url}/commits", html, oid) for oid in one.parent_ids
        ],
    }  # fmt: skip
    if files is not None:
        added, removed = sum(one.additions for one in files), sum(one.deletions for one in files)
        document["stats"] = {"total": added + removed, "additions": added, "deletions": removed}
        document["files"] = [changed(state, repo, item, sha) for item in files]
    return document


def changed(state: State, repo: Repo, item: gits.Changed, sha: str) -> dict[str, Any]:
    url, html, path = repo_url(state, repo), f"{state.server_url}/{repo.full_name}", quote(item.path)
    document: dict[str, Any] = {
        "sha": item.sha, "filename": item.path, "status": item.status, "additions": item.additions,
        "deletions": item.deletions, "changes": item.additions + item.deletions,
        "blob_url": f"{html}/blob/{sha}/{path}", "raw_url": f"{html}/raw/{sha}/{path}",
        "contents_url": f"{url}/contents/{path}?ref={sha}",
    }  # fmt: skip
    if item.patch:
        document["patch"] = item.patch
    if item.previous:
        document["previous_filename"] = item.previous
    return document


def _parent(url: str, html: str, oid: pygit2.Oid) -> dict[str, str]:
    return {"sha": str(oid), "url": f"{url}/{oid}", "html_url": f"{html}/commit/{oid}"}


def ref(state: State, repo: Repo, name: str, target: pygit2.Object) -> dict[str, Any]:
    url = repo_url(state, repo)
    kind = "commit" if isinstance(target, pygit2.Commit) else "tag"
    return {
        "ref": name, "node_id": f"REF_{repo.id}_{name}", "url": f"{url}/git/{quote(name)}",
        "object": {"sha": str(target.id), "type": kind, "url": f"{url}/git/{kind}s/{target.id}"},
    }  # fmt: skip
