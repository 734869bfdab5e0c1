"""Pages and their JSON over real HTTP: what they show, to whom, and that no text of a job acts."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import get_args

import httpx2
import pytest

from bot.errors import PtebotError
from bot.server.records import Event, JobRecord, State
from bot.server.store import Store, open_engine
from bot.web.view import tidy
from tests import postgres
from tests.bot.web import signing_in
from tests.bot.web.browser import Browser, forms
from tests.bot.web.jobs import NASTY, fill, fill_nasty, job, stages
from tests.bot.web.signing_in import ADMIN, Site, running_site

HUB = "https://hub.example"
BIDI = re.compile("[\u202a-\u202e\u2066-\u2069\u200e\u200f\x00-\x08\x0b-\x1f\x7f]")


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path, endpoint=HUB) as running:
        yield running


@pytest.fixture
def browser(site: Site) -> Iterator[Browser]:
    with Browser(site.url) as one:
        yield one


def sign_in(browser: Browser) -> None:
    assert browser.submit(browser.get("/login"), "/login", token=ADMIN).status_code == 200


class Anatomy(HTMLParser):
    """A page's elements, and what in it could act."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.wrong: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []
        self.headings: list[int] = []
        self.labels: set[str] = set()
        self.fields: list[dict[str, str]] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attrs}
        if tag in ("iframe", "style", "base", "object", "embed") or (tag == "script" and "src" not in values):
            self.wrong.append(tag)
        self.wrong += [f"{tag} {name}" for name in values if name.startswith("on") or name in ("style", "srcdoc")]
        for name in ("src", "href", "action", "formaction"):
            value = values.get(name, "/")
            if not value.startswith(("/", "?", "#", f"{HUB}/", f"{HUB}")) or value.startswith("//"):
                self.wrong.append(f"{tag} {name}={value}")
        if "id" in values:
            self.ids.append(values["id"])
        if tag == "a":
            self.links.append(values.get("href", ""))
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag == "label" and "for" in values:
            self.labels.add(values["for"])
        if tag in ("input", "select"):
            self.fields.append(values)


def anatomy(page: httpx2.Response) -> Anatomy:
    assert page.status_code == 200, page.text
    return Anatomy(page.text)


def every_page(records: list[JobRecord]) -> list[str]:
    found = ["/", "/?state=passed", "/?repo=tiny", "/new", "/login", "/new?model=acme/tiny"]
    return found + [f"/jobs/{one.id}" for one in records] + ["/repos/acme/tiny"]


def test_pages_are_well_made(site: Site, browser: Browser) -> None:
    records = fill(site.store, HUB)
    sign_in(browser)
    for path in every_page(list(records.values())):
        seen = anatomy(browser.get(path))
        assert not seen.wrong, path
        assert len(seen.ids) == len(set(seen.ids)), path
        assert seen.headings[0] == 1 and seen.headings.count(1) == 1, path
        steps = zip(seen.headings, seen.headings[1:], strict=False)
        assert all(after <= before + 1 for before, after in steps), (path, seen.headings)
        named = [one for one in seen.fields if one.get("type") not in ("hidden", "checkbox", "radio")]
        assert all(one["id"] in seen.labels for one in named), path


def test_the_overview(site: Site, browser: Browser) -> None:
    records = fill(site.store, HUB)
    page = browser.get("/").text
    for name, one in records.items():
        assert f"/jobs/{one.id}" in page, name
    assert "lower xnnpack 8da4w" in page and "43 %" in page and 'value="0.4300"' in page
    assert re.search(r"works</span>\s*<b>worker-1</b>", page) and re.search(r"silent</span>\s*<b>worker-2</b>", page)
    assert "Pull request #3" in page and "Not enough memory" in page


def test_what_quantization_costs_is_on_the_page_of_a_job(site: Site, browser: Browser) -> None:
    one = fill(site.store, HUB)["passed"]
    page = browser.get(f"/jobs/{one.id}").text
    drawing = page[page.index("<svg", page.index('id="quality"')) :]
    drawing = drawing[: drawing.index("</svg>")]
    assert drawing.count("<title") == drawing.count("<desc") == 1 and "portable 8da4w" in drawing
    assert "style" not in drawing and "http" not in drawing, "the page's sheet has the colours"
    assert "Figures by kind of text" in page and "repeats itself" in page and "10 of 12 alike" in page


def test_the_queue_is_shown_in_its_order(site: Site, browser: Browser) -> None:
    for place, (trigger, age) in enumerate([("sweep", 900), ("webhook", 100), ("webhook", 500), ("comment", 10)]):
        job(site.store, f"acme/m{place}", trigger=trigger, age=age)  # type: ignore[arg-type]
    page = browser.get("/").text
    waiting = page[page.index('id="waiting"') :]
    assert re.findall(r">acme/m(\d)<", waiting)[:4] == ["3", "2", "1", "0"]


