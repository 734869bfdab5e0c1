"""The link back, and which conversation gets it."""

from __future__ import annotations

from bot.githubapi import connect
from bot.replies import link
from bot.replies.conversation import Conversation
from tests.bot.replies.conftest import Place

HUB = "https://hub.example/acme/tiny/discussions/3"


def _pull(place: Place, branch: str = "train") -> int:
    place.repo.commit({f"{branch}.py": b"train()"}, branch=branch)
    owner = connect(place.github.create_user("acme"), api_url=place.github.api_url)
    body = {"title": "Train on", "head": branch, "base": "main"}
    return int(owner.call("POST", f"/repos/{place.repo.full_name}/pulls", body=body)["number"])


def _merge(place: Place, number: int) -> str:
    owner = connect(place.github.create_user("acme"), api_url=place.github.api_url)
    answer = owner.call("PUT", f"/repos/{place.repo.full_name}/pulls/{number}/merge", body={})
    return str(answer["sha"])


def _comments(place: Place, number: int) -> list[str]:
    return [one.body for one in place.repo.comments(number)]


def test_a_merged_pull_request_is_told_once(place: Place) -> None:
    number = _pull(place)
    sha = _merge(place, number)
    talk = Conversation(place.client, place.pushed(sha=sha))
    talk.link_back(model="acme/tiny", operation="created", url=HUB)
    talk.link_back(model="acme/tiny", operation="updated", url=HUB)
    (body,) = _comments(place, number)
    assert f"ExecuTorch files of acme/tiny as of `{sha}` are offered anew in [a pull request on the Hub]({HUB})" in body
    talk.link_back(model="acme/other", operation="created", url=HUB)
    assert len(_comments(place, number)) == 2, "one for each model"


def test_a_pull_request_is_told_of_its_own_export(place: Place) -> None:
    number = _pull(place)
    origin = place.pushed(event="pull_request", number=number, is_pull_request=True, sha=place.repo.head("train"))
    Conversation(place.client, origin).link_back(model="acme/tiny", operation="created", url=HUB)
    assert len(_comments(place, number)) == 1


def test_a_push_that_came_from_nowhere_tells_nobody(place: Place) -> None:
    number = _pull(place)
    warnings: list[str] = []
    talk = Conversation(place.client, place.pushed(), warn=warnings.append)
    talk.link_back(model="acme/tiny", operation="created", url=HUB)
    assert _comments(place, number) == [] and warnings == []


def test_a_pull_request_that_only_has_the_commit_in_its_past_is_not_told(place: Place) -> None:
    """It was pushed for something else, and the commit came along."""
    number = _pull(place)
    earlier = place.repo.head("train")
    place.repo.commit({"more.py": b"1"}, branch="train")
    talk = Conversation(place.client, place.pushed(sha=earlier, ref="refs/heads/train"))
    talk.link_back(model="acme/tiny", operation="created", url=HUB)
    assert _comments(place, number) == []


def test_nothing_new_is_not_told(place: Place) -> None:
    number = _pull(place)
    talk = Conversation(place.client, place.pushed(sha=_merge(place, number)))
    for operation in ("unchanged", "none"):
        talk.link_back(model="acme/tiny", operation=operation, url=HUB)
    for url in (None, "javascript:alert(1)", "https://hub.example/)x"):
        talk.link_back(model="acme/tiny", operation="created", url=url)
    assert _comments(place, number) == []


def test_a_model_s_name_reaches_nobody(place: Place) -> None:
    number = _pull(place)
    talk = Conversation(place.client, place.pushed(sha=_merge(place, number)))
    talk.link_back(model="@octocat <b>#1", operation="created", url=HUB)
    (body,) = _comments(place, number)
    assert "@" not in body and "<b>" not in body and "#1" not in body


def test_other_events_belong_to_no_conversation(place: Place) -> None:
    for event in ("schedule", "workflow_dispatch", "release"):
        assert link.conversation_of(place.client, place.pushed(event=event)) is None
    assert place.github.requests == []


def test_a_fault_on_the_way_doubles_nothing(place: Place) -> None:
    number = _pull(place)
    sha = _merge(place, number)
    place.github.fail("/comments$", "drop", method="POST")
    Conversation(place.client, place.pushed(sha=sha)).link_back(model="a/b", operation="created", url=HUB)
    assert len(_comments(place, number)) == 1
