"""Pages for a person: what they show, and that nothing in a repository can act through them."""

from __future__ import annotations

import base64
import os
import re
from html.parser import HTMLParser
from typing import ClassVar

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

EVIL = "<script>alert(1)</script>"
CARD = f"""---
license: mit
tags: [fast, '{EVIL}']
title: "&lt;"
---
# Card of **it**

{EVIL} <img src=x onerror=alert(2)> <a href="javascript:alert(3)">x</a> [y](javascript:alert(4))
<iframe src="https://evil.example"></iframe><style>*{{display:none}}</style><form action=/x><input></form>
<svg onload=alert(5)></svg> <div style="position:fixed" class="top" id="conversation">z</div> <base href="//evil">

[rel](docs/a.md) ![pic](img/p.png) ![out](https://evil.example/track.png) [up](../../../api/repos/delete)

| a | b |
|---|---|
| 1 | 2 |
"""
NEW_CARD = CARD.replace("of **it**", "of **them**").replace("[fast,", "[fast, executorch,") + "\n## New\n"


class Dangers(HTMLParser):
    """Whatever in a page could act, load from elsewhere or dress up as the page itself."""

    ELEMENTS: ClassVar[set[str]] = {"script", "iframe", "form", "input", "style", "base", "svg", "object", "embed"}

    def __init__(self, html: str) -> None:
        super().__init__()
        self.found: list[str] = []
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag in self.ELEMENTS:
            self.found.append(tag)
        for name, value in attrs:
            text = (value or "").strip().lower()
            away = name == "src" and not text.startswith("/")
            scheme = name == "href" and re.match(r"(?!https?:|mailto:)[a-z]+:", text)
            if (
                name.startswith("on")
                or name in ("style", "srcdoc")
                or away
                or scheme
                or (name == "id" and tag == "div")
            ):
                self.found.append(f"{tag} {name}={value}")


@pytest.fixture(scope="module")
def shown(alice: HfApi, bot: HfApi) -> str:
    repo = alice.create_repo("alice/shown").repo_id
    odd = EVIL.replace("/", "") + ".txt"
    names = {
        odd: EVIL.encode(),
        'a&b "c".md': b"x",
        "docs/a.md": b"x",
        "m.pte": os.urandom(4096),
    }
    operations = [CommitOperationAdd(name, data) for name, data in names.items()]
    alice.create_commit(
        repo,
        [CommitOperationAdd("README.md", CARD.encode()), *operations],
        commit_message=EVIL,
        commit_description=EVIL,
    )
    bot.create_commit(
        repo,
        [CommitOperationAdd("README.md", NEW_CARD.encode()), CommitOperationAdd("e/n.pte", os.urandom(2_000_000))],
        commit_message=f"PR {EVIL}", commit_description=f"**bold** {EVIL} <b onclick=x>b</b>", create_pr=True,
    )  # fmt: skip
    alice.comment_discussion(repo, 1, f"{EVIL} [l](javascript:x)")
    alice.create_discussion(repo, f"Talk {EVIL}", description="hello")
    alice.rename_discussion(repo, 2, f"Renamed {EVIL}")
    return repo


def pages(repo: str) -> dict[str, int]:
    """Addresses of pages, with the status that each should have."""
    odd = "%3Cscript%3Ealert(1)%3Cscript%3E.txt"
    good = [
        "tree/main", "tree/refs%2Fpr%2F1/e", f"blob/main/{odd}", "blob/main/m.pte", "commits/main", "commit/main",
        "commit/refs%2Fpr%2F1", "discussions", "discussions?status=closed", "discussions/1", "discussions/2",
    ]  # fmt: skip
    bad = [f"tree/{odd}", f"blob/main/{odd}x", f"discussions/{odd}", f"commit/{odd}"]
    found = {"/": 200, "/alice": 200, f"/{repo}": 200, "/nobody": 404, f"/{odd}": 404, f"/{odd}/{odd}": 404}
    return found | {f"/{repo}/{path}": 200 for path in good} | {f"/{repo}/{path}": 404 for path in bad}


def test_the_detector_detects() -> None:
    assert len(Dangers(CARD).found) >= 8


def test_nothing_hostile_gets_through_on_any_page(http, shown: str) -> None:
    for path, status in pages(shown).items():
        reply = http.get(path)
        assert reply.status_code == status, path
        assert Dangers(reply.text).found == [], path
        policy = reply.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "script-src" not in policy
        assert reply.headers["content-type"] == "text/html; charset=utf-8"
        assert "for demos and tests" in reply.text
        assert 'name="viewport"' in reply.text


