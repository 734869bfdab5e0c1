"""Releases and their files."""

from __future__ import annotations

import hashlib
import io
from pathlib import Path

import pytest
from github import GithubException, UnknownObjectException
from github.Repository import Repository

from tests.localgithub.clients import client
from tests.localgithub.testing import LocalRepo, RunningGitHub


def test_a_draft_is_filled_and_published(
    github: RunningGitHub, local: LocalRepo, repo: Repository, tmp_path: Path
) -> None:
    made = repo.create_git_release("ptebot-1", "Files", "Body", draft=True)
    assert "refs/tags/ptebot-1" not in local.repo.git.references
    with pytest.raises(UnknownObjectException):
        repo.get_release("ptebot-1")  # by its tag a draft is not found
    assert [one.id for one in repo.get_releases()] == [made.id]
    assert list(client(github).get_repo(local.full_name).get_releases()) == []
    path = tmp_path / "model.pte"
    path.write_bytes(b"\x00pte" * 1000)
    asset = made.upload_asset(str(path), name="model xnnpack/8da4w.pte", content_type="application/octet-stream")
    assert asset.name == "model.xnnpack.8da4w.pte"
    assert asset.digest == f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert github.api_requests("POST", "^/api/uploads/")[0].size == 4000
    published = made.update_release("Files", "Body 2", draft=False)
    assert (published.draft, published.body) == (False, "Body 2")
    assert repo.get_release("ptebot-1").id == made.id
    assert str(local.repo.git.references["refs/tags/ptebot-1"].target) == local.head()
    target = tmp_path / "back"
    asset.download_asset(str(target), chunk_size=4096)
    assert target.read_bytes() == path.read_bytes()
    assert [one.name for one in published.get_assets()] == [asset.name]


def test_files_and_tags_are_there_once(repo: Repository) -> None:
    made = repo.create_git_release("v1", "v1", "")
    made.upload_asset_from_memory(io.BytesIO(b"abc"), 3, "a.pte")
    with pytest.raises(GithubException) as caught:
        made.upload_asset_from_memory(io.BytesIO(b"abcd"), 4, "a.pte")
    assert caught.value.status == 422
    assert caught.value.data["errors"][0]["code"] == "already_exists"
    with pytest.raises(GithubException) as caught:
        repo.create_git_release("v1", "again", "")
    assert caught.value.data["errors"][0]["field"] == "tag_name"
    next(iter(made.get_assets())).delete_asset()
    made.upload_asset_from_memory(io.BytesIO(b"abcd"), 4, "a.pte")
    assert repo.get_latest_release().id == made.id
    made.delete_release()
    assert list(repo.get_releases()) == []


def test_an_upload_that_was_broken_off_keeps_its_name(local: LocalRepo, repo: Repository) -> None:
    made = repo.create_git_release("v1", "v1", "")
    local.break_off_upload("v1", "a.pte")
    (left,) = made.get_assets()
    assert (left.state, left.size, left.digest) == ("starter", 0, None)
    with pytest.raises(GithubException):
        made.upload_asset_from_memory(io.BytesIO(b"abc"), 3, "a.pte")
    left.delete_asset()
    made.upload_asset_from_memory(io.BytesIO(b"abc"), 3, "a.pte")


def test_a_protected_tag(local: LocalRepo, repo: Repository) -> None:
    local.protect("ptebot-*", "creation", tags=True)
    with pytest.raises(GithubException) as caught:
        repo.create_git_release("ptebot-1", "Files", "")
    assert "pre_receive Repository rule violations found" in caught.value.data["errors"][0]["message"]
    assert list(repo.get_releases()) == []
    repo.create_git_release("ptebot-1", "Files", "", draft=True)


def test_who_may_not(github: RunningGitHub, local: LocalRepo) -> None:
    reader = client(github, github.fork_token(local)).get_repo(local.full_name)
    with pytest.raises(GithubException, match="not accessible by integration"):
        reader.create_git_release("v1", "v1", "")
    with pytest.raises(GithubException) as caught:
        client(github, github.installation_token(local)).get_repo(local.full_name).create_git_release(
            "v1", "v1", "", target_commitish="absent"
        )
    assert caught.value.status == 422
