"""Whatever comes as an event of GitHub's: published examples, damaged payloads, any JSON."""

from __future__ import annotations

import contextlib
import copy
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.errors import InvalidEvent
from bot.triggers import github
from bot.triggers.request import Ignored, Request
from tests.bot.triggers import events
from tests.bot.triggers.events import ENV


def test_the_published_examples() -> None:
    ended: dict[str, set[str]] = {}
    for event in events.examples():
        for payload in event["examples"]:
            found = github.read(event["name"], payload, {})
            ended.setdefault(event["name"], set()).add(
                f"{type(found).__name__} {payload.get('action') or payload.get('ref')}"
            )
            if isinstance(found, Request):
                assert found.origin.repository in ("Codertocat/Hello-World", "octo-org/octo-repo"), found
    requests = {name: {one for one in each if one.startswith("Request")} for name, each in ended.items()}
    assert {name: each for name, each in requests.items() if each} == {
        "push": {"Request refs/heads/master"},
        "release": {"Request published"},
        "workflow_dispatch": {"Request refs/heads/main", "Request refs/heads/master"},
        "pull_request": {f"Request {action}" for action in ("opened", "synchronize", "reopened", "ready_for_review")},
    }
    assert len(ended) >= 50


def _paths(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    found = [path] if path else []
    if isinstance(value, dict):
        found += [one for key, item in value.items() for one in _paths(item, (*path, key))]
    elif isinstance(value, list):
        found += [one for key, item in enumerate(value[:2]) for one in _paths(item, (*path, key))]
    return found


GOOD: list[tuple[str, dict[str, Any]]] = [
    ("push", events.push()),
    ("release", {"action": "published", "release": {"tag_name": "v1", "draft": False}, "repository": {}}),
    ("workflow_dispatch", {"inputs": {"model": "a/b", "max-seq-len": "5"}, "repository": events.repository()}),
    ("repository_dispatch", events.dispatch(payload={"model": "a/b", "backends": ["xnnpack"]})),
    ("repository_dispatch", events.dispatch(payload=events.hub_webhook())),
    ("issue_comment", events.comment("/ptebot export model=a/b", pull_request=True)),
    ("pull_request", events.pull_request()),
    ("pull_request_target", events.pull_request()),
]


JUNK = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=40),
    st.sampled_from(["x" * 100_000, "\n::add-mask::x", "../..", "0" * 40, "-" * 40, 10**400, [[[]]], {"login": {}}]),
    st.lists(st.integers(), max_size=3),
    st.dictionaries(st.text(max_size=5), st.integers(), max_size=3),
)


@settings(max_examples=800, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_a_damaged_payload_is_ignored_or_refused(data: st.DataObject) -> None:
    name, good = data.draw(st.sampled_from(GOOD))
    payload = copy.deepcopy(good)
    for _ in range(data.draw(st.integers(1, 3))):
        path = data.draw(st.sampled_from(_paths(payload) or [()]))
        if not path:
            break
        parent: Any = payload
        for key in path[:-1]:
            parent = parent[key]
        if data.draw(st.booleans()):
            del parent[path[-1]]
        else:
            parent[path[-1]] = copy.deepcopy(data.draw(JUNK))
    env = data.draw(st.sampled_from([ENV, {}, dict.fromkeys(ENV, "\n")]))
    try:
        found = github.read(name, payload, env)
    except InvalidEvent as error:
        assert len(error.what) < 600 and "\n" not in error.what
        return
    if isinstance(found, Ignored):
        assert len(found.reason) < 600 and "\n" not in found.reason
        return
    origin = found.origin
    assert origin.sha is None or (len(origin.sha) == 40 and set(origin.sha) <= set("0123456789abcdef"))
    assert origin.number is None or 0 < origin.number < 1 << 53
    assert "\n" not in found.why and "\n" not in (origin.ref or "") and "\n" not in origin.actor
    assert origin.repository.count("/") == 1 and "\n" not in origin.repository


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.sampled_from([*github.READERS, "other"]), JUNK | st.dictionaries(st.text(max_size=8), JUNK, max_size=4))
def test_any_json_is_ignored_or_refused(name: str, payload: Any) -> None:
    with contextlib.suppress(InvalidEvent):
        github.read(name, payload, ENV)
