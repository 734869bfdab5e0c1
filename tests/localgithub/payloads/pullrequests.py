"""Pull requests, and what is worked out for a single one: whether it can be merged, counts."""

from __future__ import annotations

from typing import Any

import pygit2

from tests.localgithub import git as gits
from tests.localgithub.payloads.conversations import association
from tests.localgithub.payloads.people import account, node_id, repo_url, repository
from tests.localgithub.state import Issue, Pull, Repo, State


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
