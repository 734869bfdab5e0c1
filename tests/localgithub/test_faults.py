"""What goes wrong on demand: refused before the work, lost after it, limited, slow, overtaken."""

from __future__ import annotations

import time

import pytest
import requests
from github import GithubException, RateLimitExceededException
from github.Repository import Repository

from tests.localgithub.testing import LocalRepo, RunningGitHub


def test_a_refusal_comes_before_the_work(github: RunningGitHub, local: LocalRepo, repo: Repository) -> None:
    fault = github.fail("/issues$", 502, method="POST", skip=1, times=2)
    repo.create_issue("one")
    for _ in range(2):
        with pytest.raises(GithubException) as caught:
            repo.create_issue("two")
        assert caught.value.status == 502
    repo.create_issue("three")
    assert [one.title for one in local.repo.issues.values()] == ["one", "three"]
    assert fault.hits == 2


def test_a_lost_reply_leaves_the_work_done(github: RunningGitHub, local: LocalRepo, repo: Repository) -> None:
    github.fail("/issues$", "drop", method="POST")
    with pytest.raises(requests.ConnectionError):
        repo.create_issue("done")
    github.fail("/issues$", "drop_before", method="POST")
    with pytest.raises(requests.ConnectionError):
        repo.create_issue("not done")
    assert [one.title for one in local.repo.issues.values()] == ["done"]
    assert [one.status for one in github.api_requests("POST", "/issues$")] == [201, 0]


def test_limits(github: RunningGitHub, repo: Repository) -> None:
    github.secondary_limit("/issues$", 3, method="POST")
    with pytest.raises(RateLimitExceededException, match="secondary") as caught:
        repo.create_issue("x")
    assert (caught.value.headers or {})["retry-after"] == "3"
    github.secondary_limit("/issues$", method="POST")
    with pytest.raises(RateLimitExceededException) as caught:
        repo.create_issue("x")
    assert "retry-after" not in (caught.value.headers or {})
    github.primary_limit("/issues$", 90, method="POST")
    with pytest.raises(RateLimitExceededException, match="API rate limit exceeded") as caught:
        repo.create_issue("x")
    headers = caught.value.headers or {}
    assert headers["x-ratelimit-remaining"] == "0"
    assert 80 < int(headers["x-ratelimit-reset"]) - time.time() < 95
    github.primary_limit("/issues$", 90, status=429, method="POST")
    with pytest.raises(GithubException) as other:
        repo.create_issue("x")
    assert other.value.status == 429
    repo.create_issue("x")


def test_slow_and_overtaken(github: RunningGitHub, local: LocalRepo, repo: Repository) -> None:
    github.slow("/git/blobs$", 0.3)
    before = time.monotonic()
    repo.create_git_blob("x", "utf-8")
    assert time.monotonic() - before > 0.29
    github.meanwhile("/git/refs/heads/main$", lambda: local.commit({"b": b""}), method="PATCH")
    ref = repo.get_git_ref("heads/main")
    commit = repo.create_git_commit("x", repo.get_git_tree("main"), [repo.get_git_commit(ref.object.sha)])
    with pytest.raises(GithubException, match="not a fast forward"):
        ref.edit(commit.sha)
