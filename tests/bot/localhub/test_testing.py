"""The test helper itself: lost replies, refused requests, and what it records."""

from __future__ import annotations

import httpx2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from bot.localhub.testing import RunningHub


def commit(api: HfApi, repo: str, **options):
    return api.create_commit(repo, [CommitOperationAdd("f.txt", b"1")], commit_message="Add f", **options)


def test_a_lost_reply_after_the_commit_was_made(alice: HfApi, hub: RunningHub, repo: str) -> None:
    fault = hub.fail(r"/commit/main$", "drop", method="POST")
    with pytest.raises(httpx2.TransportError):
        commit(alice, repo, create_pr=True)
    assert fault.hits == 1
    assert [item.title for item in alice.get_repo_discussions(repo)] == ["Add f"]


def test_a_lost_request_did_nothing(alice: HfApi, hub: RunningHub, repo: str) -> None:
    hub.fail(r"/commit/main$", "drop_before", method="POST")
    with pytest.raises(httpx2.TransportError):
        commit(alice, repo)
    assert alice.list_repo_files(repo) == [".gitattributes"]
    commit(alice, repo)


@pytest.mark.parametrize("status", [429, 500, 503])
def test_the_nth_request_is_answered_with_an_error(alice: HfApi, hub: RunningHub, repo: str, status: int) -> None:
    hub.fail(r"/discussions$", status, method="GET", skip=1, headers={"Retry-After": "1"})
    assert list(alice.get_repo_discussions(repo)) == []
    with pytest.raises(HfHubHTTPError) as caught:
        list(alice.get_repo_discussions(repo))
    assert (caught.value.response.status_code, caught.value.response.headers["retry-after"]) == (status, "1")
    assert list(alice.get_repo_discussions(repo)) == []


def test_traffic_is_recorded(alice: HfApi, hub: RunningHub, repo: str) -> None:
    before = len(hub.traffic)
    commit(alice, repo)
    sent = next(item for item in hub.traffic[before:] if item.path.endswith("/commit/main"))
    assert (sent.method, sent.status) == ("POST", 200)
    assert sent.request_json[0] == {"key": "header", "value": {"summary": "Add f", "description": ""}}
    assert sent.response_json["success"] is True


def test_users_and_organisations(hub: RunningHub) -> None:
    token = hub.create_user("dana", {"lab": "admin"})
    again = hub.create_user("dana")
    assert token != again
    ids = {HfApi(endpoint=hub.endpoint, token=each).whoami()["id"] for each in (token, again)}
    assert len(ids) == 1
