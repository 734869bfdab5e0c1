"""From the form to the merged pull request in a real browser, with live progress, on a real local Hub.

A script stands in for the engine here, so that each step can be waited for: it moves the job in the store as an engine
does, and publishes for real. tests/browser/test_serve.py goes the same way with ``ptebot serve`` itself.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, expect

from bot.localhub.testing import RunningHub, running_hub
from bot.server.records import Event, Failure
from bot.web.live import Message
from exporter import report as reports
from tests.bot.hubs import Repository, repository
from tests.bot.web.jobs import full_report, job
from tests.bot.web.signing_in import Site, running_site
from tests.browser.chromium import PHONE, Watched, opened
from tests.browser.test_pages import complaints, sign_in


@pytest.fixture
def hub() -> Iterator[RunningHub]:
    with running_hub() as running:
        yield running


@pytest.fixture
def repo(hub: RunningHub, tmp_path: Path) -> Repository:
    return repository(hub, tmp_path)


@pytest.fixture
def site(hub: RunningHub, tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path, endpoint=hub.endpoint) as running:
        yield running


def marked(one: Watched) -> None:
    """So that a page that was loaded anew can be told from one that is kept up to date."""
    one.page.evaluate("window.kept = true")


def kept(one: Watched) -> bool:
    return bool(one.page.evaluate("window.kept === true"))


class Script:
    """An engine that does one step when it is told to."""

    def __init__(self, site: Site, job_id: str) -> None:
        self.store, self.id = site.store, job_id

    def stage(self, stage: str, backend: str | None = None, precision: str | None = None, **fields: float) -> None:
        words = " ".join(part for part in (stage, backend, precision) if part)
        self.store.update(self.id, state="running", stage=words, started_at=time.time(), worker="here", **fields)
        self._tell("stage", stage=stage, backend=backend, precision=precision, **fields)

    def progress(self, fraction: float) -> None:
        self.store.update(self.id, fraction=fraction)
        self._tell("progress", stage="lower", backend="xnnpack", precision="fp32", fraction=fraction)

    def log(self, line: str) -> None:
        self._tell("log", message=line)

    def _tell(self, kind: str, **fields: object) -> None:
        self.store.append([Event(job_id=self.id, at=time.time(), kind=kind, **fields)])  # type: ignore[arg-type]


def test_from_the_form_to_the_merged_pull_request(
    browser: Browser, site: Site, repo: Repository, screenshots: Path
) -> None:
    owner = {"username": "acme", "password": str(repo.owner.token)}
    with opened(browser, http_credentials=owner) as one:
        page = one.page
        sign_in(one, site)
        page.get_by_role("link", name="New export").first.click()
        page.get_by_label("Model", exact=True).fill(f"{repo.hub.endpoint}/{repo.repo_id}/tree/main")
        page.get_by_role("checkbox", name="openvino Intel").uncheck()
        page.get_by_role("button", name="Export").click()
        page.wait_for_url("**/jobs/*")
        (record,) = site.store.jobs()
        assert record.asked.options["backends"] == ["portable", "xnnpack"] and record.asked.sha == repo.head
        state = page.locator("#state")
        expect(state).to_contain_text("Waiting")
        marked(one)

        script = Script(site, record.id)
        script.stage("plan")
        expect(state).to_contain_text("Running")
        expect(page.locator("#announce")).to_have_text("Running. It is being worked on.")
        script.stage("lower", "xnnpack", "fp32", fraction=0.25)
        expect(page.locator("[data-stage]")).to_have_text("lower xnnpack fp32")
        expect(page.locator("#stages .now")).to_contain_text("lower xnnpack fp32")
        for fraction in (0.5, 0.75):
            script.progress(fraction)
            expect(page.get_by_role("progressbar")).to_have_js_property("value", fraction)
        expect(page.locator("[data-percent]")).to_have_text("75 %")
        script.log("lowering <b>layer</b> 3")
        expect(page.get_by_role("log")).to_contain_text("lowering <b>layer</b> 3")
        page.screenshot(path=screenshots / "flow running.png", full_page=True)

        published = repo.publish(repo.report())
        site.store.put_report(record.id, "", reports.dumps(full_report()))
        script.stage("publish")
        expect(page.locator("#files tbody tr").first).to_contain_text("portable")
        site.store.update(record.id, operation=published.operation, pr_url=published.pr_url, pr_num=1)
        site.store.end(record.id, "passed")
        expect(state).to_contain_text("Passed")
        expect(page.locator("#announce")).to_have_text("Passed. Every file was proven and is offered.")
        expect(page.get_by_role("button", name="Run again")).to_be_visible()
        expect(page).to_have_title(f"Passed: {repo.repo_id} · ptebot")
        assert kept(one)
        page.screenshot(path=screenshots / "flow passed.png", full_page=True)
        one.fits()

        page.get_by_role("link", name="Pull request #1").click()
        expect(page.get_by_text("Can be merged")).to_be_visible()
        expect(page.get_by_role("button", name="Merge")).to_have_count(0)  # nobody is signed in there yet
        address = page.url
        page.goto(f"{repo.hub.endpoint}/login")
        page.goto(address)
        page.screenshot(path=screenshots / "flow pull request.png", full_page=True)
        page.get_by_role("button", name="Merge").click()
        expect(page.locator(".pill.merged").first).to_be_visible()
        assert repo.pulls() == [(1, "merged")] and "executorch/manifest.json" in repo.files()
        assert [line for line in complaints(one) if "401" not in line] == []


def test_the_overview_keeps_up(browser: Browser, site: Site) -> None:
    with opened(browser, PHONE) as one:
        one.page.goto(site.url)
        expect(one.page.get_by_text("Nothing runs now.")).to_be_visible()
        marked(one)
        record = job(site.store, "acme/tiny", "queued")
        expect(one.page.locator("#waiting")).to_contain_text("acme/tiny")
        script = Script(site, record.id)
        script.stage("lower", "xnnpack", "fp32", fraction=0.25)
        expect(one.page.locator("#running")).to_contain_text("lower xnnpack fp32")
        script.progress(0.5)
        expect(one.page.get_by_role("progressbar")).to_have_js_property("value", 0.5)
        one.page.get_by_label("Model", exact=True).fill("what somebody types stays")
        site.store.end(record.id, "partial")
        expect(one.page.locator("#list")).to_contain_text("Partly passed")
        expect(one.page.get_by_label("Model", exact=True)).to_have_value("what somebody types stays")
        assert kept(one) and complaints(one) == []


def test_a_failure_comes_with_its_advice(browser: Browser, site: Site) -> None:
    record = job(site.store, "acme/tiny", "running")
    with opened(browser) as one:
        one.page.goto(f"{site.url}/jobs/{record.id}")
        expect(one.page.locator("#state")).to_contain_text("Running")
        failure = Failure(name="DiskFull", exit_code=9, title="No room", what="0 bytes are left.", advice="Make room.")
        site.store.end(record.id, "error", failure=failure)
        expect(one.page.get_by_role("heading", name="No room")).to_be_visible()
        expect(one.page.locator("#state")).to_contain_text("Make room.")


def test_the_focus_and_what_is_open_stay(browser: Browser, site: Site) -> None:
    record = job(site.store, "acme/tiny", "running")
    site.store.put_report(record.id, "", reports.dumps(full_report()))
    script = Script(site, record.id)
    with opened(browser) as one:
        sign_in(one, site)
        one.page.goto(f"{site.url}/jobs/{record.id}")
        one.page.get_by_text("The same as a table").click()
        one.page.get_by_role("button", name="Cancel").focus()
        site.store.put_report(record.id, "", reports.dumps(full_report(max_seq_len=77)))
        site.store.update(record.id, reason="for a reason")
        script.stage("parity")
        expect(one.page.locator("#facts")).to_contain_text("77 tokens")
        expect(one.page.locator("#state")).to_contain_text("for a reason")
        expect(one.page.get_by_role("button", name="Cancel")).to_be_focused()
        expect(one.page.get_by_role("table", name="Parity figures")).to_be_visible()


def test_a_stream_that_breaks_goes_on_where_it_was(browser: Browser, site: Site) -> None:
    """Every connection is cut once; the browser comes back by itself and misses no line and doubles none."""
    record = job(site.store, "acme/tiny", "running")
    script = Script(site, record.id)
    live = site.app.state.site.live
    with opened(browser) as one:
        one.page.goto(f"{site.url}/jobs/{record.id}")
        lines = one.page.locator("#log .line")
        script.log("one")
        expect(lines).to_have_count(1)
        for channel in list(live._channels.values()):
            for watcher in list(channel.watchers):
                watcher.lost = True
                watcher.give(Message("refresh", {}))
        script.log("two")
        script.log("three")
        expect(lines).to_have_count(3)
        assert [line.split()[-1] for line in lines.all_inner_texts()] == ["one", "two", "three"]


def test_a_tab_that_nobody_looks_at_gives_its_connection_back(browser: Browser, site: Site) -> None:
    record = job(site.store, "acme/tiny", "running")
    script = Script(site, record.id)
    live = site.app.state.site.live
    look = "(hidden) => { Object.defineProperty(document, 'hidden', {value: hidden, configurable: true});"
    look += " document.dispatchEvent(new Event('visibilitychange')); }"
    with opened(browser) as one:
        one.page.goto(f"{site.url}/jobs/{record.id}")
        lines = one.page.locator("#log .line")
        script.log("one")
        expect(lines).to_have_count(1)
        assert live.watchers == 1
        one.page.evaluate(look, True)
        script.log("two")
        until = time.monotonic() + 20
        while live.watchers and time.monotonic() < until:
            one.page.evaluate("new Promise(requestAnimationFrame)")
        assert live.watchers == 0
        one.page.evaluate(look, False)
        script.log("three")
        expect(lines).to_have_count(3)
        assert [line.split()[-1] for line in lines.all_inner_texts()] == ["one", "two", "three"]
