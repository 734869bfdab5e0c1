"""Webhook payloads of version 3, built from what happened, and handed to the deliveries.

Shapes: https://huggingface.co/docs/hub/webhooks. ``headSha`` stands in the repo part for repo scopes only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal

from bot.localhub.context import Call
from bot.localhub.repos import RefUpdate, Repo

if TYPE_CHECKING:
    from bot.localhub.discussions import Discussion, Event

Action = Literal["create", "delete", "update", "move"]


def repository(call: Call, repo: Repo, action: Action) -> None:
    """Scope ``repo``: it was created, deleted or moved."""
    _send(call, repo, action, "repo", head=action != "delete")


def content(call: Call, repo: Repo, updates: list[RefUpdate]) -> None:
    """Scope ``repo.content``: refs moved."""
    refs = [{"ref": item.ref, "oldSha": item.old, "newSha": item.new} for item in updates]
    _send(call, repo, "update", "repo.content", updatedRefs=refs)


def config(call: Call, repo: Repo, changed: dict[str, Any]) -> None:
    """Scope ``repo.config``: settings changed."""
    _send(call, repo, "update", "repo.config", updatedConfig=changed)


def discussion(call: Call, repo: Repo, item: Discussion, action: Action, comment: Event | None = None) -> None:
    """Scope ``discussion``: opened (with its first comment), retitled, closed, merged, deleted."""
    extra = {"discussion": _discussion(call, repo, item)}
    if comment:
        extra["comment"] = _comment(call, repo, item, comment)
    _send(call, repo, action, "discussion", head=False, **extra)


def comment(call: Call, repo: Repo, item: Discussion, action: Action, event: Event) -> None:
    """Scope ``discussion.comment``: written, edited, hidden."""
    extra = {"discussion": _discussion(call, repo, item), "comment": _comment(call, repo, item, event)}
    _send(call, repo, action, "discussion.comment", head=False, **extra)


def _send(call: Call, repo: Repo, action: Action, scope: str, *, head: bool = True, **extra: Any) -> None:
    payload = {"event": {"action": action, "scope": scope}, "repo": _repo(call, repo, head=head), **extra}
    call.hub.deliveries.publish(repo, payload)


def _repo(call: Call, repo: Repo, *, head: bool) -> dict[str, Any]:
    value: dict[str, Any] = {
        "type": "model",
        "name": repo.full_name,
        "id": repo.id,
        "private": repo.private,
        "url": {
            "web": f"{call.endpoint}/{repo.full_name}",
            "api": f"{call.endpoint}/api/models/{repo.full_name}",
        },
        "owner": {"id": repo.owner.id},
    }
    if head:
        value["headSha"] = str(repo.git().commit("main").id)
    return value


def _discussion(call: Call, repo: Repo, item: Discussion) -> dict[str, Any]:
    path = f"{repo.full_name}/discussions/{item.num}"
    value: dict[str, Any] = {
        "id": item.id,
        "title": item.title,
        "url": {"web": f"{call.endpoint}/{path}", "api": f"{call.endpoint}/api/models/{path}"},
        "status": item.status,
        "author": {"id": item.author.id},
        "num": item.num,
        "isPullRequest": item.is_pr,
    }
    if item.is_pr:
        value["changes"] = {"base": item.base}
        if item.merge_oid:
            value["changes"]["mergeCommitId"] = item.merge_oid
    return value


def _comment(call: Call, repo: Repo, item: Discussion, event: Event) -> dict[str, Any]:
    hidden = bool(event.data["hidden"])
    value: dict[str, Any] = {
        "id": event.id,
        "author": {"id": event.author.id},
        "hidden": hidden,
        "url": {"web": f"{call.endpoint}/{repo.full_name}/discussions/{item.num}#{event.id}"},
    }
    if not hidden:
        value["content"] = event.data["raw"]
    return value
