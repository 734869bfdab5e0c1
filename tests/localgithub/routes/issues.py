"""Issues (pull requests are issues too) and their comments."""

from __future__ import annotations

from datetime import UTC, datetime

from starlette.responses import Response

from tests.localgithub import payloads
from tests.localgithub.call import Call, Router, no_content, page, reply, text
from tests.localgithub.errors import ApiError, invalid, not_found
from tests.localgithub.state import Comment, Issue, now

router = Router()
_REPO = "/repos/{owner}/{repo}/issues"
EITHER = "issues=write; pull_requests=write"
READ = "issues=read; pull_requests=read"


def issue(call: Call) -> Issue:
    """The issue or pull request that the address names.

    Raises:
        ApiError: 404 no such; 403 the token has the right for the other kind only.
    """
    found = call.repo.issues.get(call.number("number"))
    if found is None:
        raise not_found()
    writing = call.request.method not in ("GET", "HEAD")
    if (
        writing
        and call.token
        and call.token.permissions is not None
        and found.pull is None
        and not call.allowed("issues", "write")
    ):
        raise call.forbidden()
    return found


def comment(call: Call) -> Comment:
    one = call.repo.comments.get(call.number("comment_id"))
    if one is None or one.issue is None:
        raise not_found()
    return one


def may_edit(call: Call, author_id: int) -> None:
    """Raises:
    ApiError: 403, the caller is neither the author nor allowed to write.
    """
    installation = call.token is not None and call.token.kind == "installation"
    if not installation and call.account.id != author_id and call.role not in ("write", "maintain", "admin"):
        raise ApiError(403, "Must have admin rights to Repository.")


def may_speak_when_locked(call: Call) -> bool:
    """People who may write the repository; Apps may not, whatever their permissions (a job's token is an App's)."""
    installation = call.token is not None and call.token.kind == "installation"
    return not installation and call.role in ("write", "maintain", "admin")


def since(call: Call) -> str:
    """The query's ``since`` in the form in which times are kept.

    Raises:
        ApiError: 422, not a time.
    """
    value = call.query("since")
    if not value:
        return ""
    try:
        return datetime.fromisoformat(value).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    except ValueError:
        raise invalid("Search", "since") from None


@router.on("GET", _REPO, READ)
def listing(call: Call) -> Response:
    state, start = call.query("state", "open"), since(call)
    found = [one for one in call.repo.issues.values() if state in ("all", one.state) and one.updated_at >= start]
    if call.query("creator"):
        found = [one for one in found if one.author.login.lower() == call.query("creator").lower()]
    found.sort(key=lambda one: one.number, reverse=call.query("direction", "desc") == "desc")
    return page(call, [payloads.issue(call.github, call.repo, one) for one in found])


@router.on("POST", _REPO, "issues=write", role="read")
def create(call: Call) -> Response:
    data = call.json()
    title, body = text(data, "title", "Issue", 256, required=True), text(data, "body", "Issue")
    one = Issue(next(call.github.ids), next_number(call), call.account, title or "", body)
    call.repo.issues[one.number] = one
    return reply(payloads.issue(call.github, call.repo, one), 201)


def next_number(call: Call) -> int:
    return max(call.repo.issues, default=0) + 1


@router.on("GET", _REPO + "/comments", READ)
def all_comments(call: Call) -> Response:
    return _comments(call, None)


@router.on("GET", _REPO + "/comments/{comment_id}", READ)
def get_comment(call: Call) -> Response:
    return reply(payloads.comment(call.github, call.repo, comment(call)))


@router.on("PATCH", _REPO + "/comments/{comment_id}", EITHER, role="read")
def edit_comment(call: Call) -> Response:
    one = comment(call)
    may_edit(call, one.author.id)
    one.body, one.updated_at = text(call.json(), "body", "IssueComment", required=True) or "", now()
    return reply(payloads.comment(call.github, call.repo, one))


@router.on("DELETE", _REPO + "/comments/{comment_id}", EITHER, role="read")
def delete_comment(call: Call) -> Response:
    one = comment(call)
    may_edit(call, one.author.id)
    del call.repo.comments[one.id]
    for key in [key for key, value in call.repo.reactions.items() if value.subject == ("comment", one.id)]:
        del call.repo.reactions[key]
    return no_content()


@router.on("GET", _REPO + "/{number}", READ)
def show(call: Call) -> Response:
    return reply(payloads.issue(call.github, call.repo, issue(call)))


@router.on("PATCH", _REPO + "/{number}", EITHER, role="read")
def edit(call: Call) -> Response:
    one, data = issue(call), call.json()
    may_edit(call, one.author.id)
    title, body = text(data, "title", "Issue", 256), text(data, "body", "Issue")
    state = data.get("state")
    if state not in (None, "open", "closed"):
        raise invalid("Issue", "state")
    one.title = one.title if title is None else title
    one.body = body if "body" in data else one.body
    if state and state != one.state:
        one.state = state
        one.closed_at, one.closed_by = (now(), call.account) if state == "closed" else (None, None)
    one.updated_at = now()
    return reply(payloads.issue(call.github, call.repo, one))


@router.on("GET", _REPO + "/{number}/comments", READ)
def comments(call: Call) -> Response:
    return _comments(call, issue(call).number)


def _comments(call: Call, number: int | None) -> Response:
    start = since(call)
    found = [one for one in call.repo.comments.values() if one.issue is not None and number in (None, one.issue)]
    return page(call, [payloads.comment(call.github, call.repo, one) for one in found if one.updated_at >= start])


@router.on("POST", _REPO + "/{number}/comments", EITHER, role="read")
def create_comment(call: Call) -> Response:
    parent = issue(call)
    if parent.locked and not may_speak_when_locked(call):
        raise ApiError(403, "Unable to create comment because issue is locked.")
    body = text(call.json(), "body", "IssueComment", required=True) or ""
    one = Comment(next(call.github.ids), call.account, body, issue=parent.number)
    call.repo.comments[one.id] = one
    parent.updated_at = now()
    document = payloads.comment(call.github, call.repo, one)
    return reply(document, 201, {"Location": document["url"]})


@router.on("PUT", _REPO + "/{number}/lock", EITHER)
def lock(call: Call) -> Response:
    one = issue(call)
    one.locked, one.lock_reason = True, call.json().get("lock_reason")
    return no_content()


@router.on("DELETE", _REPO + "/{number}/lock", EITHER)
def unlock(call: Call) -> Response:
    one = issue(call)
    one.locked, one.lock_reason = False, None
    return no_content()
