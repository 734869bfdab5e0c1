"""The API of discussions and pull requests: list, open, read, comment, edit, hide, retitle, close, merge.

Anybody with a write token may open one and comment where they may read; the author and the repository's
writers may retitle, close and reopen; only writers merge, pin or delete.
"""

from __future__ import annotations

import json

from starlette.responses import Response

from bot.localhub import discussions, payloads, pulls
from bot.localhub.accounts import Level, User
from bot.localhub.context import Call, reply, text_field
from bot.localhub.database import now
from bot.localhub.discussions import Discussion, Event
from bot.localhub.errors import HubError, bad_request, forbidden
from bot.localhub.repos import RefUpdate, Repo

PAGE = 50
MAX_TEXT = 65536


def listing(call: Call) -> Response:
    """GET .../discussions?type=&status=&author=&search=&p=."""
    repo = call.repo()
    found = discussions.search(
        call.hub, repo, kind=call.query("type", "all"), status=call.query("status", "all"),
        author=call.query("author"), text=call.query("search"),
    )  # fmt: skip
    start = call.number("p", 0, 0, 10**6) * PAGE
    page = found[start : start + PAGE]
    return reply({
        "discussions": [discussions.summary_json(call.hub, repo, item) for item in page],
        "count": len(found),
        "start": start,
        "numClosedDiscussions": sum(item.status in ("closed", "merged") for item in found),
    })  # fmt: skip


def create(call: Call) -> Response:
    """POST .../discussions {title, description, pullRequest}; a pull request begins empty, as a draft."""
    repo = call.repo(writing=True)
    user = call.signed_in(writing=True)
    body = call.json()
    title = text_field(body, "title", 3, 200)
    description = text_field(body, "description", 0, MAX_TEXT)
    is_pr = body.get("pullRequest", False)
    if not isinstance(is_pr, bool):
        raise bad_request("pullRequest must be true or false")
    made: list[tuple[Discussion, Event]] = []

    def record() -> list[RefUpdate]:
        status: discussions.Status = "draft" if is_pr else "open"
        item = discussions.insert(call.hub, repo, user, title, is_pr=is_pr, status=status, base="refs/heads/main")
        made.append((item, discussions.add_comment(call.hub, item, user, description)))
        return [RefUpdate(item.ref, None, str(repo.git().commit("main").id))] if is_pr else []

    with call.hub.locks[repo.id]:
        updates = call.hub.repos.publish(repo, record)
    item, comment = made[0]
    payloads.discussion(call, repo, item, "create", comment)
    if updates:
        payloads.content(call, repo, updates)
    value = {"url": f"{call.endpoint}/{repo.full_name}/discussions/{item.num}", "num": item.num, "pullRequest": is_pr}
    if is_pr:
        value["references"] = {"base": item.base}
    return reply(value)


def details(call: Call) -> Response:
    """GET .../discussions/{num}[?diff=1]; the diff itself stands in ``diff``, where huggingface_hub reads it."""
    repo, item = _find(call)
    hub = call.hub
    value = {
        "_id": item.id, "num": item.num, "author": discussions.author_json(item.author),
        "repo": {"name": repo.full_name, "type": "model"}, "title": item.title, "createdAt": item.created,
        "status": item.status, "pinned": False, "locked": False, "collection": "discussions",
        "events": [discussions.event_json(hub, repo, event) for event in discussions.events(hub, item)],
        "isPullRequest": item.is_pr,
    }  # fmt: skip
    if not item.is_pr:
        return reply(value | {"isReport": False})
    git = repo.git()
    top = pulls.head(git, item)
    changes: dict[str, object] = {"base": item.base}
    if item.merge_oid:
        changes["mergeCommitId"] = item.merge_oid
    if top:
        changes["headCommitId"] = top
    if item.ref_deleted:
        changes["refDeleted"] = True
    value |= {"changes": changes, "filesWithConflicts": pulls.conflicts(git, item)}
    if call.flag("diff"):
        value["diff"] = pulls.diff(git, pulls.base(git, item), top) if top else ""
    return reply(value)


def comment(call: Call) -> Response:
    """POST .../{num}/comment {comment}."""
    repo, item = _find(call, writing=True)
    user = call.signed_in(writing=True)
    text = text_field(call.json(), "comment", 1, MAX_TEXT)
    event = discussions.add_comment(call.hub, item, user, text)
    payloads.comment(call, repo, item, "create", event)
    return reply({"newMessage": discussions.event_json(call.hub, repo, event)}, 201)


def edit(call: Call) -> Response:
    """POST .../{num}/comment/{id}/edit {content}: one's own comment only."""
    repo, item = _find(call, writing=True)
    old = _comment(call, item)
    if old.author.id != call.signed_in(writing=True).id:
        raise forbidden("Only its author may edit a comment")
    if old.data["hidden"]:
        raise forbidden("A hidden comment cannot be edited")
    text = text_field(call.json(), "content", 1, MAX_TEXT)
    changed = {"edited": True, "numEdits": old.data["numEdits"] + 1, "raw": text, "updatedAt": now()}
    return _replace(call, repo, item, old, changed)


def hide(call: Call) -> Response:
    """POST .../{num}/comment/{id}/hide: for its author and the repository's writers; it cannot be undone."""
    repo, item = _find(call, writing=True)
    old = _comment(call, item)
    user = call.signed_in(writing=True)
    if old.author.id != user.id and call.level(repo) < Level.WRITE:
        raise forbidden("Only its author and the repository's writers may hide a comment")
    return _replace(call, repo, item, old, {"hidden": True, "hiddenBy": user.name, "raw": ""})


