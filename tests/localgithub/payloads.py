"""The JSON documents of the API, with the fields that GitHub's description requires (the contract test holds them)."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote

import pygit2

from tests.localgithub import git as gits
from tests.localgithub.state import (
    Account,
    Asset,
    CheckRun,
    Comment,
    Issue,
    Pull,
    Reaction,
    Release,
    Repo,
    State,
    Status,
)

CONTENTS = ("+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes")


def node_id(kind: str, number: int) -> str:
    return base64.b64encode(f"{kind}:{number}".encode()).decode()


def account(state: State, who: Account) -> dict[str, Any]:
    """GitHub's 'simple user'."""
    url = f"{state.api_url}/users/{quote(who.login)}"
    parts = {"followers": "followers", "subscriptions": "subscriptions", "organizations": "orgs", "repos": "repos",
             "received_events": "received_events"}  # fmt: skip
    return {
        "login": who.login, "id": who.id, "node_id": node_id("User", who.id), "gravatar_id": "", "url": url,
        "avatar_url": f"{state.server_url}/avatars/{who.id}", "html_url": f"{state.server_url}/{quote(who.login)}",
        **{f"{name}_url": f"{url}/{end}" for name, end in parts.items()},
        "following_url": url + "/following{/other_user}", "gists_url": url + "/gists{/gist_id}",
        "starred_url": url + "/starred{/owner}{/repo}", "events_url": url + "/events{/privacy}",
        "type": who.type, "user_view_type": "public", "site_admin": False,
    }  # fmt: skip


_TEMPLATES = {
    "archive_url": "/{archive_format}{/ref}", "assignees_url": "/assignees{/user}", "blobs_url": "/git/blobs{/sha}",
    "branches_url": "/branches{/branch}", "collaborators_url": "/collaborators{/collaborator}",
    "comments_url": "/comments{/number}", "commits_url": "/commits{/sha}", "compare_url": "/compare/{base}...{head}",
    "contents_url": "/contents/{+path}", "contributors_url": "/contributors", "deployments_url": "/deployments",
    "downloads_url": "/downloads", "events_url": "/events", "forks_url": "/forks",
    "git_commits_url": "/git/commits{/sha}",
    "git_refs_url": "/git/refs{/sha}", "git_tags_url": "/git/tags{/sha}", "hooks_url": "/hooks",
    "issue_comment_url": "/issues/comments{/number}", "issue_events_url": "/issues/events{/number}",
    "issues_url": "/issues{/number}", "keys_url": "/keys{/key_id}", "labels_url": "/labels{/name}",
    "languages_url": "/languages", "merges_url": "/merges", "milestones_url": "/milestones{/number}",
    "notifications_url": "/notifications{?since,all,participating}", "pulls_url": "/pulls{/number}",
    "releases_url": "/releases{/id}", "stargazers_url": "/stargazers", "statuses_url": "/statuses/{sha}",
    "subscribers_url": "/subscribers", "subscription_url": "/subscription", "tags_url": "/tags", "teams_url": "/teams",
    "trees_url": "/git/trees{/sha}",
}  # fmt: skip


def repo_url(state: State, repo: Repo) -> str:
    return f"{state.api_url}/repos/{repo.full_name}"


def repository(state: State, repo: Repo, role: str | None = None, *, full: bool = True) -> dict[str, Any]:
    """A repository; ``role`` adds what the asker may do, ``full`` what only a single repository's reply has."""
    url, html = repo_url(state, repo), f"{state.server_url}/{repo.full_name}"
    open_issues = sum(issue.state == "open" for issue in repo.issues.values())
    document: dict[str, Any] = {
        "id": repo.id, "node_id": node_id("Repository", repo.id), "name": repo.name, "full_name": repo.full_name,
        "owner": account(state, repo.owner), "private": repo.private, "html_url": html, "description": None,
        "fork": repo.parent is not None, "url": url, **{name: url + end for name, end in _TEMPLATES.items()},
        "clone_url": f"{html}.git", "git_url": f"git:{html.partition(':')[2]}.git", "svn_url": html,
        "ssh_url": f"git@github.localhost:{repo.full_name}.git", "mirror_url": None, "homepage": None,
        "language": None, "forks": 0, "forks_count": 0, "stargazers_count": 0, "watchers": 0, "watchers_count": 0,
        "size": 1, "default_branch": repo.default_branch, "open_issues": open_issues, "open_issues_count": open_issues,
        "topics": [], "has_issues": True, "has_projects": True, "has_wiki": True, "has_pages": False,
        "has_downloads": True, "has_discussions": False, "archived": repo.archived, "disabled": False,
        "visibility": "private" if repo.private else "public", "license": None, "is_template": False,
        "allow_forking": True, "web_commit_signoff_required": False, "pushed_at": repo.created_at,
        "created_at": repo.created_at, "updated_at": repo.created_at,
    }  # fmt: skip
    if role is not None:
        rank = ("none", "read", "triage", "write", "maintain", "admin").index(role)
        levels = {"pull": 1, "triage": 2, "push": 3, "maintain": 4, "admin": 5}
        document["permissions"] = {name: rank >= level for name, level in levels.items()}
    if full:
        document |= {"network_count": 0, "subscribers_count": 0}
    return document


