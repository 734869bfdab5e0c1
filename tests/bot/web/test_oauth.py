"""Signing in with the Hub: the whole way over HTTP against the local Hub, and every way around it."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx2
import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from bot.errors import NotAuthorized
from bot.localhub.testing import RunningHub
from tests.bot.hubs import Repository
from tests.bot.web.browser import Browser, bare_get, bare_post, forms, signed_in_as
from tests.bot.web.signing_in import Site, running_site

SCOPES = ("openid", "profile", "write-discussions")


@contextmanager
def site_of(hub: RunningHub, data: Path, *, granted: tuple[str, ...] = SCOPES, **fields: Any) -> Iterator[Site]:
    """The pages with an application of the local Hub's."""

    def register(url: str) -> dict[str, Any]:
        client_id, secret = hub.register_app(f"{url}/oauth/callback", scopes=granted)
        return {"oauth_client_id": client_id, "oauth_client_secret": secret}

    with running_site(
        data, port_first=register, endpoint=hub.endpoint, oauth_scopes=granted, admin_token=None, **fields
    ) as site:
        yield site


@pytest.fixture
def site(hub: RunningHub, tmp_path: Path) -> Iterator[Site]:
    with site_of(hub, tmp_path) as running:
        yield running


def person(hub: RunningHub, site: Site, name: str = "Maria", orgs: dict[str, Any] | None = None) -> Browser:
    """A browser that is signed in to the Hub."""
    return Browser(site.url, {hub.endpoint: (name, hub.create_user(name, orgs))})


def sign_in(browser: Browser, decision: str = "allow", path: str = "/", **values: str) -> httpx2.Response:
    """From the page's link over the Hub's consent to the page again."""
    assert 'href="/oauth/start' in browser.get(f"{browser.base}/login").text
    consent = browser.get(f"{browser.base}/oauth/start?next={path}")
    return browser.submit(consent, "/oauth/authorize", decision=decision, **values)


def callback_of(browser: Browser) -> str:
    """The address that the Hub would send the browser to, not visited."""
    consent = browser.get(f"{browser.base}/oauth/start")
    sent = browser.submit(consent, "/oauth/authorize", follow=False, decision="allow")
    return sent.headers["location"]


def test_a_person_signs_in_and_the_pull_request_is_theirs(site: Site, hub: RunningHub, repo: Repository) -> None:
    with person(hub, site) as browser:
        assert signed_in_as(sign_in(browser, path="/new")) == "Maria"
        assert urlsplit(browser.here).path == "/new"
        asked = browser.submit(
            browser.get("/new"), "/new", model=repo.repo_id, backends="portable", precisions="fp32", max_seq_len=""
        )
        assert asked.status_code == 200 and urlsplit(browser.here).path.startswith("/jobs/")
    [token] = site.actions.tokens
    assert token is not None
    published = repo.publish(repo.report(), token=token)
    assert published.operation == "created"
    pull = repo.owner.get_discussion_details(repo.repo_id, 1)
    assert (pull.author, pull.status) == ("Maria", "open")
    [job] = site.store.jobs()
    assert job.asker.name == "Maria" and job.asker.trigger == "form"
    # The same token may do nothing else: not write the repository, not make another, not read what is private.
    api = HfApi(endpoint=hub.endpoint, token=token)
    for forbidden in (
        lambda: api.create_repo("Maria/new"),
        lambda: api.upload_file(path_or_fileobj=b"x", path_in_repo="x", repo_id=repo.repo_id),
        api.list_webhooks,
    ):
        with pytest.raises(HfHubHTTPError) as refused:
            forbidden()
        assert refused.value.response is not None and refused.value.response.status_code == 403


def test_the_token_is_nowhere_in_clear(site: Site, hub: RunningHub, tmp_path: Path) -> None:
    with person(hub, site) as browser:
        sign_in(browser)
        page = browser.get("/")
        asked = [one for one in hub.traffic if one.path == "/oauth/token"]
        token = asked[-1].response_json["access_token"]
        cookies = " ".join(cookie.value or "" for cookie in browser.client.cookies.jar)
        kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
        secret = site.settings.oauth_client_secret
        assert secret is not None
        for value in (token, token.split(".")[1], secret.get_secret_value()):
            assert value not in cookies and value not in page.text and value.encode() not in kept
            assert all(value not in url for url in browser.seen)
    [form] = [one.request_json for one in asked]
    assert set(form) == {"grant_type", "code", "redirect_uri", "client_id", "code_verifier"}


