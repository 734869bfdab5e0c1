"""The Hub's webhooks: a body in, what to do or the reason why nothing out. Pure; stage 1.

``parse`` is for the bot's own endpoint, ``read`` for payloads that somebody forwards to the Action. Only a move of a
model's main branch counts, and a comment that may be a command: pull requests, ours among them, move refs of their
own, and settings change no weights. What a payload says is never more than a reason to look at the Hub.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from typing import Any, TypeGuard

from bot.errors import InvalidEvent
from bot.publish.card import REPO_ID
from bot.publish.markdown import one_line
from bot.triggers import comments, hub_payload
from bot.triggers.hub_payload import Malformed, Payload
from bot.triggers.request import Ignored, Overrides

MAIN = "refs/heads/main"
_SHA = re.compile(r"(?!0{40})[0-9a-f]{40}")


@dataclass(frozen=True, kw_only=True)
class Push:
    """A model's main branch moved."""

    repo_id: str
    sha: str
    key: str
    """Equal for the same event delivered twice: repository, ref and new commit."""


@dataclass(frozen=True, kw_only=True)
class Said:
    """A comment that may be a command was written."""

    repo_id: str
    discussion: int
    comment_id: str
    author_id: str | None
    key: str
    """Equal for the same comment."""


def parse(body: bytes) -> Push | Said | Ignored:
    """What a webhook's body asks for.

    Raises:
        Unreadable: it is no JSON.
    """
    try:
        found = hub_payload.load(body)
    except Malformed as error:
        return Ignored(reason=str(error))
    if found.repo.type != "model":
        return Ignored(reason=f"the repository is a {_word(found.repo.type)}, no model")
    repo_id = found.repo_id
    if repo_id is None:
        return Ignored(reason="the repository's name is not OWNER/NAME")
    scope, action = found.scope
    if scope == "repo.content":
        return _push(found, repo_id, action)
    if scope in ("discussion.comment", "discussion"):
        return _said(found, repo_id, action)
    return Ignored(reason=f"{_word(scope)} {_word(action)} changes no file of a model")


def _push(found: Payload, repo_id: str, action: str) -> Push | Ignored:
    if action != "update":
        return Ignored(reason=f"repo.content {_word(action)} is no push")
    sha = found.repo.headSha
    if found.updatedRefs is not None:
        moves = [move for move in found.updatedRefs if move.ref == MAIN]
        if not moves:
            return Ignored(reason="the main branch did not move")
        sha = moves[-1].newSha
    if not isinstance(sha, str) or not _SHA.fullmatch(sha):
        return Ignored(reason="it names no commit of the main branch")
    return Push(repo_id=repo_id, sha=sha, key=f"push:{_repo_key(found)}:{MAIN}:{sha}")


def _repo_key(found: Payload) -> str:
    """The id, which outlives a rename, or where there is none the name, shortened to fit a key."""
    return found.repo.id or hashlib.sha256(found.repo.name.lower().encode()).hexdigest()


def _said(found: Payload, repo_id: str, action: str) -> Said | Ignored:
    """New comments, the first one of a discussion or pull request among them; a changed one was answered before."""
    comment = found.comment
    if action != "create":
        return Ignored(reason="nothing new was said")
    if comment is None or found.discussion is None:
        return Ignored(reason="it brings no comment")
    if comment.hidden:
        return Ignored(reason="the comment is hidden")
    if comment.content is not None and comments.parse(comment.content) is None:
        return Ignored(reason=f"the comment does not begin with {comments.CALL}")
    return Said(
        repo_id=repo_id,
        discussion=found.discussion.num,
        comment_id=comment.id,
        author_id=comment.author.id if comment.author is not None else None,
        key=f"comment:{comment.id}",
    )


def _word(value: str) -> str:
    return one_line(value, 40) or "nothing"


def is_webhook(payload: Any) -> TypeGuard[dict[str, Any]]:
    """Whether it is a payload of the Hub's rather than settings of our own."""
    return (
        isinstance(payload, dict) and isinstance(payload.get("event"), dict) and isinstance(payload.get("repo"), dict)
    )


def read(payload: dict[str, Any]) -> Overrides | str:
    """The model and the commit to export, or why there is nothing to do.

    Raises:
        InvalidEvent: it is about a model's content and does not name the model.
    """
    event, repo = payload["event"], payload["repo"]
    scope, action = event.get("scope"), event.get("action")
    if repo.get("type") != "model":
        return "the Hub's event is about a repository that is no model"
    content = isinstance(scope, str) and scope == "repo.content" and action == "update"
    if not content and not (scope == "repo" and action == "create"):
        return "the Hub's event changed no file of a model"
    name = repo.get("name")
    if not isinstance(name, str) or not REPO_ID.fullmatch(name):
        raise InvalidEvent("The Hub's event does not name its repository.")
    moved = payload.get("updatedRefs")
    head = repo.get("headSha")
    if isinstance(moved, list):
        main = [one for one in moved if isinstance(one, dict) and one.get("ref") == MAIN]
        if not main:
            return "the Hub's event moved no main branch"
        head = main[0].get("newSha")
    if not isinstance(head, str) or not _SHA.fullmatch(head):
        return "the Hub's event names no commit of the main branch"
    return Overrides(model=name, revision=head)
