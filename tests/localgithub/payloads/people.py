"""Accounts, Apps and repositories, and addresses of the API."""

from __future__ import annotations

import base64
from typing import Any
from urllib.parse import quote

from tests.localgithub.state import Account, Repo, State


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


def app(state: State, slug: str) -> dict[str, Any]:
    owner = state.account("github", "Organization")
    return {
        "id": 15368, "slug": slug, "node_id": node_id("App", 15368), "client_id": "Iv1.0000000000000000",
        "owner": account(state, owner), "name": slug, "description": "", "external_url": state.server_url,
        "html_url": f"{state.server_url}/apps/{slug}", "created_at": "2018-07-30T09:30:17Z",
        "updated_at": "2018-07-30T09:30:17Z", "permissions": {"checks": "write", "metadata": "read"}, "events": [],
    }  # fmt: skip
