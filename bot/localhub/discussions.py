"""Discussions and pull requests as records: numbers, events, and their JSON as the Hub's API gives it.

The records are rows; each change appends an event. Routes are in discussion_routes.py, what needs git
(merge, conflicts, diff) in pulls.py.
"""

from __future__ import annotations

import json
import sqlite3
from dataclasses import dataclass
from typing import Any, Literal

from bot.localhub import markdown, payloads
from bot.localhub.accounts import User
from bot.localhub.context import Call, Hub
from bot.localhub.database import new_id, now
from bot.localhub.repos import RefUpdate, Repo

Status = Literal["draft", "open", "closed", "merged"]


@dataclass(frozen=True)
class Discussion:
    """A discussion, or a pull request (``is_pr``) whose commits are on ``refs/pr/<num>``."""

    id: str
    repo_id: str
    num: int
    title: str
    status: Status
    is_pr: bool
    author: User
    base: str
    merge_oid: str | None
    ref_deleted: bool
    created: str

    @property
    def ref(self) -> str:
        return f"refs/pr/{self.num}"


@dataclass(frozen=True)
class Event:
    """One entry of a discussion; ``data`` is in the API's form."""

    id: str
    type: str
    author: User
    created: str
    data: dict[str, Any]


def find(hub: Hub, repo: Repo, num: int) -> Discussion | None:
    row = hub.database.row("SELECT * FROM discussions WHERE repo_id = ? AND num = ?", repo.id, num)
    return _discussion(hub, row) if row else None


def by_ref(hub: Hub, repo: Repo, ref: str) -> Discussion | None:
    """The pull request whose ref this is."""
    number = ref.removeprefix("refs/pr/")
    found = find(hub, repo, int(number)) if number != ref and number.isascii() and number.isdigit() else None
    return found if found and found.is_pr else None


def search(
    hub: Hub, repo: Repo, *, kind: str = "all", status: str = "all", author: str = "", text: str = ""
) -> list[Discussion]:
    """The repository's discussions, newest first; ``status`` open includes drafts, closed includes merged ones."""
    rows = hub.database.rows("SELECT * FROM discussions WHERE repo_id = ? ORDER BY num DESC", repo.id)
    found = [_discussion(hub, row) for row in rows]
    statuses = {"open": ("open", "draft"), "closed": ("closed", "merged")}.get(status)
    return [
        item
        for item in found
        if (kind == "all" or item.is_pr == (kind == "pull_request"))
        and (statuses is None or item.status in statuses)
        and (not author or item.author.name.lower() == author.lower())
        and text.lower() in item.title.lower()
    ]


def events(hub: Hub, discussion: Discussion) -> list[Event]:
    rows = hub.database.rows("SELECT * FROM events WHERE discussion_id = ? ORDER BY seq", discussion.id)
    return [_event(hub, row) for row in rows]


def event(hub: Hub, discussion: Discussion, event_id: str) -> Event | None:
    row = hub.database.row("SELECT * FROM events WHERE discussion_id = ? AND id = ?", discussion.id, event_id)
    return _event(hub, row) if row else None


def _discussion(hub: Hub, row: sqlite3.Row) -> Discussion:
    return Discussion(
        row["id"], row["repo_id"], row["num"], row["title"], row["status"], bool(row["is_pr"]),
        hub.accounts.by_id(row["author_id"]), row["base"], row["merge_oid"], bool(row["ref_deleted"]), row["created"],
    )  # fmt: skip


def _event(hub: Hub, row: sqlite3.Row) -> Event:
    author = hub.accounts.by_id(row["author_id"])
    return Event(row["id"], row["type"], author, row["created"], json.loads(row["data"]))


# -- changes: to be called inside a transaction, or through Repos.publish where a ref moves with them -----------


def add_event(hub: Hub, discussion: Discussion, author: User, kind: str, data: dict[str, Any]) -> Event:
    found = Event(new_id(), kind, author, now(), data)
    hub.database.run(
        "INSERT INTO events (id, discussion_id, type, author_id, created, data) VALUES (?, ?, ?, ?, ?, ?)",
        found.id, discussion.id, kind, author.id, found.created, json.dumps(data),
    )  # fmt: skip
    return found


def add_comment(hub: Hub, discussion: Discussion, author: User, text: str) -> Event:
    return add_event(hub, discussion, author, "comment", {"edited": False, "hidden": False, "numEdits": 0, "raw": text})


