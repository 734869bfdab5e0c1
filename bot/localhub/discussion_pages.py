"""Pages for a person: a repository's discussions, and one discussion or pull request with what it changes."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any
from urllib.parse import parse_qsl

import jwt
from starlette.responses import RedirectResponse, Response

from bot.localhub import discussion_routes, discussions, markdown, pulls
from bot.localhub.accounts import Level, OrgRole
from bot.localhub.context import Call
from bot.localhub.discussions import Discussion, Event
from bot.localhub.errors import HubError, bad_request
from bot.localhub.pages import card_diff, file_diffs, frame, page, render
from bot.localhub.repos import Repo

MERGE_SECONDS = 3600
"""For so long a page's button can be pressed."""


@dataclass(frozen=True)
class Entry:
    """One event of a discussion as a page shows it; ``html`` is a comment's text, made safe."""

    event: Event
    html: str
    role: OrgRole | None
    """What the event's author is in the repository's namespace."""


@page
def listing(call: Call) -> Response:
    """GET /{repo}/discussions?status=open|closed|all."""
    repo = call.repo()
    status = call.query("status", "open")
    status = status if status in ("open", "closed", "all") else "open"
    found = discussions.search(call.hub, repo, status=status)
    comments = {
        item.num: sum(event.type == "comment" for event in discussions.events(call.hub, item)) - 1 for item in found
    }
    return render(
        call, "discussions.html", **frame(call, repo, "discussions"), status=status, found=found, comments=comments,
        closed_count=len(discussions.search(call.hub, repo, status="closed")),
    )  # fmt: skip


@page
def show(call: Call) -> Response:
    """GET /{repo}/discussions/{num}: the conversation; of a pull request also the card's diff and the files."""
    repo = call.repo()
    number = call.param("num")
    valid = number.isascii() and number.isdigit() and len(number) < 10
    item = discussions.find(call.hub, repo, int(number)) if valid else None
    if item is None:
        raise HubError(404, "There is no such discussion")
    entries = [_entry(call, repo, event) for event in discussions.events(call.hub, item)]
    values: dict[str, Any] = {"item": item, "entries": entries} | (_pull(repo, item) if item.is_pr else {})
    mergeable = item.is_pr and item.status in ("open", "draft") and not values["conflicts"]
    writing = call.caller is not None and call.caller.token_role == "write" and call.level(repo) >= Level.WRITE  # noqa: S105
    values["ticket"] = _ticket(call, repo, item) if mergeable and writing else ""
    return render(call, "discussion.html", **frame(call, repo, "discussions"), **values)


@page
def merge(call: Call) -> Response:
    """POST /{repo}/discussions/{num}/merge {ticket}: what the page's button does, and back to the page."""
    user = call.signed_in()
    place = f"/{call.repo().full_name}/discussions/{call.param('num')}"
    form = dict(parse_qsl(call.body.decode("utf-8", "replace"), max_num_fields=10))
    try:
        found = jwt.decode(form.get("ticket", ""), call.hub.signing_key, algorithms=["HS256"], audience="merge")
    except jwt.PyJWTError:
        raise bad_request("This page is too old: load it again") from None
    if (found["user"], found["place"]) != (user.id, place):
        raise HubError(403, "This page was shown to somebody else")
    # A browser's Basic may change nothing by itself; here the ticket says that the page was asked, by who may write.
    writer = replace(call.caller, token_role="write") if call.caller else None  # noqa: S106 - a role, not a secret
    discussion_routes.merge(replace(call, caller=writer, body=b""))
    return RedirectResponse(place, 303)


def _ticket(call: Call, repo: Repo, item: Discussion) -> str:
    """What the page's button sends back: bound to the person, so that no other site can have made it."""
    user = call.user
    place = f"/{repo.full_name}/discussions/{item.num}"
    claims = {"user": user.id if user else "", "place": place, "aud": "merge", "exp": int(time.time()) + MERGE_SECONDS}
    return jwt.encode(claims, call.hub.signing_key, algorithm="HS256")


def _entry(call: Call, repo: Repo, event: Event) -> Entry:
    html = ""
    if event.type == "comment" and not event.data["hidden"]:
        html = markdown.render(event.data["raw"], f"/{repo.full_name}/resolve/main/")
    return Entry(event, html, call.hub.accounts.namespace_role(event.author, repo.owner.id))


def _pull(repo: Repo, item: Discussion) -> dict[str, Any]:
    git = repo.git()
    head = pulls.head(git, item)
    if head is None and item.merge_oid:
        head = item.merge_oid
    changed = pulls.changes(git, pulls.base(git, item), head) if head else []
    readme = next((change for change in changed if change.path == "README.md"), None)
    return {
        "head": head or "",
        "conflicts": pulls.conflicts(git, item),
        "card": card_diff(git, readme, f"/{repo.full_name}/resolve/{head}/") if readme else None,
        "diffs": file_diffs(git, changed),
        "changed": changed,
        "added_bytes": sum(change.new.size for change in changed if change.new),
    }
