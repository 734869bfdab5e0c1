"""GitHub's events: a name and a payload in, a request or the reason why there is none out. Pure; stage 1.

A payload is as hostile as whoever caused it: every field is read through ``bot.triggers.payload``, which gives a
value of the wanted shape or none, so that a missing key or a wrong type is either an event to ignore or
``InvalidEvent``, and nothing unlisted gets any further. Whether somebody may ask for what they ask is not decided
here: the API says.

To take a new event: a reader below and a line in ``READERS``.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from bot.errors import InvalidEvent
from bot.publish.markdown import one_line
from bot.triggers import comments, hub, values
from bot.triggers.payload import BRANCH, LOGIN, REPOSITORY, SHA, Payload, ref_of
from bot.triggers.request import Ignored, Request
from bot.triggers.values import KEYS

OUR_BRANCHES = "ptebot/"
"""What our branches begin with: a push to one of them is our own."""
DISPATCH = re.compile(r"ptebot(?:-[A-Za-z0-9_.-]{1,90})?")
"""Event types of ``repository_dispatch`` that are for us."""
MOST_FILES = 3_000
"""Changed paths that are kept; with more, which changed counts as not known."""
MOST_COMMITS = 2_048
"""GitHub lists no more of them in one push."""
PULL_REQUEST_ACTIONS = ("opened", "synchronize", "reopened", "ready_for_review")
DEPENDABOT = "dependabot[bot]"

_NO_COMMIT = "0" * 40


def read(name: str, payload: Any, env: Mapping[str, str]) -> Request | Ignored:
    """What an event asks for.

    Args:
        name: ``GITHUB_EVENT_NAME``.
        payload: the parsed JSON of ``GITHUB_EVENT_PATH``.
        env: the runner's variables; ``GITHUB_REPOSITORY``, ``GITHUB_ACTOR``, ``GITHUB_SHA`` and ``GITHUB_REF``
            stand in where an event does not carry them, and the repository always goes by them.

    Raises:
        InvalidEvent: the payload lacks what its event always has, or asks for something in a way that is wrong.
    """
    if not isinstance(payload, dict):
        raise InvalidEvent(f"The payload of {one_line(name, 60)} is no JSON object.")
    reader = READERS.get(name)
    if reader is None:
        return Ignored(reason=f"nothing is done on the event {one_line(name, 60)}")
    return reader(Payload(name, payload, env))


def _push(event: Payload) -> Request | Ignored:
    ref = event.get("ref")
    kind, branch = ref_of(ref) or event.needed(None, "ref")
    after = event.get("after")
    if event.get("deleted") is True or after == _NO_COMMIT:
        return Ignored(reason=f"the {kind} {one_line(branch, 100)} was deleted", origin=event.origin(ref=ref))
    if kind == "tag":
        return Ignored(
            reason="a tag was pushed; use the event release for published versions", origin=event.origin(ref=ref)
        )
    if branch.startswith(OUR_BRANCHES):
        return Ignored(
            reason="the push is ptebot's own, to the branch of its pull request", origin=event.origin(ref=ref)
        )
    origin = event.origin(
        sha=event.needed(event.text("after", shape=SHA), "after"),
        before=event.text("before", shape=SHA),
        ref=ref,
        changed_files=_changed(event),
    )
    return Request(verb="export", origin=origin, why=f"push to {one_line(branch, 100)}")


def _changed(event: Payload) -> tuple[str, ...] | None:
    """Every path that the push touched; None where the payload does not tell all of them.

    What a runner gives to a job has no paths at all; a webhook's payload has them.
    """
    commits = event.get("commits")
    if event.get("forced") is not False or event.get("created") is not False:
        return None  # compared with what was there before, files may have changed that no listed commit touches
    if not isinstance(commits, list) or not 0 < len(commits) < MOST_COMMITS:
        return None
    paths: set[str] = set()
    for commit in commits:
        for key in ("added", "modified", "removed"):
            listed = commit.get(key) if isinstance(commit, dict) else None
            if not isinstance(listed, list) or not all(
                isinstance(path, str) and 0 < len(path) < 4096 for path in listed
            ):
                return None
            paths.update(listed)
        if len(paths) > MOST_FILES:
            return None
    return tuple(sorted(paths))


def _release(event: Payload) -> Request | Ignored:
    action = event.get("action")
    tag = event.text("release", "tag_name", shape=BRANCH)
    if action != "published":
        return Ignored(reason=f"a release was {_word(action)}; only a published one counts", origin=event.running())
    if event.get("release", "draft") is True:
        return Ignored(reason="the release is a draft", origin=event.running())
    event.needed(tag, "release", "tag_name")
    return Request(verb="export", origin=event.running(), why=f"release {one_line(tag, 100)}")


def _schedule(event: Payload) -> Request | Ignored:
    return Request(verb="export", origin=event.running(), why="schedule")


def _inputs(event: Payload) -> Request | Ignored:
    """A workflow's own inputs: those that are named like settings of ours are taken, others are its own business."""
    inputs = event.get("inputs")
    if inputs is not None and not isinstance(inputs, dict):
        raise InvalidEvent(f"The inputs of {event.name} are no JSON object.")
    known = {name: value for name, value in (inputs or {}).items() if values.key_of(name) in KEYS}
    return Request(
        verb="export",
        origin=event.running(),
        overrides=values.from_json(known, event.name),
        why=event.name.replace("_", " "),
    )


