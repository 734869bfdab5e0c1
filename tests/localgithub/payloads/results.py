"""Statuses, check runs, releases and their files."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from tests.localgithub.payloads.people import account, app, node_id, repo_url
from tests.localgithub.state import Asset, CheckRun, Release, Repo, State, Status


def status(state: State, repo: Repo, one: Status) -> dict[str, Any]:
    return {
        "id": one.id, "node_id": node_id("Status", one.id), "url": f"{repo_url(state, repo)}/statuses/{one.sha}",
        "avatar_url": f"{state.server_url}/avatars/{one.creator.id}", "state": one.state, "context": one.context,
        "description": one.description, "target_url": one.target_url, "created_at": one.created_at,
        "updated_at": one.created_at, "creator": account(state, one.creator),
    }  # fmt: skip


def check_run(state: State, repo: Repo, one: CheckRun) -> dict[str, Any]:
    url = f"{repo_url(state, repo)}/check-runs/{one.id}"
    html = f"{state.server_url}/{repo.full_name}/runs/{one.id}"
    heads = [
        {
            "id": issue_.id, "number": issue_.number, "url": f"{repo_url(state, repo)}/pulls/{issue_.number}",
            "head": _small_side(state, state.repos.get(issue_.pull.head_repo, repo), issue_.pull.head, one.head_sha),
            "base": _small_side(state, repo, issue_.pull.base, issue_.pull.base_sha),
        }
        for issue_ in repo.issues.values()
        if issue_.pull and issue_.state == "open" and issue_.pull.head_sha == one.head_sha
    ]  # fmt: skip
    return {
        "id": one.id, "node_id": node_id("CheckRun", one.id), "name": one.name, "head_sha": one.head_sha,
        "external_id": one.external_id, "url": url, "html_url": html, "details_url": one.details_url or html,
        "status": one.status, "conclusion": one.conclusion, "started_at": one.started_at,
        "completed_at": one.completed_at, "check_suite": {"id": 1}, "app": app(state, one.app), "pull_requests": heads,
        "output": {
            "title": one.output.get("title"), "summary": one.output.get("summary"), "text": one.output.get("text"),
            "annotations_count": len(one.annotations), "annotations_url": f"{url}/annotations",
        },
    }  # fmt: skip


def _small_side(state: State, repo: Repo, branch: str, sha: str) -> dict[str, Any]:
    small = {"id": repo.id, "url": repo_url(state, repo), "name": repo.name}
    return {"ref": branch, "sha": sha, "repo": small}


def release(state: State, repo: Repo, one: Release) -> dict[str, Any]:
    url = f"{repo_url(state, repo)}/releases/{one.id}"
    html = f"{state.server_url}/{repo.full_name}/releases"
    where = f"untagged-{one.id:x}" if one.draft else quote(one.tag, safe="")
    return {
        "id": one.id, "node_id": node_id("Release", one.id), "url": url, "assets_url": f"{url}/assets",
        "html_url": f"{html}/tag/{where}",
        "upload_url": f"{state.upload_url}/repos/{repo.full_name}/releases/{one.id}/assets" + "{?name,label}",
        "tag_name": one.tag, "target_commitish": one.target, "name": one.name, "body": one.body, "draft": one.draft,
        "prerelease": one.prerelease, "immutable": False, "author": account(state, one.author),
        "created_at": one.created_at, "published_at": one.published_at, "updated_at": one.created_at,
        "tarball_url": None if one.draft else f"{repo_url(state, repo)}/tarball/{where}",
        "zipball_url": None if one.draft else f"{repo_url(state, repo)}/zipball/{where}",
        "assets": [asset(state, repo, one, item) for item in one.assets],
    }  # fmt: skip


def asset(state: State, repo: Repo, parent: Release, one: Asset) -> dict[str, Any]:
    tag = f"untagged-{parent.id:x}" if parent.draft else quote(parent.tag, safe="")
    html = f"{state.server_url}/{repo.full_name}/releases/download/{tag}/{quote(one.name)}"
    return {
        "id": one.id, "node_id": node_id("ReleaseAsset", one.id),
        "url": f"{repo_url(state, repo)}/releases/assets/{one.id}", "browser_download_url": html, "name": one.name,
        "label": one.label, "state": one.state, "content_type": one.content_type, "size": one.size,
        "digest": f"sha256:{one.digest}" if one.state == "uploaded" else None, "download_count": 0,
        "created_at": one.created_at, "updated_at": one.updated_at, "uploader": account(state, one.uploader),
    }  # fmt: skip
