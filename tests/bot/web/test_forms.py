"""Asking for an export: the form against a real local Hub, everything that may be wrong with it, and who may."""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest
from huggingface_hub import HfApi

from bot.localhub.testing import RunningHub
from bot.names import BACKENDS, CACHES, EMBEDDINGS, PRECISIONS
from bot.server.records import Asked, Asker
from bot.web.forms import BACKEND_WORDS, CACHE_WORDS, EMBEDDING_WORDS, MOST_LIVE, PRECISION_WORDS, repo_id_of
from exporter.spec import DEFAULT_BACKENDS, DEFAULT_PRECISIONS
from tests.bot.hubs import Repository
from tests.bot.web.browser import Browser, forms
from tests.bot.web.jobs import NASTY, job
from tests.bot.web.signing_in import ADMIN, Site, running_site

GOOD = {"backends": "xnnpack", "precisions": "8da4w", "max_seq_len": ""}


@pytest.fixture
def site(hub: RunningHub, tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path, endpoint=hub.endpoint, token=hub.create_user("ptebot-user")) as running:
        yield running


@pytest.fixture
def browser(site: Site) -> Iterator[Browser]:
    with Browser(site.url) as one:
        one.submit(one.get("/login"), "/login", token=ADMIN)
        yield one


def ask(browser: Browser, model: str, *, follow: bool = True, **fields: str) -> httpx2.Response:
    return browser.submit(browser.get("/new"), "/new", follow=follow, model=model, **{**GOOD, **fields})


def problem(page: httpx2.Response, name: str) -> str:
    found = re.search(rf'id="{name}-problem"><span aria-hidden="true">✕</span> ([^<]*)<', page.text)
    return html.unescape(found[1]) if found else ""


def jobs(site: Site) -> list[Asked]:
    return [one.asked for one in site.store.jobs()]


def test_a_model_becomes_a_job(site: Site, browser: Browser, repo: Repository) -> None:
    reply = ask(browser, repo.repo_id, follow=False, max_seq_len="128")
    options = {"backends": ["xnnpack"], "precisions": ["8da4w"], "max_seq_len": 128}
    (asked,) = jobs(site)
    assert asked == Asked(repo_id=repo.repo_id, sha=repo.head, options=options)
    assert reply.status_code == 303 and reply.headers["location"] == f"/jobs/{asked.id}"
    (record,) = site.store.jobs()
    assert record.asker == Asker(trigger="form") and record.priority == 1 and site.actions.tokens == [None]
    assert repo.repo_id in browser.get(reply.headers["location"]).text
    ask(browser, repo.repo_id, max_seq_len="128")
    assert len(jobs(site)) == 1


def test_what_it_offers_is_what_there_is(site: Site, browser: Browser) -> None:
    page = browser.get("/new?model=acme/x%22%3E").text
    for name, known, chosen in (
        ("backends", BACKENDS, DEFAULT_BACKENDS),
        ("precisions", PRECISIONS, DEFAULT_PRECISIONS),
        ("embedding", ("", *EMBEDDINGS), ("",)),
        ("cache", ("", *CACHES), ("",)),
    ):
        assert tuple(re.findall(rf'name="{name}" value="([^"]*)"', page)) == known
        assert tuple(re.findall(rf'name="{name}" value="([^"]*)" checked', page)) == chosen
    assert 'value="acme/x&#34;&gt;"' in page
    assert set(BACKEND_WORDS) == set(BACKENDS) and set(PRECISION_WORDS) == set(PRECISIONS)
    assert set(EMBEDDING_WORDS) == {"", *EMBEDDINGS} and set(CACHE_WORDS) == {"", *CACHES}


def test_addresses_are_taken_for_what_they_name(
    site: Site, browser: Browser, repo: Repository, hub: RunningHub
) -> None:
    for end in ("", "/", "/tree/main", "/blob/main/README.md?x=1#y", "/discussions/1"):
        ask(browser, f"  {hub.endpoint}/{repo.repo_id}{end} ")
    assert [one.repo_id for one in jobs(site)] == [repo.repo_id]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("acme/tiny", "acme/tiny"),
        ("https://huggingface.co/acme/tiny", "acme/tiny"),
        ("huggingface.co/acme/tiny/tree/main", "acme/tiny"),
        ("https://www.huggingface.co/acme/tiny", "acme/tiny"),
        ("http://hf.co/acme/tiny", "acme/tiny"),
        ("https://huggingface.co/models/acme/tiny", "acme/tiny"),
        ("https://huggingface.co/acme/ti%6ey", "acme/tiny"),
    ],
)
def test_ways_to_name_a_model(text: str, expected: str) -> None:
    assert repo_id_of(text, "https://huggingface.co") == expected


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "tiny", "acme/tiny/x", "acme/../tiny", "acme//tiny", "-acme/tiny", "acme/" + "x" * 200, "acme/ti ny",
        "https://huggingface.co", "https://huggingface.co/acme", "https://huggingface.co/datasets/acme/tiny",
        "https://huggingface.co/spaces/acme/tiny", "https://evil.example/acme/tiny", "https://huggingface.co.evil/acme/tiny",
        "https://huggingface.co@evil.example/acme/tiny", "https://user:pw@huggingface.co/acme/tiny",
        "file:///etc/passwd", "javascript:alert(1)//a/b", "https://[::1/acme/tiny", "https://huggingface.co/acme/..%2fx",
        "https://huggingface.co:8443/acme/tiny", "acme/tiny\n", "acme/t\u202einy", "acme/tiny?x=1", *NASTY,
    ],
)  # fmt: skip
def test_what_names_no_model(text: str) -> None:
    if text == "acme/tiny\n":
        assert repo_id_of(text, "https://huggingface.co") == "acme/tiny"
        return
    with pytest.raises(ValueError, match=r"[A-Z].*"):
        repo_id_of(text, "https://huggingface.co")


