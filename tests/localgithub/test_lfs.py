"""Large files: what the batch API answers, what the storage takes, and what git-lfs makes of it."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.localgithub.cloning import clone
from tests.localgithub.testing import LocalRepo, RunningGitHub

KIND = "application/vnd.git-lfs+json"
DATA = b"\x00ET12" * 5000
OID = hashlib.sha256(DATA).hexdigest()
ATTRIBUTES = b"*.pte filter=lfs diff=lfs merge=lfs -text\n"


def batch(
    github: RunningGitHub, repo: str, token: str, operation: str = "upload", oid: str = OID, size: int = len(DATA)
) -> requests.Response:  # fmt: skip
    body: dict[str, Any] = {"operation": operation, "transfers": ["basic"], "objects": [{"oid": oid, "size": size}]}
    auth = ("x-access-token", token) if token else None
    address = f"{github.server_url}/{repo}.git/info/lfs/objects/batch"
    return requests.post(address, json=body, headers={"Content-Type": KIND, "Accept": KIND}, auth=auth, timeout=10)


def upload(actions: dict[str, Any], data: bytes = DATA, **headers: str) -> requests.Response:
    given = {**actions["upload"]["header"], **headers}
    return requests.put(actions["upload"]["href"], data=data, headers=given, timeout=10)


def pointer() -> bytes:
    return f"version https://git-lfs.github.com/spec/v1\noid sha256:{OID}\nsize {len(DATA)}\n".encode()


def test_what_is_uploaded_is_pulled(github: RunningGitHub, local: LocalRepo, tmp_path: Path) -> None:
    token = github.installation_token(local, {"contents": "write"})
    reply = batch(github, local.full_name, token)
    assert reply.headers["content-type"] == KIND
    actions = reply.json()["objects"][0]["actions"]
    assert upload(actions).status_code == 200
    verify = actions["verify"]
    headers = {**verify["header"], "Content-Type": KIND}
    checked = requests.post(verify["href"], json={"oid": OID, "size": len(DATA)}, headers=headers, timeout=10)
    assert checked.status_code == 200
    assert "actions" not in batch(github, local.full_name, token).json()["objects"][0]
    local.commit({".gitattributes": ATTRIBUTES, "model.pte": pointer()}, branch="ptebot/x")
    assert local.read("model.pte", "ptebot/x") == DATA
    folder = clone(local, tmp_path / "clone", branch="ptebot/x")
    assert (folder / "model.pte").read_bytes() == DATA


def test_a_private_repository_is_cloned_with_a_token_only(github: RunningGitHub, tmp_path: Path) -> None:
    local = github.create_repo("acme", "hidden", {".gitattributes": ATTRIBUTES}, private=True)
    token = github.installation_token(local, {"contents": "write"})
    upload(batch(github, local.full_name, token).json()["objects"][0]["actions"])
    local.commit({"model.pte": pointer()})
    reader = github.installation_token(local, {"contents": "read"})
    folder = clone(local, tmp_path / "clone", token=reader)
    assert (folder / "model.pte").read_bytes() == DATA
    with pytest.raises(subprocess.CalledProcessError):
        clone(local, tmp_path / "without")
    assert batch(github, local.full_name, "", "download").status_code == 404


def test_a_pointer_to_nothing_is_noticed(github: RunningGitHub, local: LocalRepo, tmp_path: Path) -> None:
    local.commit({".gitattributes": ATTRIBUTES, "model.pte": pointer()})
    with pytest.raises(FileNotFoundError):
        local.read("model.pte")
    with pytest.raises(subprocess.CalledProcessError) as caught:
        clone(local, tmp_path / "clone")
    assert "does not exist on the server" in caught.value.stderr


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({"data": DATA[:-1]}, 400),  # shorter than announced
        ({"data": DATA[:-1] + b"x"}, 400),  # other bytes
        ({"Authorization": "Basic eDp5"}, 400),  # the client's own login beside the storage's
        ({"x-amz-content-sha256": "0" * 64}, 403),
        ({"x-amz-size": str(len(DATA) + 1)}, 400),
    ],
)
def test_the_storage_takes_only_what_was_announced(
    github: RunningGitHub, local: LocalRepo, change: dict[str, Any], status: int
) -> None:  # fmt: skip
    token = github.installation_token(local)
    actions = batch(github, local.full_name, token).json()["objects"][0]["actions"]
    assert upload(actions, **change).status_code == status
    assert "actions" in batch(github, local.full_name, token).json()["objects"][0]
    headers = {**actions["verify"]["header"], "Content-Type": KIND}
    checked = requests.post(
        actions["verify"]["href"], json={"oid": OID, "size": len(DATA)}, headers=headers, timeout=10
    )
    assert checked.status_code == 404


def test_a_stream_without_length_is_refused(github: RunningGitHub, local: LocalRepo) -> None:
    actions = batch(github, local.full_name, github.installation_token(local)).json()["objects"][0]["actions"]
    reply = requests.put(
        actions["upload"]["href"], data=iter([DATA]), headers=actions["upload"]["header"], timeout=10
    )  # fmt: skip
    assert reply.status_code == 411


def test_the_plans_limits(github: RunningGitHub, local: LocalRepo) -> None:
    token = github.installation_token(local)
    local.repo.lfs.max_file = len(DATA) - 1
    found = batch(github, local.full_name, token).json()["objects"][0]
    assert found["error"] == {"code": 422, "message": f"Size must be less than or equal to {len(DATA) - 1}"}
    local.repo.lfs.max_file = len(DATA)
    local.repo.lfs.quota = len(DATA) - 1
    refused = batch(github, local.full_name, token)
    assert (refused.status_code, "LFS budget" in refused.json()["message"]) == (403, True)
    local.repo.lfs.quota = len(DATA)
    assert "actions" in batch(github, local.full_name, token).json()["objects"][0]
    local.repo.lfs.enabled = False
    assert batch(github, local.full_name, token).status_code == 403


def test_who_may_upload(github: RunningGitHub, local: LocalRepo) -> None:
    name = local.full_name
    assert batch(github, name, "").status_code == 401
    assert batch(github, name, "ghs_wrong").status_code == 401
    assert batch(github, name, github.fork_token(local)).status_code == 403
    assert batch(github, name, github.create_user("eve")).status_code == 403
    assert batch(github, name, github.installation_token(github.create_repo("acme", "else"))).status_code == 403
    assert batch(github, name, github.create_user("acme")).status_code == 200
    local.repo.archived = True
    assert batch(github, name, github.create_user("acme")).status_code == 403


def test_objects_that_cannot_be(github: RunningGitHub, local: LocalRepo) -> None:
    token = github.installation_token(local)
    assert batch(github, local.full_name, token, oid="abc").json()["objects"][0]["error"]["code"] == 422
    assert batch(github, local.full_name, token, "download").json()["objects"][0]["error"]["code"] == 404
    assert batch(github, local.full_name, token, "move").status_code == 422