def _repository_dispatch(event: Payload) -> Request | Ignored:
    kind = event.get("action")
    origin = event.running()
    if not isinstance(kind, str) or not DISPATCH.fullmatch(kind):
        return Ignored(reason=f"the event type {_word(kind)} does not begin with ptebot", origin=origin)
    asked = event.get("client_payload")
    if asked is not None and not isinstance(asked, dict):
        raise InvalidEvent("The client_payload of repository_dispatch is no JSON object.")
    if hub.is_webhook(asked):
        found = hub.read(asked)
        if isinstance(found, str):
            return Ignored(reason=found, origin=origin)
        return Request(verb="export", origin=origin, overrides=found, why=f"the Hub told that {found.model} moved")
    return Request(
        verb="export",
        origin=origin,
        overrides=values.from_json(asked or {}, f"dispatch {kind}"),
        why=f"dispatch {kind}",
    )


def _issue_comment(event: Payload) -> Request | Ignored:
    action = event.get("action")
    if action != "created":
        return Ignored(reason=f"the comment was {_word(action)}; only new ones are read")
    body = event.get("comment", "body")
    command = comments.parse(body) if isinstance(body, str) else None
    if command is None:
        return Ignored(reason=f"the comment does not begin with {comments.CALL}")
    login = event.needed(event.text("comment", "user", "login", shape=LOGIN), "comment", "user", "login")
    if event.get("comment", "user", "type") != "User" or login.endswith("[bot]"):
        return Ignored(reason="the comment is a bot's")
    if event.get("issue", "locked") is not False:
        return Ignored(reason="the conversation is locked")
    origin = event.origin(
        login,
        number=event.needed(event.number("issue", "number"), "issue", "number"),
        is_pull_request=isinstance(event.get("issue", "pull_request"), dict),
        comment_id=event.needed(event.number("comment", "id"), "comment", "id"),
    )
    return Request(
        verb=command.verb,
        origin=origin,
        overrides=command.overrides,
        why=f"{comments.CALL} {command.verb} of {login}",
        problem=command.problem,
    )


def _pull_request(event: Payload) -> Request | Ignored:
    action = event.get("action")
    number = event.needed(event.number("pull_request", "number") or event.number("number"), "number")
    base = event.text("pull_request", "base", "repo", "full_name", shape=REPOSITORY)
    head = event.text("pull_request", "head", "repo", "full_name", shape=REPOSITORY)
    branch = event.text("pull_request", "head", "ref", shape=BRANCH)
    same = base is not None and head is not None and base.lower() == head.lower()
    # What Dependabot starts gets no secrets and a token that only reads, as if it came from a fork.
    bot = DEPENDABOT in (event.get("sender", "login"), event.env.get("GITHUB_ACTOR"))
    origin = event.origin(
        sha=event.needed(event.text("pull_request", "head", "sha", shape=SHA), "pull_request", "head", "sha"),
        before=event.text("pull_request", "base", "sha", shape=SHA),
        ref=f"refs/pull/{number}/merge",
        number=number,
        is_pull_request=True,
        forked=not same or bot,
    )
    if action not in PULL_REQUEST_ACTIONS:
        return Ignored(reason=f"the pull request was {_word(action)}, which changes no file", origin=origin)
    if same and branch is not None and branch.startswith(OUR_BRANCHES):
        return Ignored(reason="the pull request is ptebot's own", origin=origin)
    if origin.forked and event.name == "pull_request_target":
        reason = (
            "the pull request comes from a fork, and pull_request_target gives it this repository's secrets; use "
            "the event pull_request, which runs it without them"
        )
        return Ignored(reason=reason, origin=origin)
    whose = " from a fork" if not same else " by Dependabot" if bot else ""
    return Request(verb="export", origin=origin, why=f"pull request {number}{whose}")


READERS: dict[str, Callable[[Payload], Request | Ignored]] = {
    "push": _push,
    "release": _release,
    "schedule": _schedule,
    "workflow_dispatch": _inputs,
    "workflow_call": _inputs,
    "repository_dispatch": _repository_dispatch,
    "issue_comment": _issue_comment,
    "pull_request": _pull_request,
    "pull_request_target": _pull_request,
}


def _word(value: Any) -> str:
    return one_line(value, 60) if isinstance(value, str) else "changed in an unknown way"
