"""The webhook endpoint over real HTTP: who gets in, what is kept, and what a hostile client gets."""

from __future__ import annotations

import http.client
import json
import logging
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx2
import pytest
from huggingface_hub import HfApi

from bot.errors import DatabaseUnavailable
from bot.server.store import Store, open_engine
from bot.web import connections, webhook
from tests.bot.hubs import Repository
from tests.bot.triggers.test_hub import SHA, changed, push, said
from tests.bot.web.receiving import SECRET, Receiver, receiving, settings_for

HEADERS = {"X-Webhook-Secret": SECRET}
START = f"POST /webhooks/hub HTTP/1.1\r\nHost: x\r\nX-Webhook-Secret: {SECRET}\r\n".encode()


@pytest.fixture
def local_store(tmp_path: Path) -> Iterator[Store]:
    engine = open_engine(f"sqlite:///{tmp_path / 'ptebot.db'}")
    store = Store(engine)
    store.create()
    yield store
    engine.dispose()


@pytest.fixture
def receiver(local_store: Store) -> Iterator[Receiver]:
    with receiving(settings_for(), local_store) as running:
        yield running


def post(receiver: Receiver, payload: Any, headers: dict[str, str] | None = None, query: str = "") -> httpx2.Response:
    body = payload if isinstance(payload, bytes) else json.dumps(payload).encode()
    return httpx2.post(receiver.url + query, content=body, headers=HEADERS if headers is None else headers, timeout=20)


def test_a_webhook_is_kept_once(receiver: Receiver, local_store: Store) -> None:
    first, second = post(receiver, push()), post(receiver, push())
    assert (first.status_code, first.json()) == (202, {"status": "accepted"})
    assert (second.status_code, second.json()) == (202, {"status": "duplicate"})
    (kept,) = local_store.waiting()
    assert (kept.kind, kept.repo_id, kept.data) == ("push", "acme/tiny", {"sha": SHA})
    assert post(receiver, said()).json() == {"status": "accepted"}
    assert local_store.waiting()[1].data["discussion"] == 3
    assert receiver.results == {"accepted": 2, "duplicate": 1}


def test_what_is_ignored_is_told_why(receiver: Receiver, local_store: Store) -> None:
    for payload, reason in (
        (changed(push(), "repo.name", "other/tiny"), "other/tiny is not watched"),
        (changed(push(), "repo.type", "dataset"), "is a dataset"),
        ([1, 2], "the whole is not as in a webhook"),
    ):
        answer = post(receiver, payload)
        assert answer.status_code == 202 and answer.json()["status"] == "ignored"
        assert reason in answer.json()["reason"]
    assert local_store.waiting() == []


@pytest.mark.parametrize(
    ("headers", "query", "status"),
    [
        ({}, "", 401),
        ({"X-Webhook-Secret": ""}, "", 403),
        ({"X-Webhook-Secret": SECRET + "x"}, "", 403),
        ({"X-Webhook-Secret": SECRET[:-1]}, "", 403),
        ({"X-Webhook-Secret": SECRET.upper()}, "", 403),
        ({"Authorization": f"Bearer {SECRET}"}, "", 401),
        ({}, "?secret=", 401),
        ({}, "?secret=wrong", 403),
        ({"X-Webhook-Secret": "wrong"}, f"?secret={quote(SECRET, safe='')}", 403),
        ({}, "?" + "&".join(f"a{number}=1" for number in range(50)), 401),
        ({}, "?secret=%ff%00&secret=x", 403),
        (HEADERS, "", 202),
        ({}, f"?secret={quote(SECRET, safe='')}", 202),
        ({}, f"?x=1&secret={quote(SECRET, safe='')}", 202),
    ],
)
def test_only_the_secret_lets_in(
    receiver: Receiver, local_store: Store, headers: dict[str, str], query: str, status: int
) -> None:
    assert post(receiver, push(), headers, query).status_code == status
    assert len(local_store.waiting()) == (status == 202)


def test_without_a_secret_in_the_settings_nobody_gets_in(local_store: Store) -> None:
    with receiving(settings_for(webhook_secret=None), local_store) as open_door:
        assert post(open_door, push(), {"X-Webhook-Secret": ""}).status_code == 403
        assert post(open_door, push()).status_code == 403
        assert post(open_door, push(), {}).status_code == 401
    assert local_store.waiting() == []


