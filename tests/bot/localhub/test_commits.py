"""The commit call itself: parents, races, hostile bodies and paths, limits, and the JSON form."""

from __future__ import annotations

import base64
import json
import os
import threading
from pathlib import Path
from typing import Any

import pygit2
import pytest
from huggingface_hub import CommitOperationAdd, HfApi
from huggingface_hub.errors import HfHubHTTPError

from bot.localhub.context import MIB
from bot.localhub.testing import RunningHub
from tests.bot.localhub.conftest import Http

NDJSON = {"Content-Type": "application/x-ndjson"}


def lines(*items: tuple[str, Any], summary: str = "x") -> bytes:
    header = {"key": "header", "value": {"summary": summary}}
    return b"\n".join(json.dumps(item).encode() for item in [header, *({"key": k, "value": v} for k, v in items)])


def send(http: Http, api: HfApi, repo: str, body: bytes, query: str = ""):
    return http.post(f"/api/models/{repo}/commit/main{query}", content=body, headers=NDJSON, token=api.token)


def git_of(hub: RunningHub, repo: str) -> pygit2.Repository:
    found = hub.hub.repos.find(*repo.split("/"))
    assert found is not None
    return found.git().git


def test_a_stale_parent_is_refused(alice: HfApi, repo: str) -> None:
    old = alice.model_info(repo).sha
    head = alice.create_commit(
        repo, [CommitOperationAdd("a", b"1")], commit_message="1", parent_commit=old
    ).oid  # fmt: skip
    with pytest.raises(HfHubHTTPError) as caught:
        alice.create_commit(repo, [CommitOperationAdd("a", b"2")], commit_message="2", parent_commit=old)
    assert caught.value.response.status_code == 412
    assert alice.model_info(repo).sha == head


def test_of_commits_on_one_parent_exactly_one_wins(alice: HfApi, hub: RunningHub, repo: str) -> None:
    parent = alice.model_info(repo).sha
    statuses: list[int] = []
    barrier = threading.Barrier(6)

    def commit(number: int) -> None:
        body = lines(("file", {"path": "race.txt", "content": str(number)})).replace(
            b'"summary": "x"', b'"summary": "x", "parentCommit": "%s"' % str(parent).encode()
        )
        barrier.wait()
        statuses.append(send(Http(hub.endpoint), alice, repo, body).status_code)

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200, 412, 412, 412, 412, 412]
    assert len(alice.list_repo_commits(repo)) == 2


def test_commits_without_a_parent_all_land(alice: HfApi, hub: RunningHub, repo: str) -> None:
    statuses: list[int] = []

    def commit(number: int) -> None:
        body = lines(("file", {"path": f"{number}.txt", "content": str(number)}))
        statuses.append(send(Http(hub.endpoint), alice, repo, body).status_code)

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [200] * 8
    assert {f"{number}.txt" for number in range(8)} <= set(alice.list_repo_files(repo))


def test_a_pull_request_starts_at_the_parent_it_names(alice: HfApi, bot: HfApi, hub: RunningHub, repo: str) -> None:
    old = alice.model_info(repo).sha
    alice.create_commit(repo, [CommitOperationAdd("new.txt", b"1")], commit_message="newer")
    pr = bot.create_commit(
        repo, [CommitOperationAdd("b.txt", b"1")], commit_message="pr", create_pr=True, parent_commit=old
    )
    made = git_of(hub, repo)[pr.oid]
    assert [str(parent.id) for parent in made.parents] == [old]  # type: ignore[attr-defined]
    with pytest.raises(HfHubHTTPError) as caught:
        bot.create_commit(
            repo, [CommitOperationAdd("c", b"1")], commit_message="pr", create_pr=True, parent_commit="1" * 40
        )
    assert caught.value.response.status_code == 412


HOSTILE_PATHS = [
    "../up.txt", "a/../../up.txt", "/abs.txt", "a//b.txt", "./a.txt", "a/.", ".git/config", "sub/.GIT/hooks/x", ".git ",
    "a\\..\\b", "nul\0byte", "line\nfeed", "", "x" * 1001, 7, None, "\ud800",
]  # fmt: skip


