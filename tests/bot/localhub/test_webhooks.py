"""Webhooks: settings over the real client, and deliveries to a real receiver on loopback."""

from __future__ import annotations

import json
import queue
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, WebhookPayload
from huggingface_hub.errors import HfHubHTTPError

from bot.localhub import deliveries
from bot.localhub.testing import RunningHub

PAYLOADS = Path(__file__).parents[4] / "shared/payloads/hub-webhooks.json"
SECRET = "correct horse battery staple"


class Receiver:
    """An HTTP server that keeps what it is sent and answers ``status``."""

    def __init__(self) -> None:
        self.got: queue.Queue[tuple[dict[str, str], dict[str, Any]]] = queue.Queue()
        self.status = 200
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                receiver.got.put(({key.lower(): value for key, value in self.headers.items()}, json.loads(body)))
                self.send_response(receiver.status)
                self.send_header("Location", "/elsewhere")
                self.end_headers()

            def log_message(self, *_args: object) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/hook?from=hub"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def next(self) -> dict[str, Any]:
        return self.got.get(timeout=10)[1]

    def scopes(self, count: int) -> list[str]:
        found = [self.next()["event"] for _ in range(count)]
        return [f"{event['scope']}:{event['action']}" for event in found]

    def nothing_more(self, hub: RunningHub) -> bool:
        """True when the queue of deliveries has run dry and nothing was received."""
        done = threading.Event()
        hub.hub.deliveries._queue.put("0" * 24)  # an unknown delivery: passes through the queue and is dropped
        while not hub.hub.deliveries._queue.empty():
            done.wait(0.02)
        done.wait(0.1)
        return self.got.empty()


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    found = Receiver()
    yield found
    found.server.shutdown()
    found.server.server_close()


@pytest.fixture
def watch(alice: HfApi, receiver: Receiver) -> Iterator[Callable[..., str]]:
    made: list[tuple[HfApi, str]] = []

    def create(*names: str, by: HfApi | None = None, **options: Any) -> str:
        api = by or alice
        watched = [{"type": "user" if "/" not in name else "model", "name": name} for name in names]
        hook = api.create_webhook(url=receiver.url, watched=watched, secret=SECRET, **options)
        made.append((api, hook.id))
        return hook.id

    yield create
    for api, hook in made:
        api.delete_webhook(hook)


def commit(api: HfApi, repo: str, data: bytes = b"1", **options: Any):
    return api.create_commit(repo, [CommitOperationAdd("f.txt", data)], commit_message="A change", **options)


def shape(value: Any) -> Any:
    """A payload's keys and kinds of values, without the values."""
    if isinstance(value, dict):
        return {key: shape(item) for key, item in value.items()}
    if isinstance(value, list):
        return [shape(value[0])]
    return type(value).__name__


def known(name: str) -> dict[str, Any]:
    if not PAYLOADS.is_file():
        pytest.skip("the captured webhook payloads are not beside this checkout")
    return json.loads(PAYLOADS.read_text())[name]["payload"]


def test_a_push_to_main_has_the_shape_of_the_hubs(alice: HfApi, repo: str, receiver: Receiver, watch) -> None:
    watch(repo)
    old = alice.model_info(repo).sha
    new = commit(alice, repo).oid
    headers, payload = receiver.got.get(timeout=10)
    assert headers["x-webhook-secret"] == SECRET
    assert headers["content-type"] == "application/json"
    assert payload["updatedRefs"] == [{"ref": "refs/heads/main", "oldSha": old, "newSha": new}]
    assert (payload["repo"]["name"], payload["repo"]["headSha"]) == (repo, new)
    expected = known("repo.content_update_main")
    expected["updatedRefs"].pop()  # its second ref is a new tag; here is one of each only
    assert shape(payload) == shape(expected)
    assert WebhookPayload(**payload).repo.owner.id == alice.whoami()["id"]


def test_a_new_pull_request_is_told_twice(bot: HfApi, repo: str, receiver: Receiver, watch) -> None:
    watch(repo)
    pr = commit(bot, repo, create_pr=True, commit_description="Please")
    first, second = receiver.next(), receiver.next()
    assert shape(first) == shape(known("WEBHOOK_PAYLOAD_CREATE_DISCUSSION"))
    assert (first["comment"]["content"], first["discussion"]["num"]) == ("Please", 1)
    assert second["updatedRefs"] == [{"ref": "refs/pr/1", "oldSha": None, "newSha": pr.oid}]
    expected = known("WEBHOOK_PAYLOAD_WITH_UPDATED_REFS")
    expected["repo"].pop("subdomain")  # spaces only
    assert shape(second) == shape(expected)
    assert WebhookPayload(**first).comment is not None


