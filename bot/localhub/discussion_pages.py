"""Pages for a person: a repository's discussions, and one discussion or pull request with what it changes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from starlette.responses import Response

from bot.localhub import discussions, markdown, pulls
from bot.localhub.accounts import OrgRole
from bot.localhub.context import Call
from bot.localhub.discussions import Discussion, Event
from bot.localhub.errors import HubError
from bot.localhub.pages import card_diff, file_diffs, frame, page, render
from bot.localhub.repos import Repo


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
    return render(call, "discussion.html", **frame(call, repo, "discussions"), **values)


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