def test_what_is_asked_is_the_least(hub: RunningHub, tmp_path: Path) -> None:
    granted = ("openid", "profile", "email", "manage-repos", "read-repos", "write-discussions")
    with site_of(hub, tmp_path, granted=granted) as site, person(hub, site) as browser:
        query = parse_qs(urlsplit(browser.get("/oauth/start", follow=False).headers["location"]).query)
    assert query["scope"] == ["openid profile write-discussions read-repos"]
    assert query["code_challenge_method"] == ["S256"] and len(query["code_challenge"][0]) == 43
    assert query["response_type"] == ["code"] and len(query["state"][0]) >= 43 and len(query["nonce"][0]) >= 43


def test_administrators_are_known_by_name_in_any_case(hub: RunningHub, tmp_path: Path) -> None:
    with site_of(hub, tmp_path, admins=("maria", "acme-admins")) as site:
        hub.create_user("Boss", {"acme-admins": "admin"})
        for name, admin in (("Maria", True), ("Mariae", False), ("Boss", False)):  # an organisation is no person
            with person(hub, site, name) as browser:
                assert signed_in_as(sign_in(browser)) == name
                cookie = {"Cookie": f"ptebot={browser.cookie('ptebot')}", "Accept": "text/html"}
                mark = forms(browser.get("/new").text)["/new"]["csrf"]
                done = bare_post(f"{site.url}/jobs/{'0' * 32}/cancel", headers=cookie, data={"csrf": mark})
                assert (done.status_code != 403) == admin


def test_only_the_named_may_sign_in(hub: RunningHub, tmp_path: Path) -> None:
    with site_of(hub, tmp_path, users=("anna", "The-Org"), admins=("root",)) as site:
        for name, orgs, fine in (
            ("Anna", {}, True),
            ("Member", {"the-org": "read"}, True),
            ("Root", {}, True),
            ("Stranger", {"another-org": "admin"}, False),
            ("the-org2", {}, False),
        ):
            with person(hub, site, name, orgs) as browser:
                page = sign_in(browser)
                assert signed_in_as(page) == (name if fine else None)
                assert fine or (page.status_code == 403 and "may not sign in here" in page.text)
                assert fine or browser.cookie("ptebot-signin") is None


def test_pages_that_are_not_public(hub: RunningHub, tmp_path: Path) -> None:
    with site_of(hub, tmp_path, public_pages=False, admins=("boss",)) as site:
        shown = bare_get(site.url + "/jobs/1?a=b", headers={"Accept": "text/html"})
        assert shown.status_code == 303 and shown.headers["location"] == "/login?next=%2Fjobs%2F1%3Fa%3Db"
        for path in (
            "/",
            "/api/jobs",
            "/new",
            "/repos/a/b",
            "/jobs/1/events",
            "/anything",
            "/loginx",
            "/static/../new",
        ):
            assert bare_get(site.url + path).status_code == 401
        assert bare_post(site.url + "/new", data={"x": "y"}).status_code == 401
        assert bare_get(site.url + "/static/style.css").status_code == 200
        with person(hub, site, "Anybody") as browser:  # nobody is named, so all sign in, and only administrators see
            assert sign_in(browser).status_code == 403
        with person(hub, site, "Boss") as browser:
            assert signed_in_as(sign_in(browser)) == "Boss"


def test_a_session_is_no_longer_than_its_token(site: Site, hub: RunningHub, tmp_path: Path) -> None:
    hub.hub.oauth.seconds = 100
    try:
        with person(hub, site) as browser:
            sign_in(browser)
            [until] = _rows(tmp_path, "SELECT expires_at FROM ptebot_sessions")
            [began] = _rows(tmp_path, "SELECT strftime('%s', 'now')")
            assert 0 < until[0] - float(began[0]) <= 101
            _rows(tmp_path, "UPDATE ptebot_sessions SET expires_at = 1")
            assert signed_in_as(browser.get("/")) is None
    finally:
        hub.hub.oauth.seconds = 8 * 3600


def test_without_the_scope_there_is_no_token_for_pull_requests(hub: RunningHub, repo: Repository) -> None:
    with (
        site_of(hub, repo.scratch, granted=("openid", "profile")) as site,
        person(hub, site) as browser,
    ):
        assert signed_in_as(sign_in(browser)) == "Maria"
        browser.submit(browser.get("/new"), "/new", model=repo.repo_id, backends="portable", precisions="fp32")
        assert [one for one in site.actions.tokens if one] == []
    token = [one for one in hub.traffic if one.path == "/oauth/token"][-1].response_json["access_token"]
    with pytest.raises(NotAuthorized):
        repo.publish(repo.report(), token=token)
    assert repo.pulls() == []


# --- what goes wrong


