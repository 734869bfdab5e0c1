"""The administrator's token: signing in and out, cookies, CSRF, bearers, and every way around them."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx2
import pytest

from bot.server.records import Asked, Asker
from bot.web.attempts import IN_ALL, KNOWN, PER_ADDRESS, WINDOW, Attempts
from bot.web.security import local_path
from tests.bot.web.browser import Browser, bare_get, bare_post, forms, signed_in_as
from tests.bot.web.signing_in import ADMIN, Site, running_site

HOSTILE_PATHS = [
    "https://evil.example/", "//evil.example", "///evil.example", "/\\evil.example", "\\\\evil.example", "/.\\evil",
    "/\t/evil.example", "/\n//evil.example", "javascript:alert(1)", "evil", "", "/a\r\nSet-Cookie: a=b", "/\x00",
    "/\u00e4", "/" + "a" * 2000, " /evil", "http:evil",
]  # fmt: skip


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path) as running:
        yield running


@pytest.fixture
def browser(site: Site) -> Iterator[Browser]:
    with Browser(site.url) as one:
        yield one


def sign_in(browser: Browser, token: str = ADMIN, *, follow: bool = True, **values: str) -> httpx2.Response:
    return browser.submit(browser.get("/login"), "/login", follow=follow, token=token, **values)


def test_the_token_makes_an_administrator(browser: Browser) -> None:
    assert signed_in_as(browser.get("/")) is None
    done = sign_in(browser, follow=False, next="/new")
    assert done.status_code == 303 and done.headers["location"] == "/new"
    header = done.headers["set-cookie"]
    assert re.fullmatch(r"ptebot=s\.[\w-]{43}; Path=/; Max-Age=\d+; HttpOnly; SameSite=Lax", header)
    assert signed_in_as(browser.get("/")) == "Administrator"


@pytest.mark.parametrize("token", ["", "wrong", ADMIN + "x", ADMIN[:-1], ADMIN.upper(), "ä" * 30, "\udcff\x00"])
def test_another_token_does_not(browser: Browser, token: str) -> None:
    refused = sign_in(browser, token.encode("utf-8", "replace").decode())
    assert refused.status_code == 403 and "not the administrator" in refused.text
    assert signed_in_as(browser.get("/")) is None
    assert token == "" or token not in refused.text


def test_no_token_set_lets_nobody_in(tmp_path: Path) -> None:
    with running_site(tmp_path, admin_token=None) as site, Browser(site.url) as browser:
        page = browser.get("/login")
        assert "not set up" in page.text and "/login" not in forms(page.text)
        mark = forms(browser.get("/new").text)["/new"]["csrf"]
        for token in ("", "None"):
            assert browser.post("/login", {"csrf": mark, "token": token}).status_code == 403
        assert signed_in_as(browser.get("/", headers={"Authorization": "Bearer None"})) is None


def test_signing_out_ends_the_session_everywhere(site: Site, browser: Browser) -> None:
    sign_in(browser)
    stolen = browser.cookie("ptebot")
    page = browser.submit(browser.get("/"), "/logout")
    assert signed_in_as(page) is None
    with Browser(site.url) as thief:
        assert signed_in_as(thief.get("/", headers={"Cookie": f"ptebot={stolen}"})) is None


def test_a_session_gets_a_new_cookie_whatever_the_browser_brought(site: Site, browser: Browser) -> None:
    before = browser.cookie("ptebot") if browser.get("/").status_code == 200 else ""
    sign_in(browser)
    first = browser.cookie("ptebot")
    assert first != before
    sign_in(browser)
    assert browser.cookie("ptebot") != first
    with Browser(site.url) as other:  # the session that was replaced is over
        assert signed_in_as(other.get("/", headers={"Cookie": f"ptebot={first}"})) is None
    planted = "s." + "A" * 43
    with Browser(site.url) as victim:
        victim.client.cookies.set("ptebot", planted, domain="127.0.0.1")
        sign_in(victim)
        assert victim.cookie("ptebot") != planted


def test_cookies_that_are_none_of_ours_are_nobodys(site: Site, browser: Browser) -> None:
    sign_in(browser)
    good = browser.cookie("ptebot") or ""
    changed = good[:-1] + ("A" if good[-1] != "A" else "B")
    bad = [changed, good + "A", good[:-1], "s.", "", "v" + good[1:], good.swapcase(), f'"{good}"', "s." + "ä" * 43]
    for value in [*bad, f"{good}; ptebot={good}", f"{good}; ptebot=v.{'A' * 43}"]:
        headers = {"Cookie": f"ptebot={value}".encode()}
        shown = bare_get(site.url + "/", headers=headers)
        assert shown.status_code == 200 and signed_in_as(shown) is None, value
    assert signed_in_as(bare_get(site.url + "/", headers={"Cookie": f"a=b; ptebot={good} ; c"})) == "Administrator"


def test_a_session_ends_with_its_time_with_the_token_and_with_the_key(tmp_path: Path) -> None:
    with running_site(tmp_path) as site, Browser(site.url) as browser:
        sign_in(browser)
        cookie = {"Cookie": f"ptebot={browser.cookie('ptebot')}"}
    for changed in ({"admin_token": ADMIN[::-1]}, {"secret_key": "another" * 8}, {"admin_token": None}):
        with running_site(tmp_path, **changed) as site:
            assert signed_in_as(bare_get(site.url + "/", headers=cookie)) is None
    with running_site(tmp_path) as site:  # a restart alone ends none
        assert signed_in_as(bare_get(site.url + "/", headers=cookie)) == "Administrator"
        with sqlite3.connect(tmp_path / "test.sqlite3") as database:
            database.execute("UPDATE ptebot_sessions SET expires_at = 1")
        assert signed_in_as(bare_get(site.url + "/", headers=cookie)) is None
        with Browser(site.url) as browser:
            sign_in(browser)  # which clears away what is over
    with sqlite3.connect(tmp_path / "test.sqlite3") as database:
        assert database.execute("SELECT count(*) FROM ptebot_sessions").fetchone() == (1,)


def test_the_database_gives_nobody_a_cookie_or_a_token(tmp_path: Path) -> None:
    with running_site(tmp_path) as site, Browser(site.url) as browser:
        sign_in(browser)
        cookie = browser.cookie("ptebot") or ""
        with sqlite3.connect(tmp_path / "test.sqlite3") as database:
            assert database.execute("SELECT count(*) FROM ptebot_sessions").fetchone() == (1,)
    kept = b"".join(path.read_bytes() for path in tmp_path.iterdir())
    assert cookie[2:].encode() not in kept and ADMIN.encode() not in kept


def test_a_database_that_fails_signs_nobody_in(site: Site, browser: Browser, tmp_path: Path) -> None:
    sign_in(browser)
    with sqlite3.connect(tmp_path / "test.sqlite3") as database:
        database.execute("DROP TABLE ptebot_sessions")
    shown = browser.get("/")
    assert shown.status_code == 503 and "retry-after" in shown.headers
    assert "content-security-policy" in shown.headers and "ptebot_sessions" not in shown.text
    assert bare_get(site.url + "/login").status_code == 200


# --- CSRF


def test_forms_without_their_mark_are_refused(site: Site, browser: Browser) -> None:
    job, _ = site.store.add(Asked(repo_id="acme/tiny", sha="a" * 40), Asker(trigger="cli"))
    page = browser.get("/login")
    mark = forms(page.text)["/login"]["csrf"]
    with Browser(site.url) as other:
        foreign = forms(other.get("/login").text)["/login"]["csrf"]
    for bad in ({}, {"csrf": ""}, {"csrf": foreign}, {"csrf": mark[:-1]}, {"csrf": "ä"}, {"csrf[]": mark}):
        assert browser.post("/login", {"token": ADMIN, **bad}).status_code == 403
    assert signed_in_as(browser.get("/")) is None
    sign_in(browser)
    for bad in ({"x": ""}, {"csrf": foreign}, {"csrf": mark}):  # that of before signing in is over too
        assert browser.post(f"/jobs/{job.id}/cancel", bad).status_code == 403
        assert browser.post("/logout", bad).status_code == 403
    assert site.actions.done == [] and signed_in_as(browser.get("/")) == "Administrator"


def test_other_sites_forms_are_refused_even_with_the_mark(browser: Browser) -> None:
    mark = forms(browser.get("/login").text)["/login"]["csrf"]
    for name, value in [
        *(
            ("Origin", origin)
            for origin in ("https://evil.example", "null", "", "http://127.0.0.1", browser.base + "0")
        ),
        *(("Sec-Fetch-Site", site) for site in ("cross-site", "same-site", "")),
    ]:
        refused = browser.post("/login", {"csrf": mark, "token": ADMIN}, headers={name: value})
        assert refused.status_code == 403 and "another site" in refused.text, (name, value)
    kind = {"Origin": browser.base, "Sec-Fetch-Site": "same-origin"}
    assert browser.post("/login", {"csrf": mark, "token": ADMIN}, headers=kind).status_code == 200


def test_what_another_site_sends_ends_no_session(site: Site) -> None:
    """It brings no cookie (SameSite), and must get none in the place of the one that the browser has."""
    for path in ("/logout", "/login", "/new", "/nothing"):
        refused = bare_post(site.url + path, data={"csrf": "x"}, headers={"Origin": "null", "Accept": "text/html"})
        assert refused.status_code in (403, 404, 405) and "set-cookie" not in refused.headers


def test_nothing_changes_by_get(browser: Browser) -> None:
    sign_in(browser)
    assert browser.get("/logout").status_code == 405
    assert signed_in_as(browser.get("/")) == "Administrator"


def test_forms_are_bounded(browser: Browser) -> None:
    mark = forms(browser.get("/login").text)["/login"]["csrf"]
    assert browser.post("/login", {"csrf": mark, "token": "x" * 70_000}).status_code == 413
    assert browser.post("/login", {"csrf": mark, **{f"f{n}": "" for n in range(200)}}).status_code == 400
    for kind in ("application/json", "text/plain", "multipart/form-data; boundary=a"):
        headers = {"Content-Type": kind, "Origin": browser.base}
        assert browser.client.post(browser.base + "/login", content=b"{}", headers=headers).status_code == 415
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": browser.base}
    for body in (b"csrf=%ff%fe", b"\xff\xfe=1"):
        assert browser.client.post(browser.base + "/login", content=body, headers=headers).status_code == 400


# --- where it leads


def test_signing_in_leads_nowhere_else(browser: Browser) -> None:
    for path in HOSTILE_PATHS:
        assert local_path(path) == "/", path
        page = browser.get(f"/login?next={quote(path)}")
        assert forms(page.text)["/login"]["next"] == "/", path
        done = sign_in(browser, follow=False, next=path)
        assert done.status_code == 303 and done.headers["location"] == "/", path
        assert len(done.headers.get_list("set-cookie")) == 1


@pytest.mark.parametrize("path", ["/", "/jobs/1?after=2", "/new?model=a/b", "/repos/a/b#x", "/a//b", "/a:b@c"])
def test_paths_of_ours_are_kept(path: str) -> None:
    assert local_path(path) == path


# --- bearers and attempts


def test_programs_send_the_token_as_bearer_and_need_no_mark(site: Site) -> None:
    job, _ = site.store.add(Asked(repo_id="acme/tiny", sha="a" * 40), Asker(trigger="cli"))
    cancel = f"{site.url}/jobs/{job.id}/cancel"
    done = bare_post(cancel, headers={"Authorization": f"Bearer {ADMIN}"})
    assert done.status_code == 303 and site.actions.done == [("cancel", job.id, "administrator")]
    assert "set-cookie" not in done.headers
    wrong = bare_post(cancel, headers={"Authorization": "Bearer wrong"})
    assert wrong.status_code == 401 and wrong.headers["www-authenticate"] == "Bearer"
    hubs = bare_get(site.url + "/", headers={"Authorization": "Bearer hf_somebody"})
    assert hubs.status_code == 200 and signed_in_as(hubs) is None
    assert bare_post(cancel, headers={"Authorization": "Bearer hf_somebody"}).status_code in (403, 415)
    assert len(site.actions.done) == 1


def test_who_guesses_has_to_wait(site: Site, browser: Browser) -> None:
    for _ in range(PER_ADDRESS):
        assert sign_in(browser, "guess").status_code == 403
    stopped = sign_in(browser, "guess")
    assert stopped.status_code == 429 and int(stopped.headers["retry-after"]) <= WINDOW
    assert sign_in(browser, ADMIN).status_code == 429  # or a guesser would learn which one it was
    bearer = bare_get(site.url + "/", headers={"Authorization": f"Bearer {ADMIN}"})
    assert bearer.status_code == 429 and "retry-after" in bearer.headers
    assert browser.get("/").status_code == 200


def test_attempts_fill_again_and_are_counted_by_network() -> None:
    now = [0.0]
    attempts = Attempts(clock=lambda: now[0])
    for n in range(PER_ADDRESS):
        assert attempts.wait("2001:db8::1") == 0
        attempts.failed(f"2001:db8::{n:x}")
    wait = attempts.wait("2001:db8:0:0:ffff::1")
    assert 0 < wait <= WINDOW / PER_ADDRESS + 1
    assert attempts.wait("2001:db8:0:1::1") == 0 and attempts.wait("192.0.2.1") == 0
    now[0] += wait
    assert attempts.wait("2001:db8::1") == 0
    attempts.failed("2001:db8::1")
    assert attempts.wait("2001:db8::1") > 0


def test_attempts_are_bounded_in_all() -> None:
    now = [0.0]
    attempts = Attempts(clock=lambda: now[0])
    for n in range(KNOWN + 10):
        attempts.failed(f"10.{n >> 16 & 255}.{n >> 8 & 255}.{n & 255}")
    assert len(attempts._known) == KNOWN
    assert attempts.wait("192.0.2.7") > 0  # everybody waits, for somebody has many addresses
    now[0] += WINDOW / IN_ALL + 1
    assert attempts.wait("192.0.2.7") == 0