def test_filtering_by_state(site: Site, browser: Browser) -> None:
    records = fill(site.store, HUB)
    for state in get_args(State):
        page = browser.get(f"/?state={state}").text
        for one in records.values():
            assert (f"/jobs/{one.id}" in page) == (one.state == state)


def test_filtering_by_model(site: Site, browser: Browser) -> None:
    for name in ("acme/tiny", "acme/TINY-two", "other/100%_x", "other/100ab_x"):
        job(site.store, name)
    assert re.findall(r'/jobs/[^"]*">([^<]+)<', browser.get("/?repo=tiny").text) == ["acme/TINY-two", "acme/tiny"]
    assert re.findall(r'/jobs/[^"]*">([^<]+)<', browser.get("/?repo=100%25_").text) == ["other/100%_x"]
    assert "No job fits" in browser.get("/?repo=nothing&state=passed").text


def test_strange_filters_do_no_harm(site: Site, browser: Browser) -> None:
    fill(site.store, HUB)
    for query in ("state=%00", "state=passed'--", "before=nan", "before=1e999", "before=x", "repo=%ff", "repo=%00"):
        assert browser.get(f"/?{query}").status_code == 200
        assert browser.get(f"/api/jobs?limit=-5&{query}").status_code == 200


def test_every_job_is_on_exactly_one_page(site: Site, browser: Browser) -> None:
    made = {job(site.store, f"acme/m{place}", "passed", age=1000 + place).id for place in range(120)}
    seen: list[str] = []
    path = "/?state=passed"
    while path:
        text = browser.get(path).text
        listed = text[text.index('id="list"') :]
        seen += re.findall(r"/jobs/([0-9a-f]{32})", listed)
        older = re.search(r'rel="next" href="([^"]+)"', listed)
        path = "/" + older[1].replace("&amp;", "&") if older else ""
    assert len(seen) == 120 and set(seen) == made


def test_a_job_with_everything(site: Site, browser: Browser) -> None:
    records = fill(site.store, HUB)
    page = browser.get(f"/jobs/{records['passed'].id}").text
    for text in (
        "Every file was proven", f'href="{HUB}/acme/tiny/discussions/3"', "Pull request #3", "opened on hub.example",
        "ran</span>", "failed</span>", "skipped</span>", "14 delegates, 5 ops left", "noticeable", "not taken there",
        "Parity of portable 8da4w", "kl over cost", "lower xnnpack 8da4w", "publish: line 59", "xnnpack, portable",
        "512", "LlamaForCausalLM", "worker-1",
    ):  # fmt: skip
        assert text in page, text
    assert "plan: line 0" not in page and "The last 300 lines" in page
    failed = browser.get(f"/jobs/{records['error'].id}").text
    assert "The export needs 14.2 GB" in failed and "Use a larger machine" in failed and "exit code 12" in failed


def test_the_whole_log_can_be_had(site: Site, browser: Browser) -> None:
    one = job(site.store, state="passed")
    lines = [Event(job_id=one.id, at=1e9, kind="log", message=f"line {place}") for place in range(2500)]
    site.store.append([*lines, Event(job_id=one.id, at=1e9, kind="log", message="evil\nline \x1b[2J\u202e")])
    reply = browser.get(f"/jobs/{one.id}/log.txt")
    assert reply.headers["content-type"] == "text/plain; charset=utf-8"
    assert reply.headers["content-disposition"] == f'attachment; filename="{one.id}.log.txt"'
    assert reply.headers["x-content-type-options"] == "nosniff"
    assert reply.text.count("2001-09-09 01:46:40  line ") == 2500
    assert not BIDI.search(reply.text.replace("\n", ""))


def test_a_repository(site: Site, browser: Browser) -> None:
    records = fill(site.store, HUB)
    page = browser.get("/repos/Acme/TINY").text
    assert records["passed"].id in page and records["running"].id in page and records["failed"].id not in page
    assert "Last result" in page and "Parity of xnnpack fp32" in page and f'href="{HUB}/acme/tiny"' in page
    assert browser.get("/repos/acme/nothing").status_code == 404
    assert browser.get("/repos/acme/<script>").status_code == 404