def test_who_declines_is_told_and_can_try_again(site: Site, hub: RunningHub) -> None:
    with person(hub, site) as browser:
        page = sign_in(browser, "deny")
        assert page.status_code == 403 and "You declined" in page.text and signed_in_as(page) is None
        assert signed_in_as(sign_in(browser)) == "Maria"


def test_an_answer_is_good_once_and_for_one_browser(site: Site, hub: RunningHub) -> None:
    with person(hub, site) as browser, person(hub, site, "Eve") as eve:
        theirs = callback_of(eve)
        browser.get("/oauth/start")
        page = browser.get(theirs)  # an attacker's link would sign the victim in as the attacker
        assert page.status_code == 403 and signed_in_as(browser.get("/")) is None
        with Browser(site.url) as fresh:
            assert fresh.get(theirs).status_code == 403
        ours = callback_of(browser)
        kept = browser.cookie("ptebot-signin")
        assert signed_in_as(browser.get(ours)) == "Maria"
        assert browser.cookie("ptebot-signin") is None
        before = browser.cookie("ptebot")
        assert browser.get(ours).status_code == 403  # reloaded
        replayed = bare_get(ours, headers={"Cookie": f"ptebot-signin={kept}"})
        assert replayed.status_code == 403 and "ptebot=" not in replayed.headers["set-cookie"]
        assert browser.cookie("ptebot") == before


def test_answers_that_do_not_fit(site: Site, hub: RunningHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with person(hub, site) as browser:
        for changed in ("state", "code", "nothing", "error", "iss", "cookie", "expired"):
            if changed == "expired":
                monkeypatch.setattr("bot.web.oauth.SECONDS_TO_SIGN_IN", -1.0)
                monkeypatch.setattr("bot.web.auth.SECONDS_TO_SIGN_IN", 600.0)
            url = callback_of(browser)
            query = {name: values[0] for name, values in parse_qs(urlsplit(url).query).items()}
            if changed in ("state", "code"):
                query[changed] = query[changed][:-1] + ("A" if query[changed][-1] != "A" else "B")
            elif changed == "error":
                query = {"state": query["state"], "error": "<script>alert(1)</script>", "error_description": "<b>x</b>"}
            elif changed == "iss":
                query["iss"] = "https://evil.example"
            elif changed == "nothing":
                query = {}
            elif changed == "cookie":
                kept = browser.cookie("ptebot-signin") or ""
                browser.client.cookies.delete("ptebot-signin")
                browser.client.cookies.set("ptebot-signin", kept[:-2] + "00", domain="127.0.0.1")
            page = browser.get(f"{site.url}/oauth/callback?{httpx2.QueryParams(query)}")
            assert page.status_code == 403 and 'role="alert"' in page.text, changed
            assert "<script>alert" not in page.text and "<b>x" not in page.text
            assert signed_in_as(browser.get("/")) is None
    assert "too long" in page.text


def test_a_hub_that_is_down_is_told(site: Site, hub: RunningHub) -> None:
    with person(hub, site) as browser:
        for path in ("openid-configuration", "/oauth/token", "/oauth/jwks", "/oauth/userinfo"):
            for action in (500, "drop"):
                url = "" if path == "openid-configuration" else callback_of(browser)
                fault = hub.fail(path, action, times=-1)  # type: ignore[arg-type]
                page = browser.get(url or f"{site.url}/oauth/start?next=/new")
                assert page.status_code == (403 if url else 502) and fault.hits == 1
                assert "The Hub" in page.text and signed_in_as(page) is None
                hub.clear_faults()
        assert signed_in_as(sign_in(browser)) == "Maria"


def test_the_consent_is_the_persons_own(site: Site, hub: RunningHub) -> None:
    """Of the local Hub itself: no other site can send its form, and no application can consent."""
    with person(hub, site) as browser, person(hub, site, "Eve") as eve:
        theirs = forms(eve.get("/oauth/start").text)["/oauth/authorize"]["ticket"]
        browser.get("/oauth/start")
        answer = browser.post("/oauth/authorize", {"ticket": theirs, "decision": "allow"}, follow=False)
        assert answer.status_code == 403
        assert browser.post("/oauth/authorize", {"decision": "allow"}, follow=False).status_code == 400
        sign_in(browser)
        token = [one for one in hub.traffic if one.path == "/oauth/token"][-1].response_json["access_token"]
        app = bare_get(browser.get("/oauth/start", follow=False).headers["location"], auth=("x", token))
        assert app.status_code == 401


def _rows(data: Path, sql: str) -> list[Any]:
    with sqlite3.connect(data / "test.sqlite3") as database:
        return database.execute(sql).fetchall()
