"""Serving files: HEAD, GET, Range, conditional requests, the Hub's headers, hostile addresses."""

from __future__ import annotations

import hashlib
import os

import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.file_download import get_hf_file_metadata, hf_hub_url

REGULAR = b"0123456789" * 10
LARGE = os.urandom(1000) + REGULAR


@pytest.fixture(scope="module")
def served(alice: HfApi) -> str:
    repo = alice.create_repo("alice/served").repo_id
    files = {
        "r.txt": REGULAR,
        "l.bin": LARGE,
        "empty.txt": b"",
        "x.html": b"<script>alert(1)</script>",
        "p.svg": b"<svg/>",
    }
    operations = [CommitOperationAdd(name, data) for name, data in files.items()]
    alice.create_commit(repo, operations, commit_message="x")
    return repo


def test_metadata_as_the_client_reads_it(alice: HfApi, served: str, hub) -> None:
    head = alice.model_info(served).sha
    for name, data in (("r.txt", REGULAR), ("l.bin", LARGE)):
        meta = get_hf_file_metadata(hf_hub_url(served, name, endpoint=hub.endpoint), endpoint=hub.endpoint)
        assert (meta.commit_hash, meta.size) == (head, len(data))
    assert meta.etag == hashlib.sha256(LARGE).hexdigest()
    assert meta.xet_file_data is not None


@pytest.mark.parametrize(("name", "data"), [("r.txt", REGULAR), ("l.bin", LARGE)])
@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [
        ("bytes=0-9", 0, 10),
        ("bytes=5-", 5, None),
        ("bytes=-7", -7, None),
        ("bytes=90-5000000", 90, None),
        ("bytes=0-0", 0, 1),
    ],
)
def test_ranges(http, served: str, name: str, data: bytes, asked: str, start: int, stop: int | None) -> None:
    reply = http.get(f"/{served}/resolve/main/{name}", headers={"Range": asked})
    expected = data[start:stop]
    first = start % len(data)
    assert (reply.status_code, reply.content) == (206, expected)
    assert reply.headers["content-range"] == f"bytes {first}-{first + len(expected) - 1}/{len(data)}"
    assert reply.headers["content-length"] == str(len(expected))


@pytest.mark.parametrize("asked", ["bytes=5000000-", "bytes=9-3", "bytes=-", "bytes=-0"])
def test_ranges_that_cannot_be_met(http, served: str, asked: str) -> None:
    reply = http.get(f"/{served}/resolve/main/l.bin", headers={"Range": asked})
    assert reply.status_code == 416
    assert reply.headers["content-range"] == f"bytes */{len(LARGE)}"


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "lines=1-2", "bytes=x-y", "bytes=1"])
def test_ranges_of_another_kind_are_left_aside(http, served: str, asked: str) -> None:
    reply = http.get(f"/{served}/resolve/main/l.bin", headers={"Range": asked})
    assert (reply.status_code, reply.content) == (200, LARGE)


def test_conditional_requests(http, served: str) -> None:
    for name in ("r.txt", "l.bin"):
        address = f"/{served}/resolve/main/{name}"
        etag = http.head(address).headers["etag"]
        fresh = http.get(address, headers={"If-None-Match": f'"other", {etag}'})
        assert (fresh.status_code, fresh.content, fresh.headers["etag"]) == (304, b"", etag)
        assert http.get(address, headers={"If-None-Match": '"other"'}).status_code == 200
        part = {"Range": "bytes=0-3"}
        assert http.get(address, headers=part | {"If-Range": etag}).status_code == 206
        assert http.get(address, headers=part | {"If-Range": '"other"'}).status_code == 200


def test_head_says_what_get_would(http, served: str) -> None:
    for name, data in (("r.txt", REGULAR), ("l.bin", LARGE), ("empty.txt", b"")):
        head, get = (http.request(method, f"/{served}/resolve/main/{name}") for method in ("HEAD", "GET"))
        assert head.content == b""
        assert (get.content, get.headers["content-length"], head.headers["content-length"]) == (
            data,
            *[str(len(data))] * 2,
        )
        assert head.headers["x-repo-commit"] == get.headers["x-repo-commit"]
    assert http.head(f"/{served}/resolve/main/l.bin").headers["x-linked-size"] == str(len(LARGE))


