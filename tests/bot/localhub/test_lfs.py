"""Git LFS: the path that huggingface_hub takes without Xet, single and in parts, and what git-lfs needs."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
from pathlib import Path

import pytest
from huggingface_hub import HfApi

from bot.localhub.context import MIB
from bot.localhub.testing import RunningHub

CLIENT = """
import sys
from pathlib import Path
from huggingface_hub import HfApi, CommitOperationAdd, constants
assert constants.HF_HUB_DISABLE_XET
endpoint, token, repo, folder = sys.argv[1:]
api = HfApi(endpoint=endpoint, token=token)
files = {path.name: path for path in Path(folder).iterdir()}
pr = api.create_commit(repo, [CommitOperationAdd(name, str(path)) for name, path in files.items()],
                       commit_message="over LFS", create_pr=True)
assert pr.pr_revision == "refs/pr/1", pr
api.create_commit(repo, [CommitOperationAdd("later.bin", b"\\0" * 70_000)], commit_message="more", revision="refs/pr/1")
for name, path in files.items():
    got = Path(api.hf_hub_download(repo, name, revision="refs/pr/1", cache_dir=folder + "-cache"))
    assert got.read_bytes() == path.read_bytes(), name
"""


def batch(http, repo: str, token: object, *, operation: str = "upload", size: int = 10, oid: str = "a" * 64):
    body = {"operation": operation, "transfers": ["basic", "multipart"], "objects": [{"oid": oid, "size": size}]}
    return http.post(f"/{repo}.git/info/lfs/objects/batch", json=body, token=token)


def put_path(reply) -> str:
    return reply.json()["objects"][0]["actions"]["upload"]["href"].split("/", 3)[3]


def test_single_and_multipart_through_the_real_client(alice: HfApi, hub: RunningHub, repo: str, tmp_path: Path) -> None:
    folder = tmp_path / "up"
    folder.mkdir()
    (folder / "small.bin").write_bytes(os.urandom(40_000))
    (folder / "parts.safetensors").write_bytes(os.urandom(2 * MIB + 12_345))
    (folder / "words.txt").write_text("regular")
    environment = os.environ | {"HF_HUB_DISABLE_XET": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    before = len(hub.traffic)
    command = [sys.executable, "-c", CLIENT, hub.endpoint, str(alice.token), repo, str(folder)]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    seen = [(item.method, item.path) for item in hub.traffic[before:]]
    assert not [path for _, path in seen if "xet" in path]
    parts = [path for method, path in seen if method == "PUT" and path.rsplit("/", 1)[1] in "12345"]
    assert len(parts) == 5  # 2 MiB and a bit, in parts of half a MiB
    assert [path for method, path in seen if method == "POST" and path.endswith("/complete")]


def test_what_was_uploaded_over_lfs_needs_no_second_upload(alice: HfApi, http, repo: str) -> None:
    data = os.urandom(5000)
    oid = hashlib.sha256(data).hexdigest()
    first = batch(http, repo, alice.token, size=len(data), oid=oid)
    assert http.request("PUT", "/" + put_path(first), content=data).status_code == 200
    verify = f"/{repo}.git/info/lfs/objects/verify"
    assert http.post(verify, json={"oid": oid, "size": len(data)}, token=alice.token).status_code == 200
    assert http.post(verify, json={"oid": oid, "size": 1}, token=alice.token).status_code == 404
    again = batch(http, repo, alice.token, size=len(data), oid=oid).json()["objects"][0]
    assert "actions" not in again
    download = batch(http, repo, alice.token, operation="download", size=len(data), oid=oid).json()["objects"][0]
    href = download["actions"]["download"]["href"].split("/", 3)[3]
    assert http.get("/" + href).content == data


def test_content_that_is_not_the_announced_object_is_refused(alice: HfApi, http, repo: str) -> None:
    data = os.urandom(100)
    oid = hashlib.sha256(data).hexdigest()
    address = "/" + put_path(batch(http, repo, alice.token, size=len(data), oid=oid))
    for body, status in ((data[:-1] + b"?", 422), (data[:-1], 422), (data + b"+", 413)):
        assert http.request("PUT", address, content=body).status_code == status
    assert "actions" in batch(http, repo, alice.token, size=len(data), oid=oid).json()["objects"][0]


def test_a_signed_address_does_one_thing_only(alice: HfApi, http, repo: str) -> None:
    data = b"abc"
    oid = hashlib.sha256(data).hexdigest()
    address = "/" + put_path(batch(http, repo, alice.token, size=3, oid=oid))
    forged = [
        address.replace(oid, hashlib.sha256(b"abd").hexdigest()),
        address.replace("/3?", "/4?"),
        address.split("?")[0],
        address.split("&")[0] + "&signature=" + "0" * 64,
        address.replace("expires=", "expires=9"),
    ]
    for other in forged:
        assert http.request("PUT", other, content=data).status_code == 403, other
    assert http.get(address).status_code == 403


@pytest.mark.parametrize("change", ["missing", "order", "etag", "none"])
def test_parts_are_checked_before_they_are_joined(alice: HfApi, http, repo: str, change: str) -> None:
    data = os.urandom(MIB + 10)
    oid = hashlib.sha256(data).hexdigest()
    action = batch(http, repo, alice.token, size=len(data), oid=oid).json()["objects"][0]["actions"]["upload"]
    size = int(action["header"].pop("chunk_size"))
    parts = []
    for number, href in action["header"].items():
        chunk = data[(int(number) - 1) * size : int(number) * size]
        if change == "missing" and number == "2":
            parts.append({"partNumber": 2, "etag": hashlib.sha256(chunk).hexdigest()})
            continue
        reply = http.request("PUT", "/" + href.split("/", 3)[3], content=chunk)
        parts.append({"partNumber": int(number), "etag": reply.headers["etag"].strip('"')})
    if change == "order":
        parts.reverse()
    elif change == "etag":
        parts[0]["etag"] = "0" * 64
    complete = "/" + action["href"].split("/", 3)[3]
    reply = http.post(complete, json={"oid": oid, "parts": parts})
    assert reply.status_code == (200 if change == "none" else 400), reply.text


def test_rights_and_bad_requests(alice: HfApi, bot: HfApi, http, repo: str) -> None:
    private = alice.create_repo("alice/lfs-private", exist_ok=True, private=True).repo_id
    assert batch(http, private, bot.token).status_code == 404
    assert batch(http, repo, None).status_code == 401
    assert batch(http, repo, bot.token).status_code == 200  # for a pull request
    assert batch(http, repo, alice.token, oid="../../etc/passwd").status_code == 400
    assert batch(http, repo, alice.token, oid="A" * 64).status_code == 400
    assert batch(http, repo, alice.token, size=-1).status_code == 400
    assert batch(http, repo, alice.token, operation="steal").status_code == 400
    too_large = batch(http, repo, alice.token, size=10**15).json()["objects"][0]
    assert too_large["error"]["code"] == 422
    missing = batch(http, repo, None, operation="download").json()["objects"][0]
    assert missing["error"]["code"] == 404
