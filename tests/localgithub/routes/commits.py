"""Commits as people see them: lists, single ones, comparisons, comments, statuses."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

import pygit2
from pygit2.enums import SortMode
from starlette.responses import Response

from tests.localgithub import git as gits
from tests.localgithub import payloads
from tests.localgithub.call import Call, Router, no_content, page, reply, text
from tests.localgithub.errors import ApiError, invalid, not_found, too_long
from tests.localgithub.state import Comment, Status, now

router = Router()
_REPO = "/repos/{owner}/{repo}"
MAX_STATUSES = 1000


def commit_named(call: Call, rev: str) -> pygit2.Commit:
    """The commit.

    Raises:
        ApiError: 409 there is none at all; 422 not this one.
    """
    git = call.repo.git
    if gits.is_empty(git):
        raise ApiError(409, "Git Repository is empty.")
    found = gits.find(git, rev)
    if found is None:
        raise ApiError(422, f"No commit found for SHA: {rev}")
    return found


@router.on("GET", f"{_REPO}/commits", "contents=read")
def listing(call: Call) -> Response:
    git = call.repo.git
    start = commit_named(call, call.query("sha", call.repo.default_branch))
    path = call.query("path").strip("/")
    found = []
    for one in git.walk(start.id, SortMode.TOPOLOGICAL | SortMode.TIME):
        parent = str(one.parent_ids[0]) if one.parent_ids else None
        touched = path == "" or any(
            f"{item.path}/".startswith(f"{path}/") for item in gits.difference(git, parent, str(one.id))
        )
        if touched:
            found.append(payloads.commit(call.github, call.repo, one))
    return page(call, found)


@router.on("GET", f"{_REPO}/commits/{{sha}}/comments", "contents=read")
def comments(call: Call) -> Response:
    sha = str(commit_named(call, call.param("sha")).id)
    found = [one for one in call.repo.comments.values() if one.commit == sha]
    return page(call, [payloads.comment(call.github, call.repo, one) for one in found])


@router.on(
    "POST", f"{_REPO}/commits/{{sha}}/comments", "contents=write; issues=write; pull_requests=write", role="read"
)
def create_comment(call: Call) -> Response:
    found = gits.find(call.repo.git, call.param("sha"))
    if found is None:
        raise ApiError(422, f"No commit found for SHA: {call.param('sha')}")
    body = text(call.json(), "body", "CommitComment", required=True) or ""
    one = Comment(next(call.github.ids), call.account, body, commit=str(found.id))
    call.repo.comments[one.id] = one
    return reply(payloads.comment(call.github, call.repo, one), 201)


def _comment(call: Call) -> Comment:
    one = call.repo.comments.get(call.number("comment_id"))
    if one is None or one.commit is None:
        raise not_found()
    return one


@router.on("GET", f"{_REPO}/comments/{{comment_id}}", "contents=read")
def get_comment(call: Call) -> Response:
    return reply(payloads.comment(call.github, call.repo, _comment(call)))


@router.on(
    "PATCH", f"{_REPO}/comments/{{comment_id}}", "contents=write; issues=write; pull_requests=write", role="read"
)
def edit_comment(call: Call) -> Response:
    one = _comment(call)
    one.body, one.updated_at = text(call.json(), "body", "CommitComment", required=True) or "", now()
    return reply(payloads.comment(call.github, call.repo, one))


@router.on(
    "DELETE", f"{_REPO}/comments/{{comment_id}}", "contents=write; issues=write; pull_requests=write", role="read"
)
def delete_comment(call: Call) -> Response:
    del call.repo.comments[_comment(call).id]
    return no_content()


@router.on("GET", f"{_REPO}/commits/{{sha}}/pulls", "pull_requests=read")
def pulls(call: Call) -> Response:
    sha = str(commit_named(call, call.param("sha")).id)
    git, found = call.repo.git, []
    for issue in call.repo.issues.values():
        pull = issue.pull
        if pull is None or (issue.state == "closed" and not pull.merged_at):
            continue
        brought = {str(one.id) for one in gits.between(git, pull.base_sha, pull.head_sha)}
        if sha in brought or (pull.merged_at and sha == pull.merge_commit):
            found.append(payloads.pull(call.github, call.repo, issue))
    return page(call, found)


@router.on("GET", f"{_REPO}/commits/{{sha:path}}/status", "statuses=read")
def combined(call: Call) -> Response:
    sha = str(commit_named(call, call.param("sha")).id)
    newest: dict[str, Status] = {}
    for one in call.repo.statuses:
        if one.sha == sha:
            newest[one.context] = one
    states = {one.state for one in newest.values()}
    failed = states & {"failure", "error"}
    state = "failure" if failed else "success" if states == {"success"} else "pending"
    url = payloads.repo_url(call.github, call.repo)
    found: list[dict[str, Any]] = []
    for one in newest.values():
        found.append({k: v for k, v in payloads.status(call.github, call.repo, one).items() if k != "creator"})
    return reply(
        {"state": state, "statuses": found, "sha": sha, "total_count": len(found),
         "repository": payloads.repository(call.github, call.repo, full=False), "commit_url": f"{url}/commits/{sha}",
         "url": f"{url}/commits/{sha}/status"}
    )  # fmt: skip


@router.on("GET", f"{_REPO}/statuses/{{sha}}", "statuses=read")  # not described any more, but served
@router.on("GET", f"{_REPO}/commits/{{sha:path}}/statuses", "statuses=read")
def statuses(call: Call) -> Response:
    sha = str(commit_named(call, call.param("sha")).id)
    found = [one for one in reversed(call.repo.statuses) if one.sha == sha]
    return page(call, [payloads.status(call.github, call.repo, one) for one in found])


@router.on("POST", f"{_REPO}/statuses/{{sha}}", "statuses=write")
def create_status(call: Call) -> Response:
    data, git = call.json(), call.repo.git
    found = gits.find(git, call.param("sha"))
    if found is None:
        raise ApiError(422, f"No commit found for SHA: {call.param('sha')}")
    if data.get("state") not in ("error", "failure", "pending", "success"):
        raise invalid("Status", "state")
    context = text(data, "context", "Status", 255) or "default"
    description, target = text(data, "description", "Status", 140), text(data, "target_url", "Status")
    if target is not None and not target.startswith(("http://", "https://")):
        raise invalid("Status", "target_url", message="target_url must use http(s) scheme")
    same = sum(one.sha == str(found.id) and one.context == context for one in call.repo.statuses)
    if same >= MAX_STATUSES:
        raise too_long("Status", "context", MAX_STATUSES)
    one = Status(next(call.github.ids), str(found.id), call.account, data["state"], context, description, target)
    call.repo.statuses.append(one)
    return reply(payloads.status(call.github, call.repo, one), 201)


@router.on("GET", f"{_REPO}/commits/{{sha:path}}/check-runs", "checks=read")
def check_runs(call: Call) -> Response:
    sha, name = str(commit_named(call, call.param("sha")).id), call.query("check_name")
    newest = {}
    for one in call.repo.check_runs.values():
        if one.head_sha == sha and (not name or one.name == name) and call.query("status", one.status) == one.status:
            newest[one.id if call.query("filter") == "all" else (one.name, one.app)] = one
    found = [payloads.check_run(call.github, call.repo, one) for one in newest.values()]
    return page(call, found, "check_runs", total=True)


@router.on("GET", f"{_REPO}/commits/{{sha:path}}", "contents=read")
def show(call: Call) -> Response:
    found, git = commit_named(call, call.param("sha")), call.repo.git
    if call.accept.endswith(".sha"):
        return Response(str(found.id), media_type="application/vnd.github.sha")
    parent = str(found.parent_ids[0]) if found.parent_ids else None
    return reply(payloads.commit(call.github, call.repo, found, gits.difference(git, parent, str(found.id))))


@router.on("GET", f"{_REPO}/compare/{{basehead:path}}", "contents=read")
def compare(call: Call) -> Response:
    git = call.repo.git
    names = call.param("basehead").split("...")
    sides = [_side(call, name) for name in names] if len(names) == 2 else []
    if not sides or None in sides:
        raise not_found()
    base, head = (str(one.id) for one in sides if one)
    common = gits.merge_base(git, base, head)
    if common is None:
        raise ApiError(404, f"No common ancestor between {names[0]} and {names[1]}.")
    ahead, behind = gits.between(git, base, head), gits.between(git, head, base)
    word = "diverged" if ahead and behind else "ahead" if ahead else "behind" if behind else "identical"
    url, html = payloads.repo_url(call.github, call.repo), f"{call.github.server_url}/{call.repo.full_name}/compare"
    span, files = quote("...".join(names)), gits.difference(git, common, head)
    return reply(
        {
            "url": f"{url}/compare/{span}", "html_url": f"{html}/{span}", "permalink_url": f"{html}/{span}",
            "diff_url": f"{html}/{span}.diff", "patch_url": f"{html}/{span}.patch", "status": word,
            "base_commit": payloads.commit(call.github, call.repo, git[base].peel(pygit2.Commit)),
            "merge_base_commit": payloads.commit(call.github, call.repo, git[common].peel(pygit2.Commit)),
            "ahead_by": len(ahead), "behind_by": len(behind), "total_commits": len(ahead),
            "commits": [payloads.commit(call.github, call.repo, one) for one in ahead[:250]],
            "files": [payloads.changed(call.github, call.repo, one, head) for one in files[:300]],
        }
    )  # fmt: skip


def _side(call: Call, name: str) -> pygit2.Commit | None:
    """A side of a comparison: ``branch`` here, or ``owner:branch`` of a fork."""
    owner, _, rev = name.rpartition(":")
    source = call.github.fork_of(call.repo, owner) if owner else call.repo
    if source is None:
        return None
    if source.id != call.repo.id:
        gits.fetch(call.repo.directory / "git", source.directory / "git")
    found = gits.find(source.git, rev)
    return call.repo.git[found.id].peel(pygit2.Commit) if found else None