WRONG = [
    ("model", "", "Give a model"),
    ("model", '"><script>alert(1)</script>', "no model's id"),
    ("model", "https://evil.example/a/b", "no address of"),
    ("model", "acme/there-is-none", "No such repository"),
    ("backends", "", "Choose at least one of portable"),
    ("backends", "quantum", "Choose at least one of portable"),
    ("precisions", "fp64", "Choose at least one of fp32"),
    ("max_kl", "0", "a number above 0"),
    ("max_kl", "0,05", "a number above 0"),
    ("max_size", "90", "a size with its unit"),
    ("max_size", "<b>", "a size with its unit"),
    ("embedding", "int4", "Choose one of 8w, 4w, fp32"),
    ("cache", "int4", "Choose one of fp32, int8"),
    ("calibration", "docs/../../etc/passwd", "a path below the model's own folder"),
    ("calibration", "a.txt, b.txt, a.txt", "'a.txt' is named twice"),
    ("calibration", ",".join(map(str, range(21))), "20 are the most"),
    ("max_seq_len", "0", "a number of tokens"),
    ("max_seq_len", "-1", "a number of tokens"),
    ("max_seq_len", "1e3", "a number of tokens"),
    ("max_seq_len", "999999999", "a number of tokens"),
    ("max_seq_len", "\u0663", "a number of tokens"),
]


def test_what_is_wrong_stands_beside_its_field(site: Site, browser: Browser, repo: Repository) -> None:
    for name, value, said in WRONG:
        fields = {"model": repo.repo_id, "max_seq_len": "77", **{name: value}}
        page = ask(browser, **fields)
        assert page.status_code == 422 and said in problem(page, name), (name, value)
        assert f'{name}-problem" aria-invalid="true"' in page.text
        assert html.escape(fields["model"]).replace("&quot;", "&#34;") in page.text
        assert 'role="alert"' in page.text and "<script>alert" not in page.text
        if name == "model":
            assert 'value="77"' in page.text and re.findall(r'value="(\w+)" checked', page.text) == ["xnnpack", "8da4w"]
    assert jobs(site) == []


def test_auto_and_its_budget_go_together(site: Site, browser: Browser, repo: Repository) -> None:
    page = ask(browser, repo.repo_id, precisions="auto")
    assert page.status_code == 422 and "Give auto a budget" in problem(page, "budget")
    page = ask(browser, repo.repo_id, max_kl="0.05")
    assert page.status_code == 422 and "The budget is for auto" in problem(page, "budget")
    assert 'value="0.05"' in page.text and jobs(site) == []
    reply = ask(browser, repo.repo_id, follow=False, precisions="auto", max_kl="0.05", max_size="90MB", cache="int8")
    assert reply.status_code == 303
    (asked,) = jobs(site)
    assert asked.options == {
        "backends": ["xnnpack"], "precisions": ["auto"], "max_kl": 0.05, "max_size": 90_000_000, "cache": "int8"
    }  # fmt: skip


def test_embedding_and_the_owners_text_are_asked_for(site: Site, browser: Browser, repo: Repository) -> None:
    page = ask(browser, "acme/there-is-none", embedding="4w", calibration="docs/use.txt,b.txt")
    assert re.findall(r'name="embedding" value="(\w*)" checked', page.text) == ["4w"]
    assert 'value="docs/use.txt,b.txt"' in page.text, "what was typed stays"
    names = [f"{number:02}{'x' * 190}.txt" for number in range(20)]
    assert (
        ask(browser, repo.repo_id, embedding="4w", calibration=" docs/use.txt ,b.txt, ", follow=False).status_code
        == 303
    )
    assert ask(browser, repo.repo_id, calibration=",".join(names), follow=False).status_code == 303
    given = {"backends": ["xnnpack"], "precisions": ["8da4w"]}
    assert sorted((one.options for one in jobs(site)), key=str) == sorted(
        [{**given, "embedding": "4w", "calibration": ["docs/use.txt", "b.txt"]}, {**given, "calibration": names}],
        key=str,
    )