@pytest.mark.parametrize("path", HOSTILE_PATHS, ids=repr)
@pytest.mark.parametrize("kind", ["file", "deletedFile", "lfsFile"])
def test_paths_that_leave_the_repository_are_refused(
    alice: HfApi, http: Http, hub: RunningHub, request: pytest.FixtureRequest, path: Any, kind: str
) -> None:
    repo = shared_repo(alice)
    value = {"path": path, "content": "x", "oid": "a" * 64, "size": 1}
    before = alice.model_info(repo).sha
    assert send(http, alice, repo, lines((kind, value))).status_code == 400
    assert alice.model_info(repo).sha == before
    names = [item.name for item in hub.data.rglob("*") if item.name in ("up.txt", "abs.txt")]
    assert not names


def shared_repo(alice: HfApi) -> str:
    return alice.create_repo("alice/hostile", exist_ok=True).repo_id


WEIRD = [
    "ünïcödé/文件.txt",
    "spaces in name.txt",
    "%2e%2e%2f.txt",
    "a&b=c?d#e.txt",
    "-rf",
    "<b>.txt",
    "'\"`$(x).txt",
    "…",
    "a*[x]?.txt",
]


def test_weird_but_honest_names_survive(alice: HfApi, repo: str, tmp_path: Path) -> None:
    operations = [CommitOperationAdd(name, name.encode()) for name in WEIRD]
    alice.create_commit(repo, [*operations, CommitOperationAdd("a*[x]?.bin", b"\0")], commit_message="weird")
    assert set(WEIRD) <= set(alice.list_repo_files(repo))
    for name in WEIRD:
        path = Path(alice.hf_hub_download(repo, name, cache_dir=tmp_path))
        assert path.read_bytes() == name.encode()


def test_a_file_takes_the_place_of_a_directory_and_back(alice: HfApi, repo: str) -> None:
    alice.create_commit(repo, [CommitOperationAdd("x/y/z.txt", b"1")], commit_message="1")
    alice.create_commit(repo, [CommitOperationAdd("x/y", b"2")], commit_message="2")
    assert set(alice.list_repo_files(repo)) == {".gitattributes", "x/y"}
    alice.create_commit(repo, [CommitOperationAdd("x/y/z.txt", b"3")], commit_message="3")
    assert set(alice.list_repo_files(repo)) == {".gitattributes", "x/y/z.txt"}


BAD_BODIES = {
    "not json": b"{",
    "not utf-8": b'\xff\xfe{"key": 1}',
    "not an object": b"[1]",
    "no header": b'{"key":"file","value":{"path":"a","content":""}}',
    "empty": b"",
    "header only": lines(),
    "blank summary": lines(("file", {"path": "a", "content": ""}), summary="  "),
    "unknown key": lines(("exec", {"path": "a"})),
    "value is a list": lines(("file", [1])),
    "content is a number": lines(("file", {"path": "a", "content": 5})),
    "bad base64": lines(("file", {"path": "a", "content": "***", "encoding": "base64"})),
    "bad encoding": lines(("file", {"path": "a", "content": "x", "encoding": "rot13"})),
    "bad oid": lines(("lfsFile", {"path": "a", "oid": "../x", "size": 1})),
    "size is true": lines(("lfsFile", {"path": "a", "oid": "a" * 64, "size": True})),
    "negative size": lines(("lfsFile", {"path": "a", "oid": "a" * 64, "size": -1})),
    "md5": lines(("lfsFile", {"path": "a", "oid": "a" * 64, "size": 1, "algo": "md5"})),
    "deep nesting": b"[" * 200_000,
    "lone surrogate": lines(("file", {"path": "a", "content": "\ud800"})),
}


@pytest.mark.parametrize("name", BAD_BODIES)
def test_bad_bodies_are_told_so_and_change_nothing(alice: HfApi, http: Http, name: str) -> None:
    repo = shared_repo(alice)
    before = alice.model_info(repo).sha
    reply = send(http, alice, repo, BAD_BODIES[name])
    assert reply.status_code == 400, reply.text
    assert reply.json()["error"]
    assert alice.model_info(repo).sha == before


