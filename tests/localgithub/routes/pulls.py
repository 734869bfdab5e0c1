"""Pull requests: opened from a branch here or in a fork, edited, closed, merged."""

from __future__ import annotations

from typing import Any

from starlette.responses import Response

from tests.localgithub import git as gits
from tests.localgithub import payloads, refs
from tests.localgithub.call import Call, Router, page, reply, text
from tests.localgithub.errors import ApiError, invalid, not_found, refused
from tests.localgithub.git import Who
from tests.localgithub.routes.issues import may_edit, next_number
from tests.localgithub.state import ACTIONS_BOT, Issue, Pull, Repo, now

router = Router()
_REPO = "/repos/{owner}/{repo}/pulls"
NO_ACTIONS = "GitHub Actions is not permitted to create or approve pull requests."


def pull(call: Call) -> tuple[Issue, Pull]:
    one = call.repo.issues.get(call.number("number"))
    if one is None or one.pull is None:
        raise not_found()
    return one, one.pull


def _single(call: Call, one: Issue, found: Pull) -> dict[str, Any]:
    live = payloads.pull_counts(call.github, call.repo, one, found)
    return payloads.pull(call.github, call.repo, one, live)


@router.on("GET", _REPO, "pull_requests=read")
def listing(call: Call) -> Response:
    """``head`` filters only in the form ``owner:branch``; GitHub ignores any other."""
    state, base, head = call.query("state", "open"), call.query("base"), call.query("head")
    if state not in ("open", "closed", "all"):
        raise invalid("PullRequest", "state")
    found = []
    for one in call.repo.issues.values():
        if one.pull is None or state not in ("all", one.state) or (base and one.pull.base != base):
            continue
        source = call.github.repos.get(one.pull.head_repo)
        label = f"{source.owner.login if source else ''}:{one.pull.head}"
        if ":" in head and label.lower() != head.lower():
            continue
        found.append(one)
    sort = call.query("sort", "created")
    default = "desc" if sort == "created" else "asc"
    key = "updated_at" if sort == "updated" else "number"
    found.sort(key=lambda one: getattr(one, key), reverse=call.query("direction", default) == "desc")
    return page(call, [payloads.pull(call.github, call.repo, one) for one in found])


@router.on("POST", _REPO, "pull_requests=write", role="read")
def create(call: Call) -> Response:
    data, repo = call.json(), call.repo
    for name in ("head", "base"):
        if not isinstance(data.get(name), str):
            raise ApiError(422, f'Invalid request.\n\n"{name}" wasn\'t supplied.')
    if call.account.login == ACTIONS_BOT and not repo.actions_may_open_pulls:
        raise ApiError(403, NO_ACTIONS)
    title, body = text(data, "title", "PullRequest", 256, required=True), text(data, "body", "PullRequest")
    base_sha = gits.branch(repo.git, data["base"])
    owner, _, branch = data["head"].rpartition(":")
    source = call.github.fork_of(repo, owner) if owner else repo
    head_sha = gits.branch(source.git, branch) if source else None
    if base_sha is None:
        raise invalid("PullRequest", "base")
    if source is None or head_sha is None:
        raise invalid("PullRequest", "head")
    may_push = call.token is not None and (
        call.token.kind == "installation" or source.role_of(call.account) in ("write", "maintain", "admin")
    )
    if not may_push:
        raise not_found()
    if open_pull(repo, source, branch, data["base"]):
        raise refused("PullRequest", f"A pull request already exists for {source.owner.login}:{branch}.")
    if source.id != repo.id:
        gits.fetch(repo.directory / "git", source.directory / "git")
    _check_history(repo, base_sha, head_sha, data["base"], data["head"])
    found = Pull(
        source.id, branch, data["base"], head_sha, base_sha, draft=data.get("draft") is True,
        maintainer_can_modify=source.id != repo.id and data.get("maintainer_can_modify") is not False,
    )  # fmt: skip
    one = Issue(next(call.github.ids), next_number(call), call.account, title or "", body, pull=found)
    repo.issues[one.number] = one
    gits.set_ref(repo.git, f"refs/pull/{one.number}/head", head_sha)
    document = _single(call, one, found)
    return reply(document, 201, {"Location": document["url"]})


def open_pull(repo: Repo, source: Repo, branch: str, base: str) -> Issue | None:
    for one in repo.issues.values():
        same = one.pull and (one.pull.head_repo, one.pull.head, one.pull.base) == (source.id, branch, base)
        if same and one.state == "open":
            return one
    return None


def _check_history(repo: Repo, base_sha: str, head_sha: str, base: str, head: str) -> None:
    git = repo.git
    if gits.merge_base(git, base_sha, head_sha) is None:
        raise refused("PullRequest", f"The {head} branch has no history in common with {base}")
    if not gits.between(git, base_sha, head_sha):
        raise refused("PullRequest", f"No commits between {base} and {head}")