def add_commit_event(hub: Hub, discussion: Discussion, author: User, subject: str, oid: str) -> Event:
    return add_event(hub, discussion, author, "commit", {"subject": subject, "oid": oid})


def set_status(hub: Hub, discussion: Discussion, author: User, status: Status) -> Event:
    hub.database.run("UPDATE discussions SET status = ? WHERE id = ?", status, discussion.id)
    return add_event(hub, discussion, author, "status-change", {"status": status})


def insert(hub: Hub, repo: Repo, author: User, title: str, *, is_pr: bool, status: Status, base: str) -> Discussion:
    num = hub.repos.take_number(repo)
    found = Discussion(new_id(), repo.id, num, title, status, is_pr, author, base, None, False, now())
    hub.database.run(
        "INSERT INTO discussions (id, repo_id, num, title, status, is_pr, author_id, base, created)"
        " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)",
        found.id, repo.id, num, title, status, is_pr, author.id, base, found.created,
    )  # fmt: skip
    return found


def open_pr_from_commit(call: Call, repo: Repo, base: str, oid: str, *, title: str, description: str) -> int:
    """A new open pull request whose first commit is ``oid``; its number. The caller holds the repository's lock."""
    hub, user = call.hub, call.signed_in(writing=True)
    made: list[tuple[Discussion, Event]] = []

    def record() -> list[RefUpdate]:
        found = insert(hub, repo, user, title, is_pr=True, status="open", base=base)
        made.append((found, add_comment(hub, found, user, description)))
        add_commit_event(hub, found, user, title, oid)
        return [RefUpdate(found.ref, None, oid)]

    updates = hub.repos.publish(repo, record)
    found, comment = made[0]
    payloads.discussion(call, repo, found, "create", comment)
    payloads.content(call, repo, updates)
    return found.num


# -- JSON ------------------------------------------------------------------------------------------------------


def author_json(user: User) -> dict[str, Any]:
    return {
        "_id": user.id, "avatarUrl": "/static/avatar.svg", "fullname": user.fullname, "name": user.name,
        "isHf": False, "isHfAdmin": False, "isMod": False, "type": "user", "isPro": False,
    }  # fmt: skip


def event_json(hub: Hub, repo: Repo, item: Event) -> dict[str, Any]:
    """An event as the API gives it; ``isOwner`` and ``isOrgMember`` say what its author is to the repository."""
    role = hub.accounts.namespace_role(item.author, repo.owner.id)
    author = author_json(item.author) | {"isOwner": role == "admin"}
    if repo.owner.is_org:
        author["isOrgMember"] = hub.accounts.is_member(item.author.id, repo.owner.id)
    return {
        "id": item.id, "author": author, "createdAt": item.created, "type": item.type,
        "data": _comment_data(item) if item.type == "comment" else item.data,
    }  # fmt: skip


def _comment_data(item: Event) -> dict[str, Any]:
    data = item.data
    raw = "" if data["hidden"] else data["raw"]
    result = {
        "edited": data["edited"], "hidden": data["hidden"], "numEdits": data["numEdits"],
        "editors": [item.author.name], "editorAvatarUrls": ["/static/avatar.svg"], "reactions": [],
        "latest": {
            "raw": raw, "html": markdown.render(raw), "updatedAt": data.get("updatedAt", item.created),
            "author": author_json(item.author),
        },
    }  # fmt: skip
    if data["hidden"]:
        result["hiddenBy"] = data["hiddenBy"]
        result["latest"]["raw"] = "This comment has been hidden"
    return result


def summary_json(hub: Hub, repo: Repo, item: Discussion) -> dict[str, Any]:
    """The list's form of a discussion."""
    found = events(hub, item)
    participating = any(repo.owner.id == entry.author.id for entry in found)
    return {
        "num": item.num, "author": author_json(item.author), "repo": {"name": repo.full_name, "type": "model"},
        "title": item.title, "createdAt": item.created, "topReactions": [], "status": item.status,
        "isPullRequest": item.is_pr, "numComments": sum(entry.type == "comment" for entry in found),
        "numReactionUsers": 0, "pinned": False,
        "repoOwner": {
            "name": repo.owner.name, "type": "org" if repo.owner.is_org else "user",
            "isParticipating": participating, "isDiscussionAuthor": item.author.id == repo.owner.id,
        },
    }  # fmt: skip