def test_files_cannot_act_as_pages(http, served: str) -> None:
    """What somebody uploaded must not run as a page of this server."""
    for name in ("x.html", "p.svg", "r.txt"):
        reply = http.get(f"/{served}/resolve/main/{name}")
        assert reply.headers["content-type"].startswith(("text/plain", "application/octet-stream"))
        assert reply.headers["x-content-type-options"] == "nosniff"
        assert "sandbox" in reply.headers["content-security-policy"]
        assert reply.headers["content-disposition"].startswith("attachment")


def test_every_kind_of_revision_resolves(alice: HfApi, http, served: str) -> None:
    head = alice.model_info(served).sha
    for rev in ("main", head, str(head)[:8], "refs%2Fheads%2Fmain", "refs/heads/main".replace("/", "%2f")):
        assert http.get(f"/{served}/resolve/{rev}/r.txt").content == REGULAR


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/{repo}/resolve/main/../../../etc/passwd", 400),
        ("/{repo}/resolve/main/..%2F..%2Fetc%2Fpasswd", 400),
        ("/{repo}/resolve/main/%2e%2e/hub.sqlite3", 400),
        ("/{repo}/resolve/..%2f..%2f/r.txt", 404),
        ("/{repo}/resolve/main/r.txt%00.png", 400),
        ("/{repo}/resolve/main/%ff", 400),
        ("/{repo}/resolve/main/", 400),
        ("/{repo}/resolve/main~1/r.txt", 404),
        ("/{repo}/resolve/main:r.txt/r.txt", 404),
        ("/{repo}/resolve/@%7B-1%7D/r.txt", 404),
        ("/alice%2fserved/resolve/main/r.txt", 404),
        ("/static/../hub.sqlite3", 404),
        ("/static/%2e%2e/%2e%2e/hub.sqlite3", 404),
        ("/static/..%2fapp.py", 404),
        ("/api/models/..%2f..%2fx/y/refs", 404),
        ("/api/models/{repo}/tree/main/..%2f..", 400),
        ("/api/models/{repo}/commits/main?p=x", 400),
        ("/api/models/{repo}/tree/main?cursor=%C2%B2", 400),
        ("/api/nothing", 404),
    ],
)
def test_hostile_addresses(hub, served: str, path: str, status: int) -> None:
    """Sent as they are: no client library tidies them up first."""
    import http.client

    connection = http.client.HTTPConnection(*hub.endpoint.removeprefix("http://").split(":"))
    connection.putrequest("GET", path.format(repo=served))
    connection.endheaders()
    reply = connection.getresponse()
    body = reply.read()
    assert reply.status == status, body
    assert b"root:" not in body
    assert b"SQLite" not in body


def test_error_codes_for_the_client(http, served: str) -> None:
    head = http.head(f"/{served}/resolve/main/none.txt")
    assert (head.status_code, head.headers["x-error-code"]) == (404, "EntryNotFound")
    assert len(head.headers["x-repo-commit"]) == 40
    assert http.head(f"/{served}/resolve/none/r.txt").headers["x-error-code"] == "RevisionNotFound"
    assert http.head("/alice/none/resolve/main/r.txt").headers["x-error-code"] == "RepoNotFound"
    assert http.request("PATCH", "/api/whoami-v2").status_code == 405


def test_what_a_client_sent_cannot_become_a_header(alice: HfApi, repo: str, http) -> None:
    body = {"startingPoint": "nowhere\r\nSet-Cookie: a=b\u20ac" + "x" * 5000}
    reply = http.post(f"/api/models/{repo}/branch/b", json=body, token=alice.token)
    assert (reply.status_code, reply.headers["x-error-code"]) == (404, "RevisionNotFound")
    assert "set-cookie" not in reply.headers
    assert len(reply.headers["x-error-message"]) <= 500


def test_commits_come_in_pages(alice: HfApi, repo: str, http) -> None:
    for number in range(4):
        alice.create_commit(repo, [CommitOperationAdd("n.txt", str(number).encode())], commit_message=f"c{number}")
    reply = http.get(f"/api/models/{repo}/commits/main?limit=2")
    assert [item["title"] for item in reply.json()] == ["c3", "c2"]
    assert reply.headers["x-total-count"] == "5"
    titles = [item["title"] for item in http.get("/" + reply.links["next"]["url"].split("/", 3)[3]).json()]
    assert titles == ["c1", "c0"]
