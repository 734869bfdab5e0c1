"""Signing in with Chromium: the Hub's consent, the way back, and out again, under the pages' own policies."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, BrowserContext, Page, expect

from bot.localhub.testing import RunningHub, running_hub
from tests.bot.web.signing_in import ADMIN, Site, running_site
from tests.browser.chromium import DESKTOP, PHONE, Watched


@pytest.fixture(scope="module")
def hub() -> Iterator[RunningHub]:
    with running_hub() as running:
        yield running


@pytest.fixture(scope="module")
def site(hub: RunningHub, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    def register(url: str) -> dict[str, str]:
        client_id, secret = hub.register_app(f"{url}/oauth/callback")
        return {"oauth_client_id": client_id, "oauth_client_secret": secret}

    with running_site(tmp_path_factory.mktemp("site"), port_first=register, endpoint=hub.endpoint) as running:
        yield running


@pytest.fixture
def context(browser: Browser, hub: RunningHub, site: Site) -> Iterator[BrowserContext]:
    login = {"username": "Maria", "password": hub.create_user("Maria"), "origin": hub.endpoint}
    made = browser.new_context(http_credentials=login, viewport={"width": DESKTOP[0], "height": DESKTOP[1]})  # type: ignore[arg-type]
    yield made
    made.close()


def _watched(page: Page) -> Watched:
    watched = Watched(page)
    page.on("console", lambda message: watched.said.append(message.text) if message.type == "error" else None)
    page.on("pageerror", lambda error: watched.said.append(str(error)))
    return watched


def test_with_the_hub(context: BrowserContext, site: Site, screenshots: Path) -> None:
    page = context.new_page()
    watched = _watched(page)
    page.goto(f"{site.url}/new?model=acme/tiny")
    page.get_by_role("banner").get_by_role("link", name="Sign in").click()
    watched.usable()
    for width, height in (PHONE, DESKTOP):
        page.set_viewport_size({"width": width, "height": height})
        watched.fits()
        page.screenshot(path=screenshots / f"login-{width}.png", full_page=True)
    page.get_by_role("link", name="Sign in with").click()
    expect(page.get_by_text("open discussions and pull requests")).to_be_visible()
    page.screenshot(path=screenshots / "consent.png", full_page=True)
    page.get_by_role("button", name="Deny").click()
    expect(page.get_by_role("alert")).to_contain_text("You declined")
    page.get_by_role("link", name="Sign in with").click()
    page.get_by_role("button", name="Authorize").click()
    expect(page).to_have_url(f"{site.url}/new?model=acme/tiny")
    expect(page.get_by_text("Maria")).to_be_visible()
    cookies = {one["name"]: one for one in context.cookies(site.url)}
    assert set(cookies) == {"ptebot"} and cookies["ptebot"]["httpOnly"] and cookies["ptebot"]["sameSite"] == "Lax"
    assert page.evaluate("document.cookie") == ""
    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("banner").get_by_role("link", name="Sign in")).to_be_visible()
    assert [one for one in watched.said if "403" not in one and "favicon" not in one] == []


def test_with_the_token(context: BrowserContext, site: Site) -> None:
    page = context.new_page()
    page.goto(f"{site.url}/login?next=/new")
    page.get_by_label("Administrator’s token").fill("wrong")
    page.get_by_role("button", name="Sign in").click()
    expect(page.get_by_role("alert")).to_contain_text("not the administrator")
    page.get_by_label("Administrator’s token").fill(ADMIN)
    page.keyboard.press("Enter")
    expect(page).to_have_url(f"{site.url}/new")
    expect(page.get_by_text("Administrator", exact=True)).to_be_visible()


def test_another_sites_page_can_do_nothing(context: BrowserContext, site: Site, tmp_path: Path) -> None:
    page = context.new_page()
    page.goto(f"{site.url}/login")
    page.get_by_label("Administrator’s token").fill(ADMIN)
    page.keyboard.press("Enter")
    expect(page.get_by_text("Administrator", exact=True)).to_be_visible()
    evil = tmp_path / "evil.html"
    evil.write_text(
        f'<form method="post" action="{site.url}/logout"><input name="csrf" value="x"><button>go</button></form>'
        f'<iframe src="{site.url}/" title="framed"></iframe>'
    )
    page.goto(evil.as_uri())
    assert page.frames[1].locator("nav").count() == 0  # frame-ancestors
    with page.expect_response(f"{site.url}/logout") as reply:
        page.get_by_role("button", name="go").click()
    assert reply.value.status == 403
    page.goto(site.url)
    expect(page.get_by_text("Administrator", exact=True)).to_be_visible()