def test_comments_titles_and_status(alice: HfApi, bot: HfApi, repo: str, receiver: Receiver, watch) -> None:
    bot.create_pull_request(repo, "A pull request", description="x")
    watch(repo, domains=["discussion"])
    comment = bot.comment_discussion(repo, 1, "/export xnnpack")
    payload = receiver.next()
    assert shape(payload) == shape(known("discussion.comment_create"))
    assert (payload["comment"]["id"], payload["comment"]["content"]) == (comment.id, "/export xnnpack")
    assert payload["comment"]["author"]["id"] == bot.whoami()["id"]
    bot.edit_discussion_comment(repo, 1, comment.id, "changed")
    assert receiver.next()["comment"]["content"] == "changed"
    alice.hide_discussion_comment(repo, 1, comment.id)
    hidden = receiver.next()
    assert hidden["comment"]["hidden"] is True
    assert "content" not in hidden["comment"]
    alice.rename_discussion(repo, 1, "Another title")
    alice.change_discussion_status(repo, 1, "closed", comment="enough")
    payloads = [receiver.next() for _ in range(3)]
    assert [item["event"]["scope"] for item in payloads] == ["discussion", "discussion.comment", "discussion"]
    assert shape(payloads[2]) == shape(known("WEBHOOK_PAYLOAD_UPDATE_DISCUSSION"))
    assert payloads[2]["discussion"]["status"] == "closed"


def test_settings_and_repositories(alice: HfApi, receiver: Receiver, watch) -> None:
    watch("alice", domains=["repo"])
    repo = alice.create_repo("alice/hooked").repo_id
    alice.update_repo_settings(repo, private=True)
    alice.move_repo(repo, "alice/hooked-2")
    payloads = [receiver.next() for _ in range(3)]
    assert [item["event"] for item in payloads] == [
        {"action": "create", "scope": "repo"}, {"action": "update", "scope": "repo.config"},
        {"action": "move", "scope": "repo"},
    ]  # fmt: skip
    assert shape(payloads[1]) == shape(known("repo.config_update"))
    assert payloads[1]["updatedConfig"] == {"private": True}
    assert payloads[2]["repo"]["name"] == "alice/hooked-2"
    alice.create_tag("alice/hooked-2", tag="v1")
    alice.delete_tag("alice/hooked-2", tag="v1")
    assert [receiver.next()["updatedRefs"][0]["newSha"] is None for _ in range(2)] == [False, True]
    alice.delete_repo("alice/hooked-2")
    assert receiver.next()["event"] == {"action": "delete", "scope": "repo"}


def test_merging_is_an_update_of_main(alice: HfApi, bot: HfApi, repo: str, receiver: Receiver, watch) -> None:
    commit(bot, repo, create_pr=True)
    watch(repo)
    alice.merge_pull_request(repo, 1)
    first, second = receiver.next(), receiver.next()
    assert (first["event"]["scope"], first["discussion"]["status"]) == ("discussion", "merged")
    assert second["updatedRefs"][0]["ref"] == "refs/heads/main"


def test_domains_switches_and_strangers(
    alice: HfApi, bot: HfApi, repo: str, receiver: Receiver, watch, hub: RunningHub
) -> None:
    hook = watch(repo, domains=["discussion"])
    commit(alice, repo)
    assert receiver.nothing_more(hub)
    assert alice.disable_webhook(hook).disabled is True
    alice.create_discussion(repo, "unheard", description="x")
    assert receiver.nothing_more(hub)
    assert alice.enable_webhook(hook).disabled is False
    alice.create_discussion(repo, "heard", description="x")
    assert receiver.scopes(1) == ["discussion:create"]
    alice.delete_webhook(hook)
    secret = alice.create_repo("alice/hook-private", private=True).repo_id
    watch(secret, by=bot)  # bot may watch the name, but is told nothing of what it may not see
    commit(alice, secret)
    assert receiver.nothing_more(hub)
    hook = watch(repo)  # so that the fixture has one to delete
    assert alice.get_webhook(hook).domains == ["repo", "discussion"]


