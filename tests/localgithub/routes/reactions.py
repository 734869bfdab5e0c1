"""Reactions to issues, pull requests and comments: one of a kind per person."""

from __future__ import annotations

from starlette.responses import Response

from tests.localgithub import payloads
from tests.localgithub.call import Call, Router, no_content, page, reply
from tests.localgithub.errors import ApiError, invalid, not_found
from tests.localgithub.routes import issues
from tests.localgithub.state import Reaction

router = Router()
_REPO = "/repos/{owner}/{repo}"
_ISSUE = _REPO + "/issues/{number}/reactions"
_COMMENT = _REPO + "/issues/comments/{comment_id}/reactions"
_COMMIT = _REPO + "/comments/{comment_id}/reactions"


def _subject(call: Call) -> tuple[str, int]:
    """What is reacted to.

    Raises:
        ApiError: 404 no such; 403 it is locked.
    """
    path, locked = call.handler.path, False
    if path.startswith(_ISSUE):
        found = issues.issue(call)
        locked, subject = found.locked, ("issue", found.number)
    elif path.startswith(_COMMENT):
        one = issues.comment(call)
        locked, subject = call.repo.issues[one.issue or 0].locked, ("comment", one.id)
    else:
        other = call.repo.comments.get(call.number("comment_id"))
        if other is None or other.commit is None:
            raise not_found()
        subject = ("commit comment", other.id)
    if call.request.method == "POST" and locked and not issues.may_speak_when_locked(call):
        raise ApiError(403, "Unable to react because the conversation is locked.")
    return subject


def listing(call: Call) -> Response:
    subject, content = _subject(call), call.query("content")
    found = [one for one in call.repo.reactions.values() if one.subject == subject and content in ("", one.content)]
    return page(call, [payloads.reaction(call.github, one) for one in found])


def create(call: Call) -> Response:
    """201 for a new reaction, 200 for the caller's own of the same kind."""
    subject, content = _subject(call), call.json().get("content")
    if content not in payloads.CONTENTS:
        raise invalid("Reaction", "content")
    for one in call.repo.reactions.values():
        if (one.subject, one.content, one.author.id) == (subject, content, call.account.id):
            return reply(payloads.reaction(call.github, one))
    made = Reaction(next(call.github.ids), call.account, content, subject)
    call.repo.reactions[made.id] = made
    return reply(payloads.reaction(call.github, made), 201)


def delete(call: Call) -> Response:
    subject, one = _subject(call), call.repo.reactions.get(call.number("reaction_id"))
    if one is None or one.subject != subject:
        raise not_found()
    if one.author.id != call.account.id:
        raise ApiError(403, "You are not permitted to delete this reaction.")
    del call.repo.reactions[one.id]
    return no_content()


for _path in (_ISSUE, _COMMENT, _COMMIT):
    _write = "contents=write" if _path == _COMMIT else issues.EITHER
    router.on("GET", _path, _write.replace("write", "read"))(listing)
    router.on("POST", _path, _write, role="read")(create)
    router.on("DELETE", _path + "/{reaction_id}", _write, role="read")(delete)