def test_what_is_not_there(site: Site, browser: Browser) -> None:
    unknown = [f"/jobs/{'0' * 32}", f"/jobs/{'0' * 32}/log.txt"]
    for path in (
        "/nope",
        "/jobs/123",
        *unknown,
        "/jobs/<script>alert(1)",
        "/jobs/%00",
        "/jobs/%ff",
        "/jobs/%00/log.txt",
    ):
        reply = browser.get(path)
        assert reply.status_code == 404 and "<h1>" in reply.text and "<script>alert" not in reply.text
        assert "default-src 'none'" in reply.headers["content-security-policy"]
    assert browser.get(f"/api/jobs/{'0' * 32}").json()["error"] == "No such job"
    for path in ("/jobs/%00/events", "/jobs/x/events", "/api/jobs/%00"):
        assert browser.get(path).status_code == 404
    assert browser.client.post(f"{site.url}/").status_code == 405


def test_the_json(site: Site, browser: Browser) -> None:
    records = fill(site.store, HUB)
    listed = browser.get("/api/jobs").json()
    assert len(listed["jobs"]) == len(records) and listed["counts"]["running"] == 2
    assert [one["state"] for one in browser.get("/api/jobs?state=passed").json()["jobs"]] == ["passed"]
    one = browser.get(f"/api/jobs/{records['passed'].id}").json()
    assert one["asked"]["repo_id"] == "acme/tiny" and one["pr_num"] == 3 and not one["live"]
    assert len(one["reports"][""]["cells"]) == 6