# -- git ---------------------------------------------------------------------------------------------------------------


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


# -- issues, pull requests, comments -----------------------------------------------------------------------------------


def rollup(repo: Repo, url: str, subject: tuple[str, int]) -> dict[str, Any]:
    counts = dict.fromkeys(CONTENTS, 0)
    for one in repo.reactions.values():
        counts[one.content] += one.subject == subject
    return {"url": f"{url}/reactions", "total_count": sum(counts.values()), **counts}


def association(repo: Repo, who: Account) -> str:
    if who.id == repo.owner.id:
        return "OWNER"
    return "COLLABORATOR" if repo.roles.get(who.login, "none") not in ("none",) else "NONE"


def issue(state: State, repo: Repo, one: Issue) -> dict[str, Any]:
    url = f"{repo_url(state, repo)}/issues/{one.number}"
    kind = "pull" if one.pull else "issues"
    html = f"{state.server_url}/{repo.full_name}/{kind}/{one.number}"
    document: dict[str, Any] = {
        "id": one.id, "node_id": node_id("Issue", one.id), "url": url, "repository_url": repo_url(state, repo),
        "labels_url": url + "/labels{/name}", "comments_url": f"{url}/comments", "events_url": f"{url}/events",
        "timeline_url": f"{url}/timeline", "html_url": html, "number": one.number, "state": one.state,
        "state_reason": "completed" if one.state == "closed" and not one.pull else None, "title": one.title,
        "body": one.body, "user": account(state, one.author), "labels": [], "assignee": None, "assignees": [],
        "milestone": None, "locked": one.locked, "active_lock_reason": one.lock_reason,
        "comments": sum(comment.issue == one.number for comment in repo.comments.values()),
        "created_at": one.created_at, "updated_at": one.updated_at, "closed_at": one.closed_at,
        "closed_by": account(state, one.closed_by) if one.closed_by else None,
        "author_association": association(repo, one.author), "reactions": rollup(repo, url, ("issue", one.number)),
        "performed_via_github_app": None,
    }  # fmt: skip
    if one.pull:
        api = f"{repo_url(state, repo)}/pulls/{one.number}"
        document |= {
            "draft": one.pull.draft,
            "pull_request": {
                "url": api, "html_url": html, "diff_url": f"{html}.diff", "patch_url": f"{html}.patch",
                "merged_at": one.pull.merged_at,
            },
        }  # fmt: skip
    return document


def comment(state: State, repo: Repo, one: Comment) -> dict[str, Any]:
    """A comment on an issue or pull request, or on a commit."""
    url, html = repo_url(state, repo), f"{state.server_url}/{repo.full_name}"
    common = {
        "id": one.id, "node_id": node_id("Comment", one.id), "body": one.body, "user": account(state, one.author),
        "created_at": one.created_at, "updated_at": one.updated_at,
        "author_association": association(repo, one.author),
    }  # fmt: skip
    if one.commit is not None:
        own = f"{url}/comments/{one.id}"
        return common | {
            "url": own, "html_url": f"{html}/commit/{one.commit}#commitcomment-{one.id}", "commit_id": one.commit,
            "path": None, "position": None, "line": None, "reactions": rollup(repo, own, ("commit comment", one.id)),
        }  # fmt: skip
    own, parent = f"{url}/issues/comments/{one.id}", repo.issues[one.issue or 0]
    kind = "pull" if parent.pull else "issues"
    return common | {
        "url": own, "issue_url": f"{url}/issues/{one.issue}",
        "html_url": f"{html}/{kind}/{one.issue}#issuecomment-{one.id}",
        "reactions": rollup(repo, own, ("comment", one.id)), "performed_via_github_app": None,
    }  # fmt: skip


def reaction(state: State, one: Reaction) -> dict[str, Any]:
    return {
        "id": one.id, "node_id": node_id("Reaction", one.id), "user": account(state, one.author),
        "content": one.content, "created_at": one.created_at,
    }  # fmt: skip


