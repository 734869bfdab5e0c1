"""Check runs and commit statuses."""

from __future__ import annotations

import pytest
from github import GithubException
from github.Repository import Repository

from tests.localgithub.clients import client
from tests.localgithub.testing import LocalRepo, RunningGitHub


def test_a_check_run_from_start_to_end(local: LocalRepo, repo: Repository) -> None:
    sha = local.head() or ""
    made = repo.create_check_run("ptebot", sha, status="in_progress", output={"title": "Working", "summary": "soon"})
    assert (made.status, made.conclusion, made.completed_at) == ("in_progress", None, None)
    note = {"path": "a.txt", "start_line": 1, "end_line": 1, "annotation_level": "failure", "message": "m"}
    made.edit(conclusion="neutral", output={"title": "Done", "summary": "all", "annotations": [note]})
    found = repo.get_check_run(made.id)
    assert (found.status, found.conclusion, found.output.title) == ("completed", "neutral", "Done")
    assert found.output.annotations_count == 1
    assert [one.message for one in found.get_annotations()] == ["m"]
    assert [one.id for one in repo.get_commit(sha).get_check_runs(check_name="ptebot")] == [made.id]
    assert [one.id for one in repo.get_commit("main").get_check_runs(check_name="other")] == []


def test_only_apps_write_check_runs(github: RunningGitHub, local: LocalRepo, repo: Repository) -> None:
    sha = local.head() or ""
    owner = client(github, github.create_user("acme")).get_repo(local.full_name)
    with pytest.raises(GithubException, match="You must authenticate via a GitHub App") as caught:
        owner.create_check_run("ptebot", sha)
    assert caught.value.status == 403
    made = repo.create_check_run("ptebot", sha)
    other = client(github, github.installation_token(local, login="other-app[bot]")).get_repo(local.full_name)
    with pytest.raises(GithubException, match="created it"):
        other.get_check_run(made.id).edit(status="in_progress")


@pytest.mark.parametrize(
    "arguments",
    [
        {"output": {"title": "t", "summary": "x" * 65_536}},
        {"output": {"title": "t"}},
        {"status": "done"},
        {"conclusion": "good"},
        {"status": "completed"},
        {"head_sha": "0" * 40},
        {"output": {"title": "t", "summary": "s", "annotations": [{"path": "a"}] * 51}},
    ],
)
def test_a_check_run_that_cannot_be(local: LocalRepo, repo: Repository, arguments: dict[str, object]) -> None:
    with pytest.raises(GithubException) as caught:
        repo.create_check_run(**{"name": "ptebot", "head_sha": local.head(), **arguments})  # type: ignore[arg-type]
    assert caught.value.status == 422
    assert local.repo.check_runs == {}


def test_statuses(local: LocalRepo, repo: Repository) -> None:
    commit = repo.get_commit(local.head() or "")
    commit.create_status("pending", description="x" * 140, context="ptebot")
    commit.create_status("success", target_url="https://example.invalid", context="ptebot")
    assert [one.state for one in commit.get_statuses()] == ["success", "pending"]
    assert commit.get_combined_status().state == "success"
    for arguments in (
        {"description": "x" * 141}, {"state": "fine"}, {"target_url": "ftp://example.invalid"},
    ):  # fmt: skip
        with pytest.raises(GithubException) as caught:
            commit.create_status(**{"state": "success", **arguments})
        assert caught.value.status == 422
