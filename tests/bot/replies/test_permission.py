"""Who may give commands, asked of the API."""

from __future__ import annotations

import pytest

from bot.errors import GitHubUnreachable
from bot.githubapi import connect
from bot.replies import permission
from tests.bot.replies.conftest import Place
from tests.localgithub.state import ROLES


@pytest.mark.parametrize("role", ROLES)
def test_a_role_decides(role: str, place: Place) -> None:
    place.repo.set_role("mona", role)  # type: ignore[arg-type]
    allowed = permission.may_write(place.client, place.repo.full_name, "mona")
    assert allowed is (role in ("write", "maintain", "admin"))


def test_the_owner_may_and_strangers_may_not(place: Place) -> None:
    place.github.create_user("stranger")
    assert permission.may_write(place.client, place.repo.full_name, "acme")
    for login in ("stranger", "nobody-at-all", ""):
        assert not permission.may_write(place.client, place.repo.full_name, login)


def test_nobody_may_where_the_token_sees_nothing(place: Place) -> None:
    place.repo.set_role("mona", "admin")
    place.repo.repo.private = True
    other = place.github.create_repo("acme", "another")
    blind = connect(place.github.installation_token(other), api_url=place.github.api_url)
    assert not permission.may_write(blind, place.repo.full_name, "mona")


def test_no_answer_is_no_permission(place: Place) -> None:
    place.repo.set_role("mona", "admin")
    place.github.fail("/permission", 502, times=-1)
    with pytest.raises(GitHubUnreachable):
        permission.may_write(place.client, place.repo.full_name, "mona")


@pytest.mark.parametrize(
    "answer",
    [
        None,
        [],
        {},
        {"permission": "admin"},
        {"permission": "admin", "user": None},
        {"permission": "admin", "user": {"login": "somebody"}},
        {"permission": "admin", "user": {"login": ""}},
        {"permission": "read", "role_name": "triage", "user": {"login": "mona"}},
        {"permission": ["admin"], "role_name": {"a": "write"}, "user": {"login": "mona"}},
    ],
)
def test_answers_that_give_nobody_a_right(answer: object) -> None:
    assert not permission._may(answer, "mona")


def test_a_role_of_an_organization_s_own_counts_by_what_it_comes_down_to() -> None:
    assert permission._may({"permission": "write", "role_name": "model-steward", "user": {"login": "Mona"}}, "mona")
