"""Xet transfers through the real hf_xet, between processes as they are in life, and against forged stores."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi, RepoFile
from huggingface_hub.errors import HfHubHTTPError

from bot.localhub.testing import RunningHub
from bot.localhub.xet import parse_shard
from tests.bot.localhub.conftest import Http

UPLOAD = """
import sys
from huggingface_hub import HfApi, CommitOperationAdd
endpoint, token, repo, path = sys.argv[1:]
api = HfApi(endpoint=endpoint, token=token)
api.create_commit(repo, [CommitOperationAdd(path.rsplit("/", 1)[1], path)], commit_message="from another process")
print("committed", flush=True)
sys.stdin.read()
"""


def xet_hash(api: HfApi, repo: str, path: str) -> str | None:
    (info,) = api.get_paths_info(repo, path)
    assert isinstance(info, RepoFile)
    return info.xet_hash


def test_upload_and_download_take_the_xet_way(alice: HfApi, hub: RunningHub, repo: str, tmp_path: Path) -> None:
    data = os.urandom(400_000) + b"again" * 100_000
    alice.create_commit(repo, [CommitOperationAdd("m.safetensors", data)], commit_message="x")
    assert xet_hash(alice, repo, "m.safetensors")
    before = len(hub.traffic)
    path = Path(alice.hf_hub_download(repo, "m.safetensors", cache_dir=tmp_path))
    assert path.read_bytes() == data
    seen = [(item.method, "xet-read-token" in item.path, "resolve" in item.path) for item in hub.traffic[before:]]
    assert ("GET", True, False) in seen
    assert ("GET", False, True) not in seen, "the bytes should have come through Xet, not through resolve"


def test_two_processes_at_once(alice: HfApi, hub: RunningHub, repo: str, tmp_path: Path) -> None:
    """hf_xet holds its directory as long as it lives; the next process must not stumble over that."""
    source = tmp_path / "one.bin"
    source.write_bytes(os.urandom(300_000))
    command = [sys.executable, "-c", UPLOAD, hub.endpoint, str(alice.token), repo, str(source)]
    other = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert other.stdout is not None
        assert other.stdout.readline().strip() == "committed"
        mine = os.urandom(200_000)
        alice.create_commit(repo, [CommitOperationAdd("two.bin", mine)], commit_message="while the other still lives")
        got = {
            name: Path(alice.hf_hub_download(repo, name, cache_dir=tmp_path / "c")) for name in ("one.bin", "two.bin")
        }
        assert got["one.bin"].read_bytes() == source.read_bytes()
        assert got["two.bin"].read_bytes() == mine
    finally:
        other.communicate("")


def test_uploads_that_cross_keep_both_files(alice: HfApi, repo: str, tmp_path: Path) -> None:
    """Both upload from the same pool; the second to commit finds it changed and loses nothing."""
    contents = {f"f{number}.bin": os.urandom(150_000) for number in range(3)}
    additions = {name: CommitOperationAdd(name, data) for name, data in contents.items()}
    for addition in additions.values():
        alice.preupload_lfs_files(repo, [addition], free_memory=False)
    for name, addition in additions.items():
        alice.create_commit(repo, [addition], commit_message=name)
    for name, data in contents.items():
        assert xet_hash(alice, repo, name)
        assert Path(alice.hf_hub_download(repo, name, cache_dir=tmp_path)).read_bytes() == data


def test_many_threads_upload_at_once(alice: HfApi, repo: str, tmp_path: Path) -> None:
    contents = {f"t{number}.bin": os.urandom(50_000) for number in range(4)}
    failures: list[BaseException] = []

    def upload(name: str) -> None:
        try:
            alice.create_commit(repo, [CommitOperationAdd(name, contents[name])], commit_message=name)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=upload, args=(name,)) for name in contents]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failures
    for name, data in contents.items():
        assert Path(alice.hf_hub_download(repo, name, cache_dir=tmp_path)).read_bytes() == data


def test_the_same_content_again_is_not_stored_twice(alice: HfApi, hub: RunningHub, repo: str) -> None:
    data = os.urandom(2_000_000)
    alice.create_commit(repo, [CommitOperationAdd("a.bin", data)], commit_message="x")
    alice.create_commit(repo, [CommitOperationAdd("b.bin", data + b"!")], commit_message="y")
    found = hub.hub.repos.find(*repo.split("/"))
    assert found is not None
    xorbs = {
        path.stat().st_ino: path.stat().st_size
        for path in found.directory.glob("xet/*/xet/xorbs/xorbs/default.*[0-9a-f]")
    }
    assert sum(xorbs.values()) < 2.3 * len(data)  # the second file's last chunks only, beside the first


def test_bytes_served_over_plain_http_are_the_same(alice: HfApi, repo: str, http) -> None:
    data = os.urandom(120_000)
    alice.create_commit(repo, [CommitOperationAdd("m.pte", data)], commit_message="x")
    reply = http.get(f"/{repo}/resolve/main/m.pte")
    assert (reply.status_code, reply.content) == (200, data)
    assert reply.headers["x-xet-hash"] == xet_hash(alice, repo, "m.pte")


def test_a_large_file_that_was_never_uploaded_is_refused(alice: HfApi, repo: str, http) -> None:
    line = b'{"key":"lfsFile","value":{"path":"m.bin","algo":"sha256","oid":"%s","size":5}}' % (b"a" * 64)
    body = b'{"key":"header","value":{"summary":"x"}}\n' + line
    headers = {"Content-Type": "application/x-ndjson"}
    reply = http.post(f"/api/models/{repo}/commit/main", content=body, headers=headers, token=alice.token)
    assert reply.status_code == 400
    assert "not uploaded" in reply.json()["error"]


def test_a_store_that_lies_about_its_content_is_refused(
    alice: HfApi, bot: HfApi, hub: RunningHub, repo: str, tmp_path: Path
) -> None:
    """A shard may claim any sha256; what it claims is rebuilt and hashed before it counts."""
    import hf_xet

    claimed = b"the real weights " * 1000
    sha = hashlib.sha256(claimed).hexdigest()
    forged = os.urandom(len(claimed))
    connection = hub_write_token(hub, bot, repo)
    with hf_xet.XetSession().new_upload_commit(
        endpoint=connection["casUrl"], token="t", token_expiry_unix_secs=connection["exp"]
    ) as commit:
        commit.start_upload_bytes(forged, sha256=sha)
    body = "\n".join([
        '{"key":"header","value":{"summary":"x"}}',
        f'{{"key":"lfsFile","value":{{"path":"m.bin","algo":"sha256","oid":"{sha}","size":{len(claimed)}}}}}',
    ])  # fmt: skip
    client = Http(hub.endpoint)
    headers = {"Content-Type": "application/x-ndjson"}
    path = f"/api/models/{repo}/commit/main?create_pr=1"
    reply = client.post(path, content=body.encode(), headers=headers, token=bot.token)
    assert reply.status_code == 422
    assert not list(alice.get_repo_discussions(repo))
    # The owner's own upload of the real file under that hash is not hindered by it.
    alice.create_commit(repo, [CommitOperationAdd("m.bin", claimed)], commit_message="real")
    assert Path(alice.hf_hub_download(repo, "m.bin", cache_dir=tmp_path)).read_bytes() == claimed


def hub_write_token(hub: RunningHub, api: HfApi, repo: str) -> dict:
    return Http(hub.endpoint).get(f"/api/models/{repo}/xet-write-token/None?create_pr=1", token=api.token).json()


def test_a_token_of_each_kind_is_a_directory_of_its_own(alice: HfApi, hub: RunningHub, repo: str) -> None:
    tokens = [hub_write_token(hub, alice, repo)["casUrl"] for _ in range(2)]
    assert len(set(tokens)) == 2
    assert all(Path(token.removeprefix("local://")).is_dir() for token in tokens)


@pytest.mark.parametrize(
    "data", [b"", b"x" * 47, b"\0" * 96, os.urandom(4096), b"\0" * 48 + b"\x01" * 40 + b"\xff" * 8]
)
def test_a_malformed_shard_gives_nothing_and_raises_nothing(data: bytes) -> None:
    assert all(len(sha) == 64 == len(xet) for sha, xet in parse_shard(data))


def test_a_client_elsewhere_is_told_to_use_lfs(alice: HfApi, hub: RunningHub, repo: str) -> None:
    """The directory means nothing on another machine, so neither token nor hash is given to one."""
    from starlette.testclient import TestClient

    from bot.localhub.app import create_app

    alice.create_commit(repo, [CommitOperationAdd("m.bin", b"\0" * 500)], commit_message="x")
    remote = TestClient(create_app(hub.hub, hosts=["*"]), client=("192.0.2.7", 5000))
    headers = {"Authorization": f"Bearer {alice.token}"}
    reply = remote.get(f"/api/models/{repo}/xet-write-token/main", headers=headers)
    assert reply.status_code == 403
    assert "HF_HUB_DISABLE_XET" in reply.json()["error"]
    assert "x-xet-hash" not in remote.head(f"/{repo}/resolve/main/m.bin").headers
    assert "xetHash" not in remote.get(f"/api/models/{repo}/tree/main").json()[1]


def test_strangers_get_no_token_of_a_private_repository(alice: HfApi, bot: HfApi, hub: RunningHub) -> None:
    repo = alice.create_repo("alice/xet-private", private=True).repo_id
    for kind in ("read", "write"):
        reply = Http(hub.endpoint).get(f"/api/models/{repo}/xet-{kind}-token/main", token=bot.token)
        assert reply.status_code == 404
    with pytest.raises(HfHubHTTPError):
        bot.create_commit(repo, [CommitOperationAdd("m.bin", b"\0")], commit_message="x", create_pr=True)


def test_an_announced_size_that_is_wrong_is_refused(alice: HfApi, repo: str, http) -> None:
    data = os.urandom(3000)
    alice.create_commit(repo, [CommitOperationAdd("a.bin", data)], commit_message="x")
    sha = hashlib.sha256(data).hexdigest()
    body = (
        '{"key":"header","value":{"summary":"x"}}\n'
        f'{{"key":"lfsFile","value":{{"path":"b.bin","algo":"sha256","oid":"{sha}","size":2999}}}}'
    )
    headers = {"Content-Type": "application/x-ndjson"}
    reply = http.post(f"/api/models/{repo}/commit/main", content=body.encode(), headers=headers, token=alice.token)
    assert reply.status_code == 400
