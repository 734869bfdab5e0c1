"""Webhooks of the bot's account: set up, changed, listed and removed over a real Hub's API."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
from click.testing import CliRunner, Result
from huggingface_hub import HfApi

from bot import hooks
from bot.cli import cli
from bot.console import Console
from bot.errors import HookRefused, HubUnreachable, NotAuthorized, RepoNotFound
from bot.hubapi import connect
from bot.localhub.testing import RunningHub
from tests.bot.hubs import Repository
from tests.bot.localhub.openapi import SPEC, Description

SECRET = "a secret of ours, 32 characters!".replace(" ", "-")
URL = "https://ptebot.example.org/webhooks/hub"


@pytest.fixture
def bot(hub: RunningHub) -> HfApi:
    """The bot's account, a member of the organisation ``guild``, without webhooks."""
    api = connect(hub.endpoint, hub.create_user("hooked-bot", {"guild": "read"}))
    for one in api.list_webhooks():
        api.delete_webhook(one.id)
    return api


def test_one_is_made_and_asked_for_again_it_watches_more(hub: RunningHub, bot: HfApi, repo: Repository) -> None:
    first = hooks.install(bot, [repo.repo_id.upper().replace("ACME/TINY", "acme/tiny")], url=URL, secret=SECRET)
    assert (first.operation, first.added) == ("created", (f"model:{repo.repo_id}",))
    again = hooks.install(bot, [repo.repo_id, "GUILD", "acme", "hooked-bot"], url=URL, secret=SECRET)
    assert (again.operation, again.hook.id) == ("updated", first.hook.id)
    assert again.added == ("org:guild", "user:acme", "user:hooked-bot")
    third = hooks.install(bot, ["guild"], url=URL, secret=SECRET)
    assert (third.operation, third.added) == ("unchanged", ())
    (one,) = hooks.listed(bot)
    assert one.watched == (f"model:{repo.repo_id}", "org:guild", "user:acme", "user:hooked-bot")
    assert set(one.domains) == {"repo", "discussion"}
    sent = [one.request_json for one in hub.traffic if one.method == "POST" and "webhooks" in one.path]
    assert [body["secret"] for body in sent] == [SECRET] * 3


