"""Issues, comments and reactions."""

from __future__ import annotations

from typing import Any

from tests.localgithub.payloads.people import account, node_id, repo_url
from tests.localgithub.state import Account, Comment, Issue, Reaction, Repo, State

CONTENTS = ("+1", "-1", "laugh", "hooray", "confused", "heart", "rocket", "eyes")


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
