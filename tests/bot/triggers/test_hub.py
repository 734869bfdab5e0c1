"""The Hub's webhooks as requests to the bot: the documented payloads, and whatever else somebody may send."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.triggers import hub
from bot.triggers.hub import Push, Said
from bot.triggers.hub_payload import Unreadable
from bot.triggers.request import Ignored

PAYLOADS = Path(__file__).parents[4] / "shared/payloads/hub-webhooks.json"
SHA, OLD = "5" * 39 + "a", "0" * 39 + "1"
COMMENT = "6398872887bfcfb93a306f18"


def push(**fields: Any) -> dict[str, Any]:
    base: dict[str, Any] = {
        "event": {"action": "update", "scope": "repo.content"},
        "repo": {"type": "model", "name": "acme/tiny", "id": "6366c000a2abcdf2fd69a080", "headSha": OLD},
        "updatedRefs": [{"ref": "refs/heads/main", "oldSha": OLD, "newSha": SHA}],
        "webhook": {"id": "6390e855e30d9209411de93b", "version": 3},
    }
    return base | fields


def said(content: str | None = "/ptebot export", **fields: Any) -> dict[str, Any]:
    comment = {"id": COMMENT, "author": {"id": "61d2000c3c2083e1c08af22d"}, "hidden": False}
    base: dict[str, Any] = {
        "event": {"action": "create", "scope": "discussion.comment"},
        "repo": {"type": "model", "name": "acme/tiny", "id": "6366c000a2abcdf2fd69a080"},
        "discussion": {"id": "639885d811ae2bad2b7ba461", "num": 3, "isPullRequest": True},
        "comment": comment | ({"content": content} if content is not None else {}),
        "webhook": {"id": "6390e855e30d9209411de93b", "version": 3},
    }
    return base | fields


def parse(payload: Any) -> Push | Said | Ignored:
    return hub.parse(json.dumps(payload).encode())


def ignored(payload: Any) -> str:
    found = parse(payload)
    assert isinstance(found, Ignored), found
    return found.reason


def changed(payload: dict[str, Any], path: str, value: Any) -> dict[str, Any]:
    """A copy with another value at ``a.b``; ``...`` takes it out."""
    copied = json.loads(json.dumps(payload))
    *parents, last = path.split(".")
    place = copied
    for key in parents:
        place = place[key]
    if value is ...:
        place.pop(last, None)
    else:
        place[last] = value
    return dict(copied)


def test_a_push_to_main() -> None:
    found = parse(push())
    assert found == Push(repo_id="acme/tiny", sha=SHA, key=f"push:6366c000a2abcdf2fd69a080:refs/heads/main:{SHA}")
    again = parse(changed(push(), "repo.headSha", "f" * 40))
    assert isinstance(again, Push) and again.key == found.key
    assert found.key != parse(changed(push(), "updatedRefs", [{"ref": hub.MAIN, "newSha": OLD}])).key  # type: ignore[union-attr]


def test_a_key_fits_the_database_also_without_the_repositorys_id() -> None:
    long = changed(changed(push(), "repo.id", ...), "repo.name", "a" * 96 + "/" + "B" * 96)
    found, other = parse(long), parse(changed(long, "repo.name", "a" * 96 + "/" + "b" * 96))
    assert isinstance(found, Push) and isinstance(other, Push)
    assert found.key == other.key and len(found.key) <= 200


def test_a_comment_and_a_discussion_with_a_command() -> None:
    expected = Said(
        repo_id="acme/tiny",
        discussion=3,
        comment_id=COMMENT,
        author_id="61d2000c3c2083e1c08af22d",
        key=f"comment:{COMMENT}",
    )
    assert parse(said()) == expected
    assert parse(said(event={"action": "create", "scope": "discussion"})) == expected
    assert parse(said(content=None)) == expected, "the API has the text where the payload leaves it out"


def test_the_documented_payloads() -> None:
    if not PAYLOADS.is_file():
        pytest.skip("the captured webhook payloads are not beside this checkout")
    known = {name: one["payload"] for name, one in json.loads(PAYLOADS.read_text()).items()}
    found = parse(known["repo.content_update_main"])
    assert isinstance(found, Push)
    assert (found.repo_id, found.sha) == ("some-user/some-repo", "575db8b7a51b6f85eb06eee540738584589f131c")
    assert "does not begin with /ptebot" in ignored(known["discussion.comment_create"])
    commanded = changed(known["discussion.comment_create"], "comment.content", "/ptebot help\r\nplease")
    assert isinstance(parse(commanded), Said)
    for name in ("WEBHOOK_PAYLOAD_UPDATE_DISCUSSION", "WEBHOOK_PAYLOAD_WITH_UPDATED_REFS"):
        assert "is a space" in ignored(known[name])
    assert "not OWNER/NAME" in ignored(known["WEBHOOK_PAYLOAD_CREATE_DISCUSSION"])
    assert "changes no file" in ignored(known["repo.config_update"])


@pytest.mark.parametrize(
    ("payload", "reason"),
    [
        *((changed(push(), "repo.type", kind), f"is a {kind}") for kind in ("dataset", "space", "bucket", "kernel")),
        (changed(push(), "updatedRefs", [{"ref": "refs/pr/7", "newSha": SHA}]), "main branch did not move"),
        (changed(push(), "updatedRefs", [{"ref": "refs/tags/v1", "newSha": SHA}]), "main branch did not move"),
        (changed(push(), "updatedRefs", [{"ref": "refs/heads/mainly", "newSha": SHA}]), "main branch did not move"),
        (changed(push(), "updatedRefs", [None, 7, {"ref": 1}, []]), "main branch did not move"),
        (changed(push(), "updatedRefs", [{"ref": hub.MAIN, "newSha": None}]), "no commit"),
        (changed(push(), "updatedRefs", [{"ref": hub.MAIN, "newSha": "0" * 40}]), "no commit"),
        (changed(push(), "updatedRefs", [{"ref": hub.MAIN, "newSha": "main"}]), "no commit"),
        (changed(push(), "updatedRefs", [{"ref": hub.MAIN, "newSha": SHA + "\n"}]), "no commit"),
        (changed(push(), "updatedRefs", "refs/heads/main"), "updatedRefs is not as in a webhook"),
        (changed(push(), "event.scope", "repo.settings"), "repo update changes no file"),
        (changed(push(), "event", {"scope": "repo", "action": "create"}), "changes no file"),
        (changed(push(), "event", {"scope": "repo", "action": "move"}), "changes no file"),
        (changed(push(), "event", {"scope": "collection", "action": "create"}), "changes no file"),
        (changed(push(), "event.action", "delete"), "is no push"),
        (changed(push(), "repo.name", "../../etc"), "not OWNER/NAME"),
        (changed(push(), "repo.name", "acme/tiny\n<b>"), "not OWNER/NAME"),
        (changed(push(), "repo.name", ["acme/tiny"]), "repo.name is not as in a webhook"),
        (changed(push(), "repo.type", None), "repo.type is not as in a webhook"),
        (changed(push(), "repo", ...), "repo is not as in a webhook"),
        (changed(push(), "event", "push"), "event is not as in a webhook"),
        (changed(said(), "event.action", "update"), "nothing new"),
        (changed(said(), "event.action", "delete"), "nothing new"),
        (changed(said(), "event.scope", "discussion.comment.reaction"), "nothing new"),
        (changed(said(), "event.scope", "discussion.label"), "nothing new"),
        (changed(said(), "comment.hidden", True), "hidden"),
        (changed(said(), "comment", ...), "no comment"),
        (changed(said(), "discussion", ...), "no comment"),
        (changed(said(), "discussion.num", 0), "discussion.num"),
        (changed(said(), "discussion.num", True), "discussion.num"),
        (changed(said(), "discussion.num", "3"), "discussion.num"),
        (changed(said(), "comment.id", "../x"), "comment.id"),
        (said("thanks @ptebot"), "does not begin with /ptebot"),
        (said(" /ptebot export"), "does not begin with /ptebot"),
        (said("/ptebotx"), "does not begin with /ptebot"),
        ([], "the whole is not as in a webhook"),
        (None, "the whole is not as in a webhook"),
        (7, "the whole is not as in a webhook"),
    ],
)
def test_what_asks_for_nothing(payload: Any, reason: str) -> None:
    assert reason in ignored(payload)


@pytest.mark.parametrize(
    "payload",
    [
        changed(push(), "webhook.version", 4),
        changed(push(), "webhook", ...),
        changed(push(), "repo.subdomain", {"a": [1]}),
        changed(push(), "repo.headSha", {"sha": SHA}),
        changed(push(), "newField", "x" * 5_000),
        changed(push(), "event.scope", "repo.content.large"),
        changed(push(), "updatedRefs", [{"ref": "refs/tags/v1", "newSha": []}, *push()["updatedRefs"], 8]),
        changed(changed(push(), "updatedRefs", ...), "repo.headSha", SHA),
    ],
)
def test_unknown_fields_and_newer_versions_are_let_pass(payload: dict[str, Any]) -> None:
    found = parse(payload)
    assert isinstance(found, Push) and found.sha == SHA


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"\xff\xfe", b"nothing", b'{"a": ' * 5_000, b"[" * 100_000, b"\x00", b'{"event": "\xed\xa0\x80"}'],
)
def test_what_is_no_json(body: bytes) -> None:
    with pytest.raises(Unreadable):
        hub.parse(body)


def test_a_reason_is_one_harmless_line() -> None:
    for payload in (
        changed(push(), "repo.type", "x\n::error::\x1b[31m" * 3),
        changed(push(), "event", {"scope": "repo", "action": "\x1b]0;pwned\x07\r\n"}),
        changed(push(), "event", {"scope": "x" * 90 + "\u202e", "action": ""}),
    ):
        reason = ignored(payload)
        assert len(reason) < 200 and reason.isprintable()


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
    max_leaves=8,
)
PLACES = [
    "event", "event.action", "event.scope", "repo", "repo.type", "repo.name", "repo.id", "repo.headSha", "updatedRefs",
    "discussion", "discussion.num", "comment", "comment.id", "comment.author", "comment.author.id", "comment.content",
    "comment.hidden",
]  # fmt: skip


@settings(max_examples=400, deadline=None)
@given(st.sampled_from(PLACES), JSON, st.booleans())
def test_any_value_anywhere_is_a_push_a_comment_or_nothing(place: str, value: Any, comment: bool) -> None:
    base = said(updatedRefs=[]) if comment else push(discussion={}, comment={"author": {}})
    found = parse(changed(base, place, value))
    if isinstance(found, Push):
        assert found.repo_id.count("/") == 1 and len(found.sha) == 40
    elif isinstance(found, Said):
        assert found.repo_id.count("/") == 1 and found.comment_id.isascii() and found.discussion > 0
    else:
        assert found.reason
    assert isinstance(found, Ignored) or (len(found.key) <= 200 and found.key.isprintable())


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300))
def test_any_bytes(body: bytes) -> None:
    try:
        found = hub.parse(body)
    except Unreadable:
        return
    assert isinstance(found, Ignored)
