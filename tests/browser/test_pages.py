"""Every page on a phone and on a desktop, light and dark: it fits, it can be used, and its script is quiet."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from bot.server.records import JobRecord
from tests.bot.web.jobs import fill, fill_nasty, job
from tests.bot.web.signing_in import ADMIN, Site, running_site
from tests.browser.chromium import DESKTOP, PHONE, Watched, opened

HUB = "https://hub.example"
LOOKS = {"phone": (PHONE, "light"), "desktop": (DESKTOP, "light"), "dark": (DESKTOP, "dark")}
WHOLE = ("overview", "passed", "error")
"""Pages that together have every part there is: looked at most closely in every look."""
HARMLESS = ("Password forms should have", "status of 404", "status of 422", "status of 403")


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("site"), endpoint=HUB) as running:
        yield running


@pytest.fixture(scope="module")
def records(site: Site) -> dict[str, JobRecord]:
    return fill(site.store, HUB)


def pages(records: dict[str, JobRecord]) -> dict[str, str]:
    names = ("running", "passed", "partial", "error", "queued", "superseded")
    return {
        "overview": "/", "filtered": "/?state=passed&repo=tiny", "nothing": "/?repo=nothing", "form": "/new",
        "signing in": "/login", "lost": "/nope", "model": "/repos/acme/tiny",
        **{name: f"/jobs/{records[name].id}" for name in names},
    }  # fmt: skip


def sign_in(one: Watched, site: Site) -> None:
    one.page.goto(f"{site.url}/login")
    one.page.get_by_label("Administrator’s token").fill(ADMIN)
    one.page.get_by_role("button", name="Sign in").click()
    expect(one.page.get_by_role("button", name="Sign out")).to_be_visible()


def complaints(one: Watched) -> list[str]:
    return [line for line in one.said if not any(harmless in line for harmless in HARMLESS)]


@pytest.mark.parametrize("look", LOOKS)
def test_every_page_fits_and_can_be_used(
    browser: Browser, site: Site, records: dict[str, JobRecord], screenshots: Path, look: str
) -> None:
    size, scheme = LOOKS[look]
    with opened(browser, size, color_scheme=scheme) as one:
        sign_in(one, site)
        for name, path in pages(records).items():
            if look == "dark" and name not in WHOLE:
                continue
            one.page.goto(f"{site.url}{path}")
            one.page.screenshot(path=screenshots / f"{look} {name}.png", full_page=True)
            one.fits()
            if look == "desktop" or name in WHOLE:
                one.usable()
        one.page.goto(f"{site.url}/jobs/{records['passed'].id}")
        one.page.get_by_text("The same as a table").click()
        one.fits()
        assert complaints(one) == []


def test_what_is_wrong_with_a_form_is_seen_and_heard(browser: Browser, site: Site, screenshots: Path) -> None:
    with opened(browser, PHONE) as one:
        sign_in(one, site)
        one.page.goto(f"{site.url}/new")
        one.page.get_by_label("Model", exact=True).fill("https://evil.example/a/b")
        for name in ("portable", "xnnpack", "openvino"):
            one.page.locator(f"input[name=backends][value={name}]").uncheck()
        one.page.get_by_label("Context length").fill("many")
        one.page.get_by_role("button", name="Export").click()
        model = one.page.get_by_label("Model", exact=True)
        expect(model).to_have_value("https://evil.example/a/b")
        expect(model).to_have_attribute("aria-invalid", "true")
        expect(model).to_have_accessible_description(re.compile("no address of hub.example"))
        expect(one.page.get_by_role("group", name="Backends")).to_have_accessible_description(
            re.compile("at least one")
        )
        expect(one.page.get_by_role("alert")).to_be_visible()
        one.page.screenshot(path=screenshots / "phone wrong form.png", full_page=True)
        one.fits()
        one.usable()


def test_without_a_mouse(browser: Browser, site: Site, records: dict[str, JobRecord]) -> None:
    """Tab reaches everything in the order in which it is read, and what has the focus is seen to have it."""
    with opened(browser) as one:
        one.page.goto(f"{site.url}/jobs/{records['running'].id}")
        one.page.keyboard.press("Tab")
        expect(one.page.get_by_text("Skip to the content")).to_be_focused()
        one.page.keyboard.press("Enter")
        expect(one.page.locator("main")).to_be_focused()
        seen = []
        for _ in range(60):
            one.page.keyboard.press("Tab")
            found = one.page.evaluate(
                """() => { const one = document.activeElement, style = getComputedStyle(one);
                return [one.innerText.slice(0, 40) || one.getAttribute("aria-label") || one.tagName,
                        style.outlineStyle !== "none" && parseFloat(style.outlineWidth) >= 2,
                        one === document.body]; }"""
            )
            if found[2]:
                break
            assert found[1], found
            seen.append(found[0])
        text = "\n".join(seen)
        for wanted in ("Jobs", "acme/tiny", "The same as a table", "JSON", "Download"):
            assert wanted in text, seen


def test_without_a_script(browser: Browser, site: Site, records: dict[str, JobRecord]) -> None:
    with opened(browser, java_script_enabled=False) as one:
        sign_in(one, site)
        one.page.goto(f"{site.url}/")
        one.page.get_by_label("State", exact=True).select_option("passed")
        one.page.get_by_role("button", name="Filter").click()
        expect(one.page.locator("#list tbody tr")).to_have_count(1)
        one.page.locator("#list").get_by_role("link", name="acme/tiny").click()
        expect(one.page.get_by_role("heading", level=1)).to_contain_text("acme/tiny")
        before = len(site.actions.done)
        one.page.get_by_role("button", name="Run again").click()
        one.page.wait_for_url(f"**/jobs/{records['passed'].id}")
        assert [what for what, *_ in site.actions.done[before:]] == ["retry"]
        one.page.goto(f"{site.url}/jobs/{records['running'].id}")
        assert one.page.locator("noscript meta").count() == 1 or "refresh" in one.page.content()


def test_hostile_texts_run_nowhere(browser: Browser, tmp_path: Path, screenshots: Path) -> None:
    with running_site(tmp_path, endpoint=HUB) as site, opened(browser, PHONE) as one:
        found = fill_nasty(site.store)
        sign_in(one, site)
        requested: list[str] = []
        one.page.on("request", lambda request: requested.append(request.url))
        for place, path in enumerate(["/", "/?state=error", *(f"/jobs/{record.id}" for record in found)]):
            one.page.goto(f"{site.url}{path}")
            one.fits()
            if place < 4:
                one.page.screenshot(path=screenshots / f"phone hostile {place}.png", full_page=True)
        assert complaints(one) == []
        assert {url.split("/")[2] for url in requested} == {site.url.split("/")[2]}
        assert one.page.evaluate("document.querySelectorAll('img[src=x], iframe, main script').length") == 0


def test_live_texts_run_nowhere(browser: Browser, tmp_path: Path) -> None:
    """What comes by events is put in by the script, which is another way in than the templates."""
    from bot.server.records import Event
    from tests.bot.web.jobs import NASTY

    with running_site(tmp_path, endpoint=HUB) as site, opened(browser) as one:
        record = job(site.store, state="running", stage="plan")
        one.page.goto(f"{site.url}/jobs/{record.id}")
        for text in NASTY:
            event = Event(job_id=record.id, at=1e9, kind="log", message=text)
            moved = Event(job_id=record.id, at=1e9, kind="progress", stage=text, message=text, fraction=0.5)
            site.store.append([event, moved])
        log = one.page.locator("#log .line")
        expect(log).to_have_count(len(NASTY))
        expect(log.nth(0)).to_contain_text("<script>alert(1)</script>")
        expect(one.page.locator("[data-stage]")).to_contain_text("event: job")
        site.store.end(record.id, "error", reason="<img src=x onerror=alert(9)>")
        expect(one.page.locator("#state")).to_contain_text("<img src=x onerror=alert(9)>")
        assert complaints(one) == []
        assert one.page.evaluate("document.querySelectorAll('img[src=x], main script').length") == 0