def test_it_brings_the_secret_to_the_address(hub: RunningHub, bot: HfApi, repo: Repository) -> None:
    got: list[tuple[str, dict[str, Any]]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            got.append((self.headers["X-Webhook-Secret"], body))
            self.send_response(202)
            self.end_headers()
            arrived.release()

        def log_message(self, *_: Any) -> None: ...

    from threading import Semaphore

    arrived = Semaphore(0)
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        done = hooks.install(bot, [repo.repo_id], url=f"http://127.0.0.1:{server.server_port}", secret=SECRET)
        assert done.hook.url == f"http://127.0.0.1:{server.server_port}/webhooks/hub"
        sha = repo.push({"config.json": b"{}"})
        assert arrived.acquire(timeout=20)
        assert got[0][0] == SECRET
        assert got[0][1]["updatedRefs"][0]["newSha"] == sha
    finally:
        server.shutdown()
        server.server_close()


def test_a_suspended_one_is_shown_and_switched_on_again(hub: RunningHub, bot: HfApi) -> None:
    made = hooks.install(bot, ["guild"], url=URL, secret=SECRET).hook
    hub.hub.database.run("UPDATE webhooks SET disabled = 'suspended-after-failure' WHERE id = ?", made.id)
    assert hooks.listed(bot)[0].state == "suspended"
    assert hooks.enable(bot, made.id).state == "enabled"
    bot.disable_webhook(made.id)
    assert hooks.listed(bot)[0].state == "disabled"
    assert hooks.enable(bot, URL).state == "enabled"
    hub.hub.database.run("UPDATE webhooks SET disabled = 'suspended-after-failure' WHERE id = ?", made.id)
    done = hooks.install(bot, ["guild"], url=URL, secret=SECRET)
    assert (done.operation, done.enabled, done.hook.state) == ("updated", True, "enabled")


def test_one_goes_by_id_or_address_and_two_of_one_address_by_id_only(bot: HfApi) -> None:
    first = hooks.install(bot, ["guild"], url=URL, secret=SECRET).hook
    with pytest.raises(HookRefused, match="no webhook"):
        hooks.remove(bot, "0" * 24)
    with pytest.raises(HookRefused, match="no webhook"):
        hooks.remove(bot, "https://ptebot.example.org/elsewhere")
    assert hooks.remove(bot, "https://ptebot.example.org").id == first.id
    assert hooks.listed(bot) == []
    twins = [bot.create_webhook(url=URL, watched=[{"type": "org", "name": "guild"}]).id for _ in range(2)]
    with pytest.raises(HookRefused, match="2 webhooks"):
        hooks.remove(bot, URL)
    assert set(hooks.install(bot, ["guild"], url=URL, secret=SECRET).others) < set(twins)
    assert hooks.remove(bot, twins[0]).id == twins[0]
    assert [one.id for one in hooks.listed(bot)] == twins[1:]


def test_others_webhooks_are_neither_seen_nor_touched(hub: RunningHub, bot: HfApi) -> None:
    other = connect(hub.endpoint, hub.create_user("somebody"))
    theirs = hooks.install(other, ["somebody"], url=URL, secret=SECRET).hook
    assert hooks.listed(bot) == []
    with pytest.raises(HookRefused):
        hooks.remove(bot, theirs.id)
    assert hooks.install(bot, ["guild"], url=URL, secret=SECRET).operation == "created"


@pytest.mark.parametrize(
    "url",
    [
        "http://ptebot.example.org",
        "ftp://ptebot.example.org",
        "https://",
        "https://user:hunter2@ptebot.example.org",
        "https://ptebot.example.org?secret=abc",
        "https://ptebot.example.org/#here",
        "https://ptebot.example.org:99999",
        "https://ptebot.example.org/\x1b[31m",
        "https://[::1",
        "https://ptebot.example.org/ä",
        "http://127.0.0.1.example.org",
        "javascript:alert(1)",
    ],
)
def test_addresses_that_are_refused(url: str) -> None:
    with pytest.raises(HookRefused) as caught:
        hooks.checked_url(url)
    assert "hunter2" not in str(caught.value) and "abc" not in str(caught.value) and "\x1b" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://localhost:7860", "http://127.0.0.1", "http://[::1]:80/", "https://h"])
def test_addresses_that_get_the_servers_path(url: str) -> None:
    assert hooks.checked_url(url) == url.rstrip("/") + "/webhooks/hub"
    assert hooks.checked_url(url.rstrip("/") + "/mine").endswith("/mine")


@pytest.mark.parametrize("secret", ["", "sh0rt", "x" * 15, "with spaces in it and more", "line\nbreaks" * 4, "ä" * 20])
def test_secrets_that_are_refused_and_not_shown(secret: str) -> None:
    with pytest.raises(HookRefused) as caught:
        hooks.check_secret(secret)
    assert not secret or secret not in str(caught.value)


def test_names_that_are_nobodys(bot: HfApi) -> None:
    for name, error in (
        ("nobody-at-all", RepoNotFound),
        ("guild/no-such-model", RepoNotFound),
        ("a/b/c", HookRefused),
        ("<script>", HookRefused),
        ("..", HookRefused),
        ("", HookRefused),
    ):
        with pytest.raises(error):
            hooks.install(bot, [name], url=URL, secret=SECRET)
    with pytest.raises(HookRefused):
        hooks.install(bot, [], url=URL, secret=SECRET)
    assert hooks.listed(bot) == []


def test_what_the_hub_says_no_to(hub: RunningHub, bot: HfApi) -> None:
    reader = connect(hub.endpoint, hub.create_user("hooked-reader", role="read"))
    with pytest.raises(NotAuthorized, match="webhooks"):
        hooks.install(reader, ["guild"], url=URL, secret=SECRET)
    hub.fail("/api/settings/webhooks", 400, method="POST")
    with pytest.raises(HookRefused) as caught:
        hooks.install(bot, ["guild"], url=URL, secret=SECRET)
    assert SECRET not in str(caught.value)
    hub.fail("/api/settings/webhooks", 503, method="GET")
    with pytest.raises(HubUnreachable):
        hooks.listed(bot)


# The command.


class Health(BaseHTTPRequestHandler):
    """A server that is up, below a path of its own."""

    def do_GET(self) -> None:
        self.send_response({"/healthz": 200, "/below/healthz": 200, "/moved/healthz": 302}.get(self.path, 404))
        self.send_header("Location", "/healthz")
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: Any) -> None: ...