def test_one_unknown_backend_among_known_ones_is_refused(site: Site, browser: Browser, repo: Repository) -> None:
    mark = forms(browser.get("/new").text)["/new"]["csrf"]
    body = f"csrf={mark}&model={repo.repo_id}&backends=xnnpack&backends=evil&precisions=fp32"
    headers = {"Content-Type": "application/x-www-form-urlencoded", "Origin": site.url}
    reply = browser.client.post(f"{site.url}/new", content=body, headers=headers)
    assert reply.status_code == 422 and problem(reply, "backends") and jobs(site) == []


def test_a_hub_that_does_not_answer(site: Site, browser: Browser, repo: Repository, hub: RunningHub) -> None:
    hub.fail(f"/api/models/{repo.repo_id}", 500, times=-1)
    page = ask(browser, repo.repo_id)
    assert page.status_code == 502 and "Try again in a while" in page.text
    assert f'value="{repo.repo_id}"' in page.text and jobs(site) == []


@pytest.mark.parametrize("broken", ["csrf", "origin", "signed out", "type", "size"])
def test_forms_that_are_not_ours(site: Site, browser: Browser, repo: Repository, broken: str) -> None:
    fields = {"csrf": forms(browser.get("/new").text)["/new"]["csrf"], "model": repo.repo_id, **GOOD}
    headers = {"Origin": site.url}
    if broken == "csrf":
        fields["csrf"] = "x" + fields["csrf"][1:]
    if broken == "origin":
        headers["Origin"] = "https://evil.example"
    if broken == "signed out":
        browser.submit(browser.get("/"), "/logout")
        fields["csrf"] = forms(browser.get("/new").text)["/new"]["csrf"]
    if broken == "size":
        fields["model"] = "x" * 100_000
    if broken == "type":
        reply = browser.client.post(f"{site.url}/new", json=fields, headers=headers)
    else:
        reply = browser.client.post(f"{site.url}/new", data=fields, headers=headers)
    assert reply.status_code == {"type": 415, "size": 413}.get(broken, 403) and jobs(site) == []


def test_nobody_is_offered_what_they_may_not(site: Site, repo: Repository) -> None:
    with Browser(site.url) as stranger:
        page = stranger.get("/new").text
        assert "Sign in</a> to ask for an export" in page and re.search(r'class="button large" disabled', page)


def test_the_private_models_of_a_bot_are_for_administrators(
    site: Site, browser: Browser, hub: RunningHub, tmp_path: Path
) -> None:
    owner = HfApi(endpoint=hub.endpoint, token=hub.create_user("acme"))
    owner.create_repo("acme/secret", private=True, exist_ok=True)
    assert "No such repository" in problem(ask(browser, "acme/secret"), "model")
    hub.create_user("ptebot-user", orgs={"acme-org": "read"})
    org = HfApi(endpoint=hub.endpoint, token=hub.create_user("maker", orgs={"acme-org": "write"}))
    org.create_repo("acme-org/secret", private=True, exist_ok=True)
    assert ask(browser, "acme-org/secret", follow=False).status_code == 303


def test_a_person_may_have_so_many_jobs(
    hub: RunningHub, repo: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With the Hub's sign-in, which tests/bot/web/test_oauth.py goes through: here, who asks is set."""
    from bot.web.auth import Auth
    from bot.web.visitors import Visitor

    token = hub.create_user("julia")
    who = Auth.who
    monkeypatch.setattr(
        Auth, "who", lambda self, request: Visitor(kind="hub", name="julia", csrf=who(self, request).csrf)
    )
    monkeypatch.setattr(Auth, "token_of", lambda self, request: token)
    HfApi(endpoint=hub.endpoint, token=token).create_repo("julia/own", private=True, exist_ok=True)
    with running_site(tmp_path, endpoint=hub.endpoint) as site, Browser(site.url) as browser:
        assert "private, and these pages are public" in problem(ask(browser, "julia/own"), "model")
        assert ask(browser, repo.repo_id, follow=False).status_code == 303
        assert site.actions.tokens == [token] and site.store.jobs()[0].asker.name == "julia"
        assert token not in "".join(str(row) for row in site.store.jobs())
        for place in range(MOST_LIVE - 1):
            job(site.store, f"acme/m{place}", "running", trigger="form", name="julia")
        page = ask(browser, repo.repo_id, max_seq_len="9")
        assert page.status_code == 422 and f"{MOST_LIVE} of your jobs" in page.text
        site.store.end(site.store.jobs(states=("running",))[0].id, "passed")
        assert ask(browser, repo.repo_id, follow=False, max_seq_len="9").status_code == 303