def test_the_secret_is_in_no_log(
    receiver: Receiver, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.INFO, logger="uvicorn.access")
    monkeypatch.setattr(logging.getLogger("uvicorn.access"), "propagate", True)  # other servers here turned it off
    post(receiver, push(), {}, f"?secret={quote(SECRET, safe='')}")
    post(receiver, push(repo={"type": "model", "name": "x/y", "id": "1"}))
    ours = [record.getMessage() for record in caplog.records if not record.name.startswith(("http", "h11"))]
    assert any("webhook accepted" in line for line in ours)
    assert any("POST /webhooks/hub HTTP" in line for line in ours), "uvicorn's log of addresses"
    assert not any("horse" in line for line in ours)


def test_a_wrong_secret_is_answered_before_the_body_is_there(receiver: Receiver) -> None:
    for headers, status in ((b"", 401), (b"X-Webhook-Secret: wrong\r\n", 403)):
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as client:
            client.sendall(
                b"POST /webhooks/hub HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n" + headers + b"\r\n" + b"{"
            )
            assert client.recv(1000).startswith(b"HTTP/1.1 %d" % status)


def test_no_more_than_a_mebibyte_is_read(receiver: Receiver, local_store: Store) -> None:
    big = json.dumps(push(more="x" * webhook.MOST_BYTES)).encode()
    assert post(receiver, big).status_code == 413
    answer = httpx2.post(receiver.url, content=iter([big[:700_000], big[700_000:]]), headers=HEADERS)
    assert answer.status_code == 413, "also without a length"
    fits = push(more="x" * (webhook.MOST_BYTES - 1_000))
    assert post(receiver, fits).status_code == 202
    assert len(local_store.waiting()) == 1


@pytest.mark.parametrize("kind", ["application/json", "text/plain", "application/json; charset=utf-16", ""])
def test_the_content_type_says_nothing(receiver: Receiver, kind: str) -> None:
    assert post(receiver, push(), {**HEADERS, "Content-Type": kind}).json() == {"status": "accepted"}


@pytest.mark.parametrize("body", [b"", b"{", b"\xff" * 100, b"[" * 200_000, b"9" * 100_000 + b"x"])
def test_what_is_no_json(receiver: Receiver, body: bytes) -> None:
    assert post(receiver, body).status_code == 400


def test_other_methods_and_places(receiver: Receiver) -> None:
    assert httpx2.get(receiver.url, headers=HEADERS).status_code == 405
    assert httpx2.post(receiver.url + "/x", headers=HEADERS).status_code == 404


