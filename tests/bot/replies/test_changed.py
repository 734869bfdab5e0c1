"""Which paths an event touched, asked of GitHub."""

from __future__ import annotations

import pytest

from bot.githubapi import connect
from bot.replies.changed import changed_files
from bot.triggers.request import Origin
from tests.bot.replies.conftest import Place


def test_a_push(place: Place) -> None:
    place.repo.commit({"models/a/model.safetensors": b"1", "old.txt": b"o"})
    before = place.repo.head()
    place.repo.commit({"models/a/model.safetensors": b"2"})
    after = place.repo.commit({"old.txt": None, "src/é x.py": b"n"})
    found = changed_files(place.client, place.pushed(before=before, sha=after))
    assert found == ("models/a/model.safetensors", "old.txt", "src/é x.py")
    assert changed_files(place.client, place.pushed(before=after, sha=after)) == ()


def test_a_branch_that_was_rewritten(place: Place) -> None:
    """The comparison does not show what went with the commits that are gone."""
    base = place.repo.head()
    before = place.repo.commit({"a": b"1"})
    after = place.repo.commit({"b": b"1"}, parent=base)
    assert changed_files(place.client, place.pushed(before=before, sha=after)) is None


def test_more_files_than_github_lists(place: Place) -> None:
    before = place.repo.head()
    after = place.repo.commit({f"f/{number}": b"x" for number in range(310)})
    assert changed_files(place.client, place.pushed(before=before, sha=after)) is None


def test_a_pull_request(place: Place) -> None:
    place.repo.commit({f"f/{number}": b"x" for number in range(130)}, branch="topic")
    owner = connect(place.github.create_user("acme"), api_url=place.github.api_url)
    body = {"title": "x", "head": "topic", "base": "main"}
    number = int(owner.call("POST", f"/repos/{place.repo.full_name}/pulls", body=body)["number"])
    origin = place.pushed(event="pull_request", number=number, is_pull_request=True, sha=place.repo.head("topic"))
    assert len(changed_files(place.client, origin) or ()) == 130


def test_what_is_not_known(place: Place) -> None:
    head = place.repo.head()
    for origin in (
        place.pushed(),
        place.pushed(before="e" * 40),
        place.pushed(before=head, repository="acme/nowhere"),
        place.pushed(event="pull_request", number=9999, is_pull_request=True),
    ):
        assert changed_files(place.client, origin) is None


@pytest.mark.parametrize("fault", ["drop", 503, 403])
def test_no_answer_means_not_known(fault: object, place: Place) -> None:
    place.github.fail("/compare/", fault, times=-1)  # type: ignore[arg-type]
    head = place.repo.head()
    origin: Origin = place.pushed(before=head, sha=place.repo.commit({"a": b"1"}))
    assert changed_files(place.client, origin) is None