@pytest.fixture
def server() -> Iterator[str]:
    made = ThreadingHTTPServer(("127.0.0.1", 0), Health)
    Thread(target=made.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{made.server_port}"
    made.shutdown()
    made.server_close()


def run(hub: RunningHub, bot: HfApi, *args: str, secret: str | None = SECRET, **env: str) -> Result:
    runner = CliRunner()
    given = {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": str(bot.token), "PTEBOT_WEBHOOK_SECRET": secret, **env}
    return runner.invoke(cli, ["hook", *args], obj=Console(), env=given)


def test_the_server_is_asked_first(hub: RunningHub, bot: HfApi, server: str) -> None:
    assert hooks.answers(server) is None
    assert hooks.answers(f"{server}/below/webhooks/hub") is None
    assert "302" in str(hooks.answers(f"{server}/moved/webhooks/hub"))
    refused = run(hub, bot, "install", "guild", "--url", f"{server}/nothing/webhooks/hub", "--test")
    assert isinstance(refused.exception, HookRefused) and "404" in refused.exception.what
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        refused = run(hub, bot, "install", "guild", "--url", f"http://127.0.0.1:{taken.getsockname()[1]}", "--test")
    assert isinstance(refused.exception, HookRefused) and "does not answer" in refused.exception.what
    assert hooks.listed(bot) == []
    done = run(hub, bot, "install", "guild", "--url", server, "--test")
    assert done.exit_code == 0, done.output
    assert "Webhook made" in done.output and "org:guild" in done.output and SECRET not in done.output


def test_the_secret_comes_from_a_variable_or_a_file_or_not_at_all(hub: RunningHub, bot: HfApi, tmp_path: Path) -> None:
    missing = run(hub, bot, "install", "guild", "--url", URL, secret=None)
    assert isinstance(missing.exception, HookRefused) and "PTEBOT_WEBHOOK_SECRET is empty" in missing.exception.what
    other = run(hub, bot, "install", "guild", "--url", URL, "--secret-env", "MINE", secret=None, MINE=SECRET + "2")
    assert other.exit_code == 0
    file = tmp_path / "secret"
    file.write_text(SECRET + "3\n")
    assert run(hub, bot, "install", "guild", "--url", URL, "--secret-file", str(file), secret=None).exit_code == 0
    sent = [one.request_json["secret"] for one in hub.traffic if one.method == "POST" and "webhooks" in one.path]
    assert sent == [SECRET + "2", SECRET + "3"]


def test_wrong_usage(hub: RunningHub, bot: HfApi) -> None:
    assert run(hub, bot, "install", "guild").exit_code == 2
    assert run(hub, bot, "install", "--url", URL).exit_code == 2
    assert run(hub, bot, "remove").exit_code == 2
    assert run(hub, bot, "remove", "0" * 24, "--url", URL).exit_code == 2
    assert isinstance(run(hub, bot, "list", HF_TOKEN="").exception, NotAuthorized)


def test_the_whole_command_as_a_process(hub: RunningHub, bot: HfApi) -> None:
    env = os.environ | {"HF_ENDPOINT": hub.endpoint, "HF_TOKEN": str(bot.token), "PTEBOT_WEBHOOK_SECRET": SECRET}

    def ptebot(*args: str) -> tuple[int, Any, str]:
        done = subprocess.run(
            [sys.executable, "-m", "bot.cli", "hook", *args], env=env, capture_output=True, text=True, check=False
        )
        assert SECRET not in done.stdout + done.stderr and str(bot.token) not in done.stdout + done.stderr
        return done.returncode, json.loads(done.stdout) if "--json" in args else done.stdout, done.stderr

    code, made, _ = ptebot("install", "guild", "--url", URL, "--json")
    assert (code, made["operation"], made["hook"]["watched"]) == (0, "created", ["org:guild"])
    code, shown, _ = ptebot("list", "--json")
    assert (code, [one["id"] for one in shown["hooks"]]) == (0, [made["hook"]["id"]])
    code, text, _ = ptebot("list")
    assert code == 0 and URL in text and "enabled" in text
    code, wrong, _ = ptebot("remove", "f" * 24, "--json")
    assert (code, wrong["error"]["class"]) == (94, "HookRefused")
    code, gone, _ = ptebot("remove", "--url", URL, "--json")
    assert (code, gone["removed"]["id"]) == (0, made["hook"]["id"])
    assert hooks.listed(bot) == []


def test_every_body_is_one_of_the_hubs(hub: RunningHub, bot: HfApi, repo: Repository) -> None:
    if not SPEC.is_file():
        pytest.skip("the Hub's OpenAPI description is not beside this checkout")
    made = hooks.install(bot, ["guild", repo.repo_id], url=URL, secret=SECRET).hook
    hooks.install(bot, ["acme"], url=URL, secret=SECRET)
    hooks.enable(bot, made.id)
    hooks.remove(bot, made.id)
    verdict = Description().check(hub.traffic)
    assert not verdict.errors
    assert verdict.checked["POST /api/settings/webhooks request"] >= 1
    assert verdict.checked["POST /api/settings/webhooks/{webhookId} request"] >= 1