def test_a_database_that_does_not_answer(
    receiver: Receiver, local_store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    def gone(_: Any) -> list[bool]:
        raise DatabaseUnavailable("gone")

    with monkeypatch.context() as broken:
        broken.setattr(local_store, "deliver", gone)
        answer = post(receiver, push())
        assert answer.status_code == 503 and int(answer.headers["Retry-After"]) > 0
    assert local_store.waiting() == []
    assert post(receiver, push()).json() == {"status": "accepted"}, "the Hub sends it again"


def test_slow_bodies_and_silent_clients_are_let_go(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "BODY_SECONDS", 0.2)
    monkeypatch.setattr(connections, "HEADER_SECONDS", 0.2)
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as slow:
        slow.sendall(START + b"Content-Length: 1000\r\n\r\n{")
        assert slow.recv(1000).startswith(b"HTTP/1.1 408")
    for said_so_far in (b"", START, b"POST"):
        with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as silent:
            silent.sendall(said_so_far)
            assert silent.recv(1000) == b"", said_so_far
    with socket.create_connection(("127.0.0.1", receiver.port), timeout=10) as second:
        whole = json.dumps(push()).encode()
        second.sendall(START + b"Content-Length: %d\r\n\r\n" % len(whole) + whole)
        assert second.recv(1000).startswith(b"HTTP/1.1 202")
        second.sendall(b"POST /webh")  # the next request on it never ends
        assert b"".join(iter(lambda: second.recv(1000), b"")) in (b"", b'{"status":"accepted"}')
    assert post(receiver, push()).json()["status"] == "duplicate"


def test_a_flood_of_connections_is_bounded(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "MOST_CONNECTIONS", 5)
    clients = [socket.create_connection(("127.0.0.1", receiver.port), timeout=10) for _ in range(30)]
    closed = 0
    for client in clients[5:]:
        try:
            closed += client.recv(10) == b""
        except ConnectionError:
            closed += 1
    assert closed == 25
    for client in clients:
        client.close()
    assert post(receiver, push()).status_code == 202


def test_a_flood_of_requests_is_bounded(receiver: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(webhook, "MOST_AT_ONCE", 2)
    start = (
        f"POST /webhooks/hub HTTP/1.1\r\nHost: x\r\nX-Webhook-Secret: {SECRET}\r\nContent-Length: 9\r\n\r\n".encode()
    )
    open_ones = [socket.create_connection(("127.0.0.1", receiver.port), timeout=10) for _ in range(2)]
    for one in open_ones:
        one.sendall(start)
    deadline = time.monotonic() + 10
    while (answer := post(receiver, push())).status_code != 503:
        assert time.monotonic() < deadline
    assert answer.headers["Retry-After"]
    for one in open_ones:
        one.close()
    while post(receiver, push()).status_code != 202:
        assert time.monotonic() < deadline + 10


KILLED = textwrap.dedent("""
    import sys
    from bot.server.store import Store, open_engine
    from tests.bot.web.receiving import receiving, settings_for
    store = Store(open_engine(sys.argv[1]))
    with receiving(settings_for(), store) as running:
        print(running.port, flush=True)
        sys.stdin.read()
""")


def test_what_was_answered_survives_a_kill(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'ptebot.db'}"
    store = Store(open_engine(url))
    store.create()
    process = subprocess.Popen(
        [sys.executable, "-c", KILLED, url], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    port = int(process.stdout.readline())
    accepted: list[str] = []
    enough = threading.Event()

    def send(worker: int) -> None:
        try:
            client = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            for number in range(1_000):
                sha = f"{worker * 1000 + number + 1:040x}"
                body = json.dumps(push(updatedRefs=[{"ref": "refs/heads/main", "newSha": sha}]))
                client.request("POST", webhook.PATH, body, HEADERS)
                answer = client.getresponse()
                answer.read()
                if answer.status == 202:
                    accepted.append(sha)
                if len(accepted) > 200:
                    enough.set()
        except (OSError, http.client.HTTPException):
            pass  # that is the kill

    senders = [threading.Thread(target=send, args=(worker,)) for worker in range(8)]
    for sender in senders:
        sender.start()
    assert enough.wait(30)
    os.kill(process.pid, signal.SIGKILL)
    for sender in senders:
        sender.join()
    process.communicate()
    kept = {one.data["sha"] for one in store.waiting(100_000)}
    assert len(accepted) > 200 and kept.issuperset(accepted)


def test_the_hubs_own_deliveries(repo: Repository, local_store: Store) -> None:
    """A real push, a real comment and a real pull request, told by the local Hub."""
    got = threading.Event()
    with receiving(settings_for(), local_store, kept=got.set) as receiver:
        hook = repo.owner.create_webhook(url=receiver.url, watched=[{"type": "user", "name": "acme"}], secret=SECRET)
        sha = repo.push({"config.json": b'{"model_type": "llama", "a": 1}'})
        assert got.wait(10)
        (delivery,) = local_store.waiting()
        assert (delivery.repo_id, delivery.data) == (repo.repo_id, {"sha": sha})
        got.clear()
        bot = HfApi(endpoint=repo.hub.endpoint, token=repo.bot_token)
        opened = bot.create_pull_request(repo.repo_id, "A pull request", description="Not a command")
        comment = repo.owner.comment_discussion(repo.repo_id, opened.num, "/ptebot status")
        assert got.wait(10)
        found = local_store.waiting()[1]
        assert found.data["comment_id"] == comment.id and found.data["discussion"] == opened.num
        assert found.data["author_id"] == repo.owner.whoami()["id"]
        assert len(local_store.waiting()) == 2
        repo.owner.delete_webhook(hook.id)
    assert receiver.results["accepted"] == 2 and receiver.results["ignored"] >= 2
