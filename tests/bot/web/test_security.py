"""Host names, headers and proxies around every page; and all of it as on a Space."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from starlette.applications import Starlette

from bot.localhub.testing import RunningHub
from bot.web.app import build
from tests.bot.web.browser import forms, signed_in_as
from tests.bot.web.signing_in import ADMIN, Kept, open_store, settings_for

SPACE = {"space_host": "acme-ptebot.hf.space", "oauth_client_id": "id", "oauth_client_secret": "secret"}


def app_of(data: Path, **fields: Any) -> Starlette:
    store = open_store(data)
    return build(settings_for(data, **fields), store, Kept(store))


def client_of(app: Starlette, base: str, address: str = "192.0.2.9") -> httpx2.AsyncClient:
    transport = httpx2.ASGITransport(app=app, client=(address, 1234))
    return httpx2.AsyncClient(transport=transport, base_url=base)


def ask(app: Starlette, base: str, path: str = "/", **headers: str) -> httpx2.Response:
    async def get() -> httpx2.Response:
        async with client_of(app, base) as client:
            return await client.get(path, headers=headers)

    return run(get())


def run(work: Coroutine[Any, Any, Any]) -> Any:
    return asyncio.run(work)


def policy(reply: httpx2.Response) -> dict[str, list[str]]:
    parts = [part.split() for part in reply.headers["content-security-policy"].split(";")]
    return {name: values for name, *values in parts}


def test_every_reply_carries_the_headers(tmp_path: Path) -> None:
    app = app_of(tmp_path)
    for path in (
        "/",
        "/new",
        "/login",
        "/nothing",
        "/jobs/" + "0" * 32,
        "/static/style.css",
        "/static/none",
        "/api/jobs",
    ):
        reply = ask(app, "http://localhost:8000", path)
        rules = policy(reply)
        assert rules["default-src"] == ["'none'"] and rules["script-src"] == ["'self'"] == rules["style-src"]
        assert rules["form-action"] == ["'self'"] == rules["connect-src"] and rules["img-src"] == ["'self'", "data:"]
        assert rules["base-uri"] == ["'none'"] == rules["frame-ancestors"]
        assert "unsafe" not in reply.headers["content-security-policy"]
        assert reply.headers["x-content-type-options"] == "nosniff" and reply.headers["x-frame-options"] == "DENY"
        assert reply.headers["referrer-policy"] == "same-origin" and "camera=()" in reply.headers["permissions-policy"]
        assert reply.headers["cross-origin-opener-policy"] == "same-origin"
        assert "strict-transport-security" not in reply.headers
    for path in ("/", "/login", "/new", "/nothing"):
        assert ask(app, "http://localhost", path).headers["cache-control"] == "no-store"


def test_https_is_kept_and_cookies_are_tied_to_the_host(tmp_path: Path) -> None:
    app = app_of(tmp_path, public_url="https://bot.example")
    reply = ask(app, "https://bot.example", "/login")
    assert reply.headers["strict-transport-security"].startswith("max-age=31536000")
    cookie = reply.headers["set-cookie"]
    assert cookie.startswith("__Host-ptebot=v.") and cookie.endswith("; Path=/; HttpOnly; SameSite=Lax; Secure")


@pytest.mark.parametrize(
    ("host", "fine"),
    [
        ("bot.example", True), ("BOT.example:8443", True), ("extra.example", True), ("localhost:8000", True),
        ("127.0.0.1:8000", True), ("[::1]:8000", True), ("10.1.2.3", True), ("evil.example", False), ("", False),
        ("bot.example.evil.example", False), ("evil.example:bot.example", False), ("a@bot.example", False),
        ("bot.example/evil", False), ("bot.example#", False), ("bot.example:99999", False),
        ("127.0.0.1.evil.example", False), ("0x7f.1", False), ("bot.example evil", False),
    ],
)  # fmt: skip
def test_only_our_own_names_are_answered(tmp_path: Path, host: str, fine: bool) -> None:
    app = app_of(tmp_path, public_url="https://bot.example", hosts=("Extra.example",))
    reply = ask(app, "https://bot.example", "/login", host=host)
    assert reply.status_code == (200 if fine else 400)
    assert fine or host not in reply.text or not host
    assert "content-security-policy" in reply.headers


def test_two_hosts_are_none(tmp_path: Path) -> None:
    async def get() -> httpx2.Response:
        async with client_of(app_of(tmp_path), "http://localhost") as client:
            request = client.build_request("GET", "/")
            request.headers = httpx2.Headers([("host", "localhost"), ("host", "evil.example")])
            return await client.send(request)

    assert run(get()).status_code == 400


async def _fail(client: httpx2.AsyncClient, times: int, **headers: str) -> int:
    status = 0
    for _ in range(times):
        status = (await client.get("/", headers={"Authorization": "Bearer wrong", **headers})).status_code
    return status


def test_proxies_are_believed_where_they_are_named(tmp_path: Path) -> None:
    async def spoof(app: Starlette, count: int) -> int:
        async with client_of(app, "http://localhost", "10.0.0.1") as client:
            for n in range(count):
                status = await _fail(client, 1, **{"X-Forwarded-For": f"192.0.2.{n}"})
            return status

    assert run(spoof(app_of(tmp_path), 12)) == 429  # all are 10.0.0.1, whatever it says
    trusting = app_of(tmp_path, trusted_proxies=("10.0.0.0/24",))
    assert run(spoof(trusting, 12)) == 401  # each is another

    async def chain() -> int:
        async with client_of(trusting, "http://localhost", "10.0.0.1") as client:
            for n in range(12):  # the client's own word stands before what the proxy saw
                status = await _fail(client, 1, **{"X-Forwarded-For": f"203.0.113.{n}, 198.51.100.7"})
            return status

    assert run(chain()) == 429


def test_on_a_space_cookies_reach_into_the_hubs_frame(tmp_path: Path, hub: RunningHub) -> None:
    app = app_of(
        tmp_path, **SPACE, oauth_provider=hub.endpoint, oauth_scopes=("openid", "profile", "write-discussions")
    )
    base = "https://acme-ptebot.hf.space"

    async def visit() -> None:
        async with client_of(app, base) as client:
            page = await client.get("/login")
            assert page.headers["set-cookie"].endswith("; Path=/; HttpOnly; SameSite=None; Secure")
            rules = policy(page)
            assert rules["frame-ancestors"] == ["'self'", hub.endpoint]
            assert rules["form-action"] == ["'self'", hub.endpoint]
            assert "x-frame-options" not in page.headers
            assert page.headers["cross-origin-resource-policy"] == "cross-origin"
            away = await client.get("/oauth/start?next=/new")
            query = parse_qs(urlsplit(away.headers["location"]).query)
            assert query["redirect_uri"] == [f"{base}/oauth/callback"]
            assert away.headers["set-cookie"].startswith("__Host-ptebot-signin=")
            assert away.headers["set-cookie"].endswith("; Path=/; Max-Age=600; HttpOnly; SameSite=Lax; Secure")
            # SameSite=None leaves it to the mark and to where a form comes from.
            mark = forms(page.text)["/login"]["csrf"]
            form = {"csrf": mark, "token": ADMIN}
            for headers in (
                {"Origin": "https://evil.hf.space"},
                {"Origin": hub.endpoint},
                {"Sec-Fetch-Site": "cross-site"},
            ):
                assert (await client.post("/login", data=form, headers=headers)).status_code == 403
            bare = await client.post("/login", data={"token": ADMIN}, headers={"Origin": base})
            assert bare.status_code == 403 and "tab of their own" in bare.text
            done = await client.post("/login", data=form, headers={"Origin": base, "Sec-Fetch-Site": "same-origin"})
            assert done.status_code == 303
            assert signed_in_as(await client.get("/")) == "Administrator"

    run(visit())
    assert 'target="_blank"' in ask(app, base).text


def test_a_private_spaces_own_token_is_passed_over(tmp_path: Path) -> None:
    app = app_of(tmp_path, **SPACE)
    reply = ask(app, "https://acme-ptebot.hf.space", "/", authorization="Bearer hf_jwt_of_the_proxy")
    assert reply.status_code == 200 and signed_in_as(reply) is None
