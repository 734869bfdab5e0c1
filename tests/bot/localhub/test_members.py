"""Members of an organisation, and lists of models page by page: against the Hub's own description (``conftest``)."""

from __future__ import annotations

from collections.abc import Callable

import httpx2
from huggingface_hub import HfApi

from bot.localhub.testing import RunningHub


def members(hub: RunningHub, name: str, token: str | None = None, search: str = "") -> httpx2.Response:
    headers = {"Authorization": f"Bearer {token}"} if token else {}
    return httpx2.get(f"{hub.endpoint}/api/organizations/{name}/members", params={"search": search}, headers=headers)


def test_roles_are_told_to_members_only(hub: RunningHub, as_user: Callable[..., HfApi]) -> None:
    as_user("ann", orgs={"orga": "admin"})
    reader, stranger = as_user("ron", orgs={"orga": "read"}), as_user("sam")
    found = {one["user"]: one for one in members(hub, "orga", str(reader.token)).json()}
    assert {name: one["role"] for name, one in found.items()} == {"ann": "admin", "ron": "read"}
    for token in (None, str(stranger.token)):
        assert all("role" not in one for one in members(hub, "orga", token).json())
    assert [one["user"] for one in members(hub, "orga", search="AN").json()] == ["ann"]
    assert {one.username for one in stranger.list_organization_members("orga")} == {"ann", "ron"}
    assert members(hub, "ann").status_code == 404 and members(hub, "nobody").status_code == 404


def test_models_are_listed_page_by_page(hub: RunningHub, as_user: Callable[..., HfApi]) -> None:
    lister = as_user("lister")
    names = [lister.create_repo(f"lister/model-{number}").repo_id for number in range(5)]
    first = httpx2.get(f"{hub.endpoint}/api/models", params={"author": "lister", "limit": 2})
    assert len(first.json()) == 2 and 'rel="next"' in first.headers["Link"]
    listed = list(lister.list_models(author="lister", sort="last_modified", expand=["sha", "siblings"]))
    assert {one.id for one in listed} == set(names)
    assert all(one.sha and one.siblings for one in listed)
    following = httpx2.get(f"{hub.endpoint}/api/models", params={"author": "lister", "limit": 2, "cursor": 4})
    assert len(following.json()) == 1 and "Link" not in following.headers