def title(call: Call) -> Response:
    """POST .../{num}/title {title}."""
    repo, item, user = _manage(call)
    new = text_field(call.json(), "title", 3, 200)
    with call.hub.database.transaction():
        call.hub.database.run("UPDATE discussions SET title = ? WHERE id = ?", new, item.id)
        event = discussions.add_event(call.hub, item, user, "title-change", {"from": item.title, "to": new})
    payloads.discussion(call, repo, _again(call, repo, item), "update")
    return reply({"newTitle": discussions.event_json(call.hub, repo, event)})


def status(call: Call) -> Response:
    """POST .../{num}/status {status: open|closed, comment?}."""
    repo, item, user = _manage(call)
    body = call.json()
    wanted = body.get("status")
    if wanted not in ("open", "closed"):
        raise bad_request("status must be open or closed")
    note = text_field(body, "comment", 0, MAX_TEXT) if body.get("comment") else ""
    with call.hub.database.transaction():
        current = _again(call, repo, item).status
        if current == "merged":
            raise bad_request("A merged pull request stays merged")
        if current == wanted:
            raise bad_request(f"This discussion is {wanted} already")
        said = discussions.add_comment(call.hub, item, user, note) if note else None
        event = discussions.set_status(call.hub, item, user, wanted)
    _tell(call, repo, item, said)
    return reply({"newStatus": discussions.event_json(call.hub, repo, event)})


def merge(call: Call) -> Response:
    """POST .../{num}/merge {comment?}: a merge commit on the base branch; 409 names the files in conflict."""
    repo, item = _find(call, need=Level.WRITE, writing=True)
    user = call.signed_in(writing=True)
    body = call.json()
    note = text_field(body, "comment", 0, MAX_TEXT) if body.get("comment") else ""
    said: list[Event] = []
    with call.hub.locks[repo.id]:
        item = _again(call, repo, item)
        if not item.is_pr or item.status not in ("open", "draft"):
            raise bad_request("Only an open pull request can be merged")
        old, oid = pulls.merge(repo.git(), item, user.name)

        def record() -> list[RefUpdate]:
            if note:
                said.append(discussions.add_comment(call.hub, item, user, note))
            call.hub.database.run("UPDATE discussions SET merge_oid = ? WHERE id = ?", oid, item.id)
            discussions.set_status(call.hub, item, user, "merged")
            return [RefUpdate(item.base, old, oid)]

        updates = call.hub.repos.publish(repo, record)
    _tell(call, repo, item, said[0] if said else None)
    payloads.content(call, repo, updates)
    return reply({"mergeCommitId": oid})


def delete_ref(call: Call) -> Response:
    """DELETE .../{num}/ref: drop the commits of a closed or merged pull request."""
    repo, item, user = _manage(call)
    if not item.is_pr or item.status not in ("closed", "merged"):
        raise bad_request("Close or merge the pull request first")
    with call.hub.locks[repo.id]:
        old = pulls.head(repo.git(), item)

        def record() -> list[RefUpdate]:
            call.hub.database.run("UPDATE discussions SET ref_deleted = 1 WHERE id = ?", item.id)
            discussions.add_event(call.hub, item, user, "ref-deleted", {})
            return [RefUpdate(item.ref, old, None)]

        payloads.content(call, repo, call.hub.repos.publish(repo, record))
    return reply({})


def delete(call: Call) -> Response:
    """DELETE .../{num}: the discussion with everything in it; a pull request's ref goes too."""
    repo, item = _find(call, need=Level.WRITE, writing=True)
    with call.hub.locks[repo.id]:
        old = pulls.head(repo.git(), item) if item.is_pr else None

        def record() -> list[RefUpdate]:
            call.hub.database.run("DELETE FROM discussions WHERE id = ?", item.id)
            return [RefUpdate(item.ref, old, None)] if old else []

        call.hub.repos.publish(repo, record)
    payloads.discussion(call, repo, item, "delete")
    return reply({})


def _tell(call: Call, repo: Repo, item: Discussion, said: Event | None) -> None:
    fresh = _again(call, repo, item)
    if said:
        payloads.comment(call, repo, fresh, "create", said)
    payloads.discussion(call, repo, fresh, "update")


def _find(call: Call, *, need: Level = Level.READ, writing: bool = False) -> tuple[Repo, Discussion]:
    """The repository and discussion that the address names.

    Raises:
        HubError: 404.
    """
    repo = call.repo(need, writing=writing)
    number = call.param("num")
    valid = number.isascii() and number.isdigit() and len(number) < 10
    item = discussions.find(call.hub, repo, int(number)) if valid else None
    if item is None:
        raise HubError(404, "No such discussion")
    return repo, item


def _manage(call: Call) -> tuple[Repo, Discussion, User]:
    """The same for its author or one of the repository's writers.

    Raises:
        HubError: 403 for others.
    """
    repo, item = _find(call, writing=True)
    user = call.signed_in(writing=True)
    if item.author.id != user.id and call.level(repo) < Level.WRITE:
        raise forbidden("Only its author and the repository's writers may do this")
    return repo, item, user


def _again(call: Call, repo: Repo, item: Discussion) -> Discussion:
    return discussions.find(call.hub, repo, item.num) or item


def _comment(call: Call, item: Discussion) -> Event:
    event = discussions.event(call.hub, item, call.param("event"))
    if event is None or event.type != "comment":
        raise HubError(404, "No such comment")
    return event


def _replace(call: Call, repo: Repo, item: Discussion, old: Event, changed: dict[str, object]) -> Response:
    data = old.data | changed
    call.hub.database.run("UPDATE events SET data = ? WHERE id = ?", json.dumps(data), old.id)
    new = Event(old.id, old.type, old.author, old.created, data)
    payloads.comment(call, repo, item, "update", new)
    return reply({"updatedComment": discussions.event_json(call.hub, repo, new)})