def test_bodies_beyond_the_limits_are_refused(alice: HfApi, http: Http, repo: str, hub: RunningHub) -> None:
    limits = hub.hub.limits
    over = base64.b64encode(b"x" * (limits.regular_file + 1)).decode()
    reply = send(http, alice, repo, lines(("file", {"path": "a", "content": over, "encoding": "base64"})))
    assert reply.status_code == 413
    assert "large files" in reply.json()["error"]

    def endless():
        for _ in range(limits.commit_body // MIB + 2):
            yield b" " * MIB

    # Announced, and found out while it streams: both end with 413 before the body is in memory.
    path = f"/api/models/{repo}/commit/main"
    for options in ({"content": b" " * (limits.commit_body + 1)}, {"content": endless()}):
        try:
            assert http.post(path, headers=NDJSON, token=alice.token, **options).status_code == 413
        except OSError:
            pytest.fail("the server closed the connection instead of answering")


def test_the_json_form_and_renames(alice: HfApi, http: Http, repo: str) -> None:
    address = f"/api/models/{repo}/commit/main"
    body = {
        "summary": "as JSON",
        "files": [{"path": "a.txt", "content": "grün"}, {"path": "b.txt", "content": "Yg==", "encoding": "base64"}],
    }
    assert http.post(address, json=body, token=alice.token).status_code == 200
    body = {
        "summary": "renamed", "files": [{"path": "c.txt", "oldPath": "a.txt"}], "deletedEntries": [{"path": "b.txt"}]
    }  # fmt: skip
    assert http.post(address, json=body, token=alice.token).status_code == 200
    assert set(alice.list_repo_files(repo)) == {".gitattributes", "c.txt"}
    assert http.get(f"/{repo}/resolve/main/c.txt").content == "grün".encode()
    reply = http.post(address, json={"summary": "x", "files": [{"path": "d", "oldPath": "nowhere"}]}, token=alice.token)
    assert (reply.status_code, reply.headers["x-error-code"]) == (404, "EntryNotFound")


def test_the_commit_is_a_real_one(alice: HfApi, hub: RunningHub, repo: str) -> None:
    parent = alice.model_info(repo).sha
    commit = alice.create_commit(
        repo, [CommitOperationAdd("m.bin", os.urandom(100))], commit_message="Title", commit_description="Body"
    )
    made = git_of(hub, repo)[commit.oid]
    assert isinstance(made, pygit2.Commit)
    assert (made.message, made.author.name) == ("Title\n\nBody", "alice")
    assert [str(oid) for oid in made.parent_ids] == [parent]
    assert made.tree["m.bin"].data.startswith(b"version https://git-lfs.github.com/spec/v1\n")  # type: ignore[attr-defined]


def test_preupload_tells_modes_and_what_is_there(alice: HfApi, http: Http, repo: str) -> None:
    alice.create_commit(
        repo, [CommitOperationAdd(".gitignore", b"*.log\n!keep.log\nbuild/\n"), CommitOperationAdd("a.txt", b"a")],
        commit_message="x",
    )  # fmt: skip
    names = {"a.txt": b"a", "b.safetensors": b"x", "run.log": b"x", "keep.log": b"x", "build/out.txt": b"x", "c": b"\0"}
    files = [{"path": n, "size": 9, "sample": base64.b64encode(d).decode()} for n, d in names.items()]
    reply = http.post(f"/api/models/{repo}/preupload/main", json={"files": files}, token=alice.token).json()
    by_path = {item["path"]: item for item in reply["files"]}
    assert reply["commitOid"] == alice.model_info(repo).sha
    assert {path for path, item in by_path.items() if item["uploadMode"] == "lfs"} == {"b.safetensors", "c"}
    assert {path for path, item in by_path.items() if item["shouldIgnore"]} == {"run.log", "build/out.txt"}
    assert by_path["a.txt"]["oid"] == "2e65efe2a145dda7ee51d1741299f848e5bf752e"  # git hash-object of "a"
    huge = {"files": [{"path": "t.txt", "size": 10**9, "sample": ""}]}
    reply = http.post(f"/api/models/{repo}/preupload/main", json=huge, token=alice.token).json()
    assert reply["files"][0]["uploadMode"] == "lfs"
    for bad in ({}, {"files": [{}]}, {"files": [{"path": "../x", "size": 1, "sample": ""}]}, {"files": "x"},
                {"files": [{"path": "x", "size": 1, "sample": "*"}]}, {"files": [], "gitIgnore": 1}):  # fmt: skip
        assert http.post(f"/api/models/{repo}/preupload/main", json=bad, token=alice.token).status_code == 400