def pull(state: State, repo: Repo, one: Issue, live: dict[str, Any] | None = None) -> dict[str, Any]:
    """A pull request; ``live`` (mergeable, counts, ...) is part of a single one's reply only."""
    found = one.pull
    if found is None:
        raise LookupError(f"#{one.number} is not a pull request")
    url, html = f"{repo_url(state, repo)}/pulls/{one.number}", f"{state.server_url}/{repo.full_name}/pull/{one.number}"
    issue_url, statuses = (
        f"{repo_url(state, repo)}/issues/{one.number}",
        f"{repo_url(state, repo)}/statuses/{found.head_sha}",
    )
    links = {
        "self": url, "html": html, "issue": issue_url, "comments": f"{issue_url}/comments",
        "review_comments": f"{url}/comments", "review_comment": repo_url(state, repo) + "/pulls/comments{/number}",
        "commits": f"{url}/commits", "statuses": statuses,
    }  # fmt: skip
    return {
        "id": one.id, "node_id": node_id("PullRequest", one.id), "url": url, "html_url": html,
        "diff_url": f"{html}.diff", "patch_url": f"{html}.patch", "issue_url": issue_url,
        "commits_url": f"{url}/commits", "review_comments_url": f"{url}/comments",
        "review_comment_url": links["review_comment"], "comments_url": links["comments"], "statuses_url": statuses,
        "number": one.number, "state": one.state, "locked": one.locked, "active_lock_reason": one.lock_reason,
        "title": one.title, "body": one.body, "user": account(state, one.author), "labels": [], "milestone": None,
        "created_at": one.created_at, "updated_at": one.updated_at, "closed_at": one.closed_at,
        "merged_at": found.merged_at, "merge_commit_sha": found.merge_commit, "assignee": None, "assignees": [],
        "requested_reviewers": [], "requested_teams": [], "draft": found.draft, "auto_merge": None,
        "head": _side(state, state.repos.get(found.head_repo), found.head, found.head_sha, repo),
        "base": _side(state, repo, found.base, found.base_sha, repo),
        "_links": {name: {"href": href} for name, href in links.items()},
        "author_association": association(repo, one.author), **(live or {}),
    }  # fmt: skip


def _side(state: State, repo: Repo | None, branch: str, sha: str, base: Repo) -> dict[str, Any]:
    owner = (repo or base).owner
    return {
        "label": f"{owner.login}:{branch}", "ref": branch, "sha": sha, "user": account(state, owner),
        "repo": repository(state, repo, full=False) if repo else None,
    }  # fmt: skip


def pull_counts(state: State, repo: Repo, one: Issue, pull_: Pull) -> dict[str, Any]:
    """What a single pull request's reply has beside the list's: commits, files, whether it can be merged."""
    git = repo.git
    base = gits.merge_base(git, pull_.base_sha, pull_.head_sha) or pull_.base_sha
    files = gits.difference(git, base, pull_.head_sha)
    mergeable: bool | None = None
    word = "unknown"
    if one.state == "open" and pull_.looks >= repo.mergeable_after:
        mergeable = _test_merge(repo, git, one, pull_)
        word = "draft" if pull_.draft else "clean" if mergeable else "dirty"
    pull_.looks += 1
    return {
        "merged": pull_.merged_at is not None, "mergeable": mergeable, "rebaseable": mergeable, "mergeable_state": word,
        "merged_by": account(state, pull_.merged_by) if pull_.merged_by else None,
        "comments": sum(comment.issue == one.number for comment in repo.comments.values()), "review_comments": 0,
        "maintainer_can_modify": pull_.maintainer_can_modify,
        "commits": len(gits.between(git, base, pull_.head_sha)), "additions": sum(item.additions for item in files),
        "deletions": sum(item.deletions for item in files), "changed_files": len(files),
    }  # fmt: skip


def _test_merge(repo: Repo, git: pygit2.Repository, one: Issue, pull_: Pull) -> bool:
    """Whether it can be merged; where it can, GitHub keeps the merge that it tried (``refs/pull/N/merge``)."""
    tree = gits.merged_tree(git, pull_.base_sha, pull_.head_sha)
    if tree is not None and pull_.looks <= repo.mergeable_after:
        parents, who = [pull_.base_sha, pull_.head_sha], gits.Who("GitHub", "noreply@github.com")
        message = f"Merge {pull_.head_sha} into {pull_.base_sha}"
        pull_.merge_commit = gits.commit_tree(git, tree, parents, who, message)
        gits.set_ref(git, f"refs/pull/{one.number}/merge", pull_.merge_commit)
    elif tree is None:
        pull_.merge_commit = None
    return tree is not None


# -- checks, statuses, releases ----------------------------------------------------------------------------------------


def status(state: State, repo: Repo, one: Status) -> dict[str, Any]:
    return {
        "id": one.id, "node_id": node_id("Status", one.id), "url": f"{repo_url(state, repo)}/statuses/{one.sha}",
        "avatar_url": f"{state.server_url}/avatars/{one.creator.id}", "state": one.state, "context": one.context,
        "description": one.description, "target_url": one.target_url, "created_at": one.created_at,
        "updated_at": one.created_at, "creator": account(state, one.creator),
    }  # fmt: skip


def app(state: State, slug: str) -> dict[str, Any]:
    owner = state.account("github", "Organization")
    return {
        "id": 15368, "slug": slug, "node_id": node_id("App", 15368), "client_id": "Iv1.0000000000000000",
        "owner": account(state, owner), "name": slug, "description": "", "external_url": state.server_url,
        "html_url": f"{state.server_url}/apps/{slug}", "created_at": "2018-07-30T09:30:17Z",
        "updated_at": "2018-07-30T09:30:17Z", "permissions": {"checks": "write", "metadata": "read"}, "events": [],
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
