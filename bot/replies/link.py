"""A link back: the pull request that a push came from is told where its files are offered. Stage 6.

Only where the files went somewhere else than to this repository. One comment for a model and a conversation, edited
when there is something new; a conversation that had no part in it gets none.
"""

from __future__ import annotations

import hashlib
from typing import Any

from bot.githubapi import Client, asking
from bot.publish.markdown import code, text
from bot.replies.comment import Comment, link_marker
from bot.replies.shapes import rows, web_address
from bot.triggers.request import Origin

OPERATIONS = {"created": "offered", "updated": "offered anew"}


def conversation_of(client: Client, origin: Origin) -> int | None:
    """The pull request that an event belongs to: its own, or for a push the one whose merge or tip it is.

    Raises:
        GitHubUnreachable, GitHubNotAuthorized and so on, as GitHub answers.
    """
    if origin.is_pull_request:
        return origin.number
    if origin.event != "push" or origin.sha is None:
        return None
    with asking("looking for the pull request of the commit", client, needs="pull-requests: read"):
        listed = client.call("GET", f"/repos/{origin.repository}/commits/{origin.sha}/pulls", query={"per_page": 30})
    return next((int(one["number"]) for one in rows(listed) if _brought(one, origin.sha)), None)


def post(client: Client, origin: Origin, number: int, *, model: str, operation: str, url: str) -> None:
    """Say in a conversation where the files of a model are offered.

    Args:
        operation: of publishing; nothing is said of ``unchanged`` and ``none``.
        url: the pull request on the Hub.
    """
    address, said = web_address(url), OPERATIONS.get(operation)
    if address is None or said is None:
        return
    key = hashlib.sha256(model.encode()).hexdigest()[:16]
    commit = f" as of {code(origin.sha)}" if origin.sha else ""
    body = f"ExecuTorch files of {text(model, 120)}{commit} are {said} in [a pull request on the Hub]({address}).\n"
    Comment(client, origin.repository, number, link_marker(key)).show(body)


def _brought(pull: dict[str, Any], sha: str) -> bool:
    """Whether a pull request brought this commit in, rather than holding it somewhere in its past."""
    head = pull.get("head")
    tip = head.get("sha") if isinstance(head, dict) else None
    return isinstance(pull.get("number"), int) and sha in (pull.get("merge_commit_sha"), tip)