@router.on("GET", _REPO + "/{number}", "pull_requests=read")
def show(call: Call) -> Response:
    return reply(_single(call, *pull(call)))


@router.on("PATCH", _REPO + "/{number}", "pull_requests=write", role="read")
def edit(call: Call) -> Response:
    (one, found), data, repo = pull(call), call.json(), call.repo
    may_edit(call, one.author.id)
    title, body = text(data, "title", "PullRequest", 256), text(data, "body", "PullRequest")
    state, base = data.get("state"), data.get("base")
    if title == "":
        raise invalid("PullRequest", "title", "missing_field")
    if state not in (None, "open", "closed"):
        raise invalid("PullRequest", "state")
    if base is not None and gits.branch(repo.git, base) is None:
        raise invalid("PullRequest", "base")
    if state == "open" and one.state == "closed":
        _reopen(call, one, found)
    elif state == "closed" and one.state == "open":
        one.state, one.closed_at, one.closed_by = "closed", now(), call.account
    one.title = one.title if title is None else title
    one.body = body if "body" in data else one.body
    if base is not None:
        found.base = base
        refs.sync(call.github, repo)
    one.updated_at = now()
    return reply(_single(call, one, found))


def _reopen(call: Call, one: Issue, found: Pull) -> None:
    """Raises:
    ApiError: 422, it was merged, its branch is gone or was rewritten, or another is open from there.
    """
    source = call.github.repos.get(found.head_repo)
    tip = gits.branch(source.git, found.head) if source else None
    reason = ""
    if found.merged_at:
        reason = "The pull request cannot be reopened."
    elif source is None or tip is None:
        reason = f"The {found.head} branch has been deleted."
    elif open_pull(call.repo, source, found.head, found.base):
        reason = f"There is already an open pull request from {found.head} to {found.base}."
    elif not gits.is_fast_forward(source.git, found.head_sha, tip):
        reason = f"The {found.head} branch was force-pushed or recreated."
    if reason:
        raise invalid("PullRequest", "state", message=f"state cannot be changed. {reason}")
    one.state, one.closed_at, one.closed_by = "open", None, None
    refs.sync(call.github, call.repo)


@router.on("GET", _REPO + "/{number}/files", "pull_requests=read")
def files(call: Call) -> Response:
    _, found = pull(call)
    git = call.repo.git
    base = gits.merge_base(git, found.base_sha, found.head_sha) or found.base_sha
    changed = gits.difference(git, base, found.head_sha)
    return page(call, [payloads.changed(call.github, call.repo, item, found.head_sha) for item in changed])


@router.on("GET", _REPO + "/{number}/commits", "pull_requests=read")
def commits(call: Call) -> Response:
    _, found = pull(call)
    git = call.repo.git
    base = gits.merge_base(git, found.base_sha, found.head_sha) or found.base_sha
    return page(call, [payloads.commit(call.github, call.repo, one) for one in gits.between(git, base, found.head_sha)])


@router.on("PUT", _REPO + "/{number}/merge", "contents=write")
def merge(call: Call) -> Response:
    (one, found), data, repo = pull(call), call.json(), call.repo
    git = repo.git
    if one.state == "closed" or found.draft:
        raise ApiError(405, "Pull Request is not mergeable")
    if data.get("sha") not in (None, found.head_sha):
        raise ApiError(409, "Head branch was modified. Review and try the merge again.")
    tree = gits.merged_tree(git, found.base_sha, found.head_sha)
    if tree is None:
        raise ApiError(405, "Pull Request is not mergeable")
    refs.check_rules(repo, call.account.login, f"refs/heads/{found.base}", "update", 405)
    squash = data.get("merge_method", "merge") != "merge"
    parents = [found.base_sha] if squash else [found.base_sha, found.head_sha]
    title = data.get("commit_title") or (
        f"{one.title} (#{one.number})" if squash else f"Merge pull request #{one.number}"
    )
    author = Who(call.account.login, f"{call.account.login}@users.noreply.github.com")
    sha = gits.commit_tree(git, tree, parents, author, str(title))
    one.state, one.closed_at, one.closed_by = "closed", now(), call.account
    found.merged_at, found.merged_by, found.merge_commit = now(), call.account, sha
    refs.move(call.github, repo, found.base, sha)
    if repo.delete_branch_on_merge and found.head_repo == repo.id:
        refs.move(call.github, repo, found.head, None)
    return reply({"sha": sha, "merged": True, "message": "Pull Request successfully merged"})


@router.on("GET", _REPO + "/{number}/merge", "pull_requests=read")
def merged(call: Call) -> Response:
    if pull(call)[1].merged_at is None:
        raise not_found()
    return Response(status_code=204)