def test_the_card_is_rendered_and_its_metadata_hidden(http, shown: str) -> None:
    html = http.get(f"/{shown}").text
    assert "<h1>Card of <strong>it</strong></h1>" in html
    assert "<td>1</td>" in html
    assert "license: mit" not in html
    assert "<li>license:mit</li>" in html
    assert "<li>fast</li>" in html
    assert f'href="/{shown}/resolve/main/docs/a.md"' in html
    assert f'src="/{shown}/resolve/main/img/p.png"' in html
    assert "/api/repos/delete" not in html
    assert "m.pte" in html


def test_files_with_sizes_and_revisions(http, shown: str) -> None:
    html = http.get(f"/{shown}/tree/refs%2Fpr%2F1").text
    assert ">refs/pr/1</a>" in html
    assert ">main</a>" in html
    assert f'href="/{shown}/blob/refs%2Fpr%2F1/a%26b%20%22c%22.md"' in html
    assert "4.1 kB" in html
    assert "2 MB" in http.get(f"/{shown}/tree/refs%2Fpr%2F1/e").text
    # Every link on the page leads somewhere.
    for link in set(re.findall(r'href="(/alice/shown[^"#]*)"', html)):
        assert http.get(link.replace("&amp;", "&")).status_code in (200, 303), link
    assert http.get(f"/{shown}/tree/main/m.pte").headers["location"] == f"/{shown}/blob/main/m.pte"


def test_a_pull_request_page(http, shown: str) -> None:
    html = http.get(f"/{shown}/discussions/1").text
    assert "PR &lt;script&gt;" in html
    assert "<strong>bold</strong>" in html
    assert '<span class="pill open">open</span>' in html
    assert "no conflicts" in html
    diff = html[html.index('id="card"') :]
    assert re.search(r"block removed.*?<h1>Card of <strong>it</strong></h1>", diff, re.DOTALL)
    assert re.search(r"block added.*?<h1>Card of <strong>them</strong></h1>", diff, re.DOTALL)
    assert re.search(r'class="add"><td>\+tags: \[fast, executorch', diff)
    assert "<h2>New</h2>" in diff
    assert "e/n.pte" in diff
    assert "2 MB" in diff
    assert "sha256" in diff


def test_the_rendered_diff_follows_the_states_of_a_pull_request(alice: HfApi, bot: HfApi, repo: str, http) -> None:
    card = b"---\ntags: [a]\n---\n# One\n"
    alice.create_commit(repo, [CommitOperationAdd("README.md", card)], commit_message="card")
    new = card.replace(b"One", b"Two")
    bot.create_commit(repo, [CommitOperationAdd("README.md", new)], commit_message="pr", create_pr=True)
    alice.create_commit(repo, [CommitOperationAdd("README.md", card.replace(b"One", b"Uno"))], commit_message="own")
    assert "Conflicts with main in README.md" in http.get(f"/{repo}/discussions/1").text
    alice.create_commit(repo, [CommitOperationAdd("README.md", card)], commit_message="back")
    alice.merge_pull_request(repo, 1)
    html = http.get(f"/{repo}/discussions/1").text
    assert '<span class="pill merged">merged</span>' in html
    assert "<h1>Two</h1>" in html


def test_strangers_see_no_private_page(alice: HfApi, bot: HfApi, http) -> None:
    repo = alice.create_repo("alice/unseen", private=True).repo_id
    for path in ("", "/tree/main", "/discussions", "/commits/main", "/blob/main/.gitattributes"):
        assert http.get(f"/{repo}{path}").status_code == 404
        assert http.get(f"/{repo}{path}", token=bot.token).status_code == 404
        assert http.get(f"/{repo}{path}", token=alice.token).status_code == 200
    assert "unseen" not in http.get("/").text
    assert "unseen" not in http.get("/alice").text


def test_signing_in_by_the_browser(alice: HfApi, http) -> None:
    asked = http.get("/login")
    assert (asked.status_code, asked.headers["www-authenticate"][:5]) == (401, "Basic")
    basic = {"Authorization": "Basic " + base64.b64encode(f"me:{alice.token}".encode()).decode()}
    assert http.get("/login", headers=basic).headers["location"] == "/"
    assert ">alice</a>" in http.get("/", headers=basic).text


def test_the_style_sheet_is_served(http) -> None:
    assert http.get("/static/style.css").headers["content-type"].startswith("text/css")
    assert http.get("/static/icon.svg").status_code == 200