def test_a_failure_of_our_own_is_a_page(site: Site, browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(**_: bool) -> None:
        raise ZeroDivisionError("hf_secretsecretsecret")

    def refused(**_: bool) -> None:
        raise PtebotError("<b>bold</b> what", remedy="do that")

    monkeypatch.setattr(site.store, "counts", broken)
    reply = browser.get("/")
    assert reply.status_code == 500 and "Something broke here" in reply.text and "hf_secret" not in reply.text
    assert "default-src 'none'" in reply.headers["content-security-policy"]
    monkeypatch.setattr(site.store, "counts", refused)
    with Browser(site.url) as again:  # the server closes a connection after a defect
        assert "&lt;b&gt;bold&lt;/b&gt; what" in again.get("/").text
        assert again.get("/api/jobs").json()["advice"] == "do that"


def test_hostile_texts_stay_texts(site: Site, browser: Browser) -> None:
    records = fill_nasty(site.store)
    sign_in(browser)
    for path in [*every_page(records)[:-1], *(f"/?repo={one}" for one in ("<script>alert(1)</script>", '"><b>'))]:
        reply = browser.get(path)
        assert not anatomy(reply).wrong, path
        assert not BIDI.search(reply.text.replace("\n", "")), path
        assert "<script>alert" not in reply.text and "<img src=x" not in reply.text
    for one in records:
        data = browser.get(f"/api/jobs/{one.id}")
        assert data.json()["reason"] == one.reason
        assert data.text.isascii() and not BIDI.search(data.text.replace("\n", ""))


def test_links_lead_to_the_hub_alone(site: Site, browser: Browser) -> None:
    hostile = ("javascript:alert(1)", "https://evil.example/x", "https://hub.example.evil/x", "//evil.example", HUB,
               f"{HUB}@evil.example/", f"{HUB}/a b", f"{HUB}/\u202e", "data:text/html,x")  # fmt: skip
    for place, address in enumerate(hostile):
        one = job(site.store, f"acme/m{place}", "passed", pr_url=address, pr_num=1)
        page = browser.get(f"/jobs/{one.id}")
        assert "Pull request" not in page.text, address
        assert not anatomy(page).wrong


def test_what_administrators_may_do(site: Site, browser: Browser) -> None:
    records = fill(site.store, HUB)
    deeds = {"running": ["cancel"], "queued": ["cancel"], "error": ["resume", "retry"], "passed": ["retry"]}
    for name in deeds:
        assert not any(action.startswith("/jobs/") for action in forms(browser.get(f"/jobs/{records[name].id}").text))
    sign_in(browser)
    for name, expected in deeds.items():
        one = records[name]
        page = browser.get(f"/jobs/{one.id}")
        found = [action for action in forms(page.text) if action.startswith("/jobs/")]
        assert found == [f"/jobs/{one.id}/{deed}" for deed in expected]
        for action in found:
            assert browser.submit(page, action).status_code == 200
            assert site.actions.done[-1] == (action.rsplit("/", 1)[1], one.id, "administrator")


def test_nobody_else_may(site: Site, browser: Browser) -> None:
    one = job(site.store, state="running")
    mark = forms(browser.get("/new").text)["/new"]["csrf"]
    for deed in ("cancel", "retry", "resume"):
        assert browser.post(f"/jobs/{one.id}/{deed}", {"csrf": mark}).status_code == 403
    sign_in(browser)
    for deed in ("cancel", "retry", "resume"):
        assert browser.post(f"/jobs/{one.id}/{deed}", {"csrf": mark}).status_code == 403
        assert browser.get(f"/jobs/{one.id}/{deed}").status_code == 405
    assert site.actions.done == []


def test_pages_that_are_not_public(tmp_path: Path) -> None:
    with running_site(tmp_path, endpoint=HUB, public_pages=False) as site, Browser(site.url) as browser:
        one = job(site.store, state="passed")
        stages(site.store, one, ["plan"])
        for path in ("/", f"/jobs/{one.id}", "/repos/acme/tiny", "/new"):
            assert browser.get(path, follow=False).headers["location"].startswith("/login")
        for path in (
            "/api/jobs",
            f"/api/jobs/{one.id}",
            f"/jobs/{one.id}/events",
            "/events",
            f"/jobs/{one.id}/log.txt",
        ):
            reply = browser.get(path, headers={"Accept": "*/*"}, follow=False)
            assert reply.status_code == 401 and "acme" not in reply.text
        sign_in(browser)
        assert "acme/tiny" in browser.get("/").text


def test_private_models_are_not_for_everybody(site: Site, browser: Browser) -> None:
    one = job(site.store, "acme/secret", "passed", private=True)
    stages(site.store, one, ["plan", "of the secret"])
    own = [f"/jobs/{one.id}", f"/jobs/{one.id}/log.txt", f"/api/jobs/{one.id}", f"/jobs/{one.id}/events"]
    for path in (*own, "/repos/acme/secret"):
        reply = browser.get(path)
        assert reply.status_code == 404 and "of the secret" not in reply.text, path
    for path in ("/", "/?repo=secret", "/?state=passed", "/api/jobs", "/api/jobs?repo=secret"):
        reply = browser.get(path)
        assert one.id not in reply.text and "acme/secret" not in reply.text, path
        assert '"passed": 1' not in reply.text
    sign_in(browser)
    for path in (*own, "/repos/acme/secret", "/", "/api/jobs"):
        reply = browser.get(path)
        assert reply.status_code == 200, path
    assert one.id in browser.get("/").text


def test_five_thousand_jobs(site: Site, browser: Browser) -> None:
    import sqlalchemy as sa

    from bot.server import tables

    one = job(site.store, "acme/first", "passed")
    with site.store.engine.begin() as connection:
        row = dict(connection.execute(sa.select(tables.jobs).where(tables.jobs.c.id == one.id)).one()._mapping)
        rows = [
            {
                **row,
                "id": f"{place:032x}",
                "repo_id": f"org{place % 50}/m{place}",
                "created_at": row["created_at"] - place,
            }
            for place in range(1, 5000)
        ]
        connection.execute(sa.insert(tables.jobs), rows)
    browser.get("/")
    best = {}
    for path in ("/", "/?repo=m49", "/?state=passed"):
        times = []
        for _ in range(5):
            began = time.perf_counter()
            page = browser.get(path)
            times.append(time.perf_counter() - began)
            assert "5,000" in page.text
        best[path] = min(times)
    assert max(best.values()) < 0.2, best


def test_cleaning() -> None:
    assert tidy("a\tb\r\nc\N{NO-BREAK SPACE}d") == "a    b\nc d"
    assert tidy("x" * 50_000) == "x" * 20_000 + "…"
    assert not BIDI.search("".join(tidy(one) for one in NASTY).replace("\n", ""))


def test_the_script_and_the_sheet_are_served(browser: Browser) -> None:
    for name, kind in (("live.js", "javascript"), ("style.css", "css"), ("icon.svg", "svg")):
        reply = browser.get(f"/static/{name}")
        assert reply.status_code == 200 and kind in reply.headers["content-type"]
    assert browser.get("/static/../view.py").status_code == 404
    assert json.loads(browser.get("/api/jobs").text)["jobs"] == []


def test_pages_on_postgresql(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same pages from the other database."""
    with postgres.server() as found, postgres.database(found) as url:
        store = Store(open_engine(url))
        store.create()
        monkeypatch.setattr(signing_in, "open_store", lambda _: store)
        with running_site(tmp_path, endpoint=HUB) as site, Browser(site.url) as browser:
            records = fill(store, HUB)
            sign_in(browser)
            for path in [*every_page(list(records.values())), "/?repo=%00&before=1e300", "/?repo=TIN%25", "/api/jobs"]:
                assert browser.get(path).status_code == 200, path
            assert browser.get("/jobs/%00").status_code == 404
            found_log = browser.get(f"/jobs/{records['passed'].id}/log.txt").text
            assert found_log.count("publish: line") == 60
            told = browser.get(f"/jobs/{records['passed'].id}/events?after=5").text
            assert told.count("event: log") > 300 and told.endswith("event: end\ndata: {}\n\n")
