"""The Hub's webhooks, as somebody forwards them: a payload in, what to export or the reason why nothing out. Pure.

Stage 1. Shapes: https://huggingface.co/docs/hub/webhooks (version 3). Only a move of a model's main branch counts:
pull requests, ours among them, move refs of their own, and discussions and settings change no weights.
"""

from __future__ import annotations

import re
from typing import Any, TypeGuard

from bot.errors import InvalidEvent
from bot.publish.card import REPO_ID
from bot.triggers.request import Overrides

MAIN = "refs/heads/main"
_SHA = re.compile(r"(?!0{40})[0-9a-f]{40}")


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