@pytest.fixture(autouse=True)
def forgiving_teardown(monkeypatch: pytest.MonkeyPatch) -> None:
    """A test may delete its webhook itself."""
    real = HfApi.delete_webhook

    def delete(self: HfApi, webhook_id: str, **options: Any) -> None:
        try:
            real(self, webhook_id, **options)
        except HfHubHTTPError as error:
            if error.response.status_code != 404:
                raise

    monkeypatch.setattr(HfApi, "delete_webhook", delete)


def test_settings_belong_to_their_user(alice: HfApi, bot: HfApi, repo: str, watch, receiver: Receiver) -> None:
    hook = watch(repo)
    assert hook in [item.id for item in alice.list_webhooks()]
    assert hook not in [item.id for item in bot.list_webhooks()]
    for call in (lambda: bot.get_webhook(hook), lambda: bot.disable_webhook(hook)):
        with pytest.raises(HfHubHTTPError, match="404"):
            call()
    updated = alice.update_webhook(hook, url="http://127.0.0.1:9/other", domains=["repo"])
    assert (updated.url, updated.domains, updated.watched[0].name) == ("http://127.0.0.1:9/other", ["repo"], repo)
    assert SECRET not in json.dumps([item.__dict__ for item in alice.list_webhooks()], default=str)


def test_replay_sends_the_same_payload_again(alice: HfApi, repo: str, watch, receiver: Receiver, http) -> None:
    hook = watch(repo)
    commit(alice, repo)
    first = receiver.next()
    log = http.get(f"/api/settings/webhooks/{hook}/log", token=alice.token).json()
    receiver.status = 503
    reply = http.post(f"/api/settings/webhooks/{hook}/replay/{log[0]['id']}", token=alice.token)
    assert reply.json() == {"status": 503}
    assert receiver.next() == first
    assert http.post(f"/api/settings/webhooks/{hook}/replay/{'0' * 24}", token=alice.token).status_code == 404


def test_failures_suspend_a_webhook_and_redirects_are_failures_to_follow(
    alice: HfApi, repo: str, watch, receiver: Receiver, hub: RunningHub, http
) -> None:
    hook = watch(repo, domains=["discussion"])
    receiver.status = 302
    alice.create_discussion(repo, "redirected", description="x")
    receiver.next()
    assert receiver.nothing_more(hub), "a redirect is not followed"
    receiver.status = 500
    for number in range(deliveries.SUSPEND_AFTER):
        alice.create_discussion(repo, f"failing {number}", description="x")
        receiver.next()
    assert receiver.nothing_more(hub)
    assert http.get(f"/api/settings/webhooks/{hook}", token=alice.token).json()["webhook"]["disabled"] == (
        "suspended-after-failure"
    )
    alice.create_discussion(repo, "unheard", description="x")
    assert receiver.nothing_more(hub)
    assert alice.enable_webhook(hook).disabled is False


def test_an_unreachable_receiver_holds_up_nobody(alice: HfApi, repo: str, watch, receiver: Receiver) -> None:
    alice.create_webhook(url="http://127.0.0.1:9/", watched=[{"type": "model", "name": repo}])
    watch(repo)
    commit(alice, repo)
    assert receiver.next()["event"]["scope"] == "repo.content"


@pytest.mark.parametrize(
    "change",
    [
        {"url": "ftp://x/"}, {"url": "file:///etc/passwd"}, {"url": "http://"}, {"url": "http://x\r\ny/"}, {"url": 5},
        {"url": "http://x:99999/"}, {"watched": []}, {"watched": [{"type": "planet", "name": "x"}]}, {"watched": "x"},
        {"domains": ["jobs"]}, {"domains": []}, {"secret": "ü"}, {"secret": "a\nb"}, {"jobSourceId": "x"},
    ],
)  # fmt: skip
def test_bad_settings_are_refused(alice: HfApi, http, change: dict[str, Any]) -> None:
    body = {"url": "http://127.0.0.1:9/", "watched": [{"type": "user", "name": "alice"}], "domains": ["repo"]}
    reply = http.post("/api/settings/webhooks", json=body | change, token=alice.token)
    assert reply.status_code == 400, reply.text
