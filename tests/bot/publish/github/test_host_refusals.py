"""What is not published and why: rights, rules and limits of GitHub, and files or cards that do not do."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.errors import (
    BranchProtected,
    CardInvalid,
    GitHubNotAuthorized,
    GitHubNotFound,
    GitHubRateLimited,
    GitHubUnreachable,
    InvalidInput,
    LargeFileRefused,
    OutputNotTrusted,
    RepositoryReadOnly,
    SourceMoved,
    UnsafeRepository,
)
from exporter.errors import NoGoodCell
from tests.bot import reports
from tests.bot.publish.github.repositories import Repository, repository
from tests.localgithub.testing import RunningGitHub


def test_an_lfs_server_elsewhere_is_told(repo: Repository) -> None:
    repo.there.commit({".lfsconfig": b"[lfs]\n\turl = https://lfs.example/\n"})
    with pytest.raises(LargeFileRefused, match="another server"):
        repo.publish(repo.report())
    assert repo.writes() == []
    repo.there.commit({".lfsconfig": b"[lfs]\n\tfetchexclude = *.bin\n"})
    assert repo.publish(repo.report()).operation == "created"


def test_what_is_not_there_to_be_published(repo: Repository) -> None:
    with pytest.raises(NoGoodCell):
        repo.publish(repo.report([reports.failed()]))
    repo.push({"model.safetensors": b"newer"})
    with pytest.raises(SourceMoved, match=r"model\.safetensors"):
        repo.publish(repo.report())
    with pytest.raises(GitHubNotFound, match="no folder models/nothing"):
        repo.publish(repo.report(), folder="models/nothing")
    with pytest.raises(InvalidInput):
        repo.target(folder="../x")
    with pytest.raises(InvalidInput):
        repo.target(repository="acme")
    assert repo.writes() == []


@pytest.mark.parametrize("card", [b"# T\n```\nnever closed\n", b"# T\n<!-- ptebot:begin -->\n", b"\xff\xfe# T\n"])
def test_a_card_that_cannot_be_edited_opens_nothing(repo: Repository, card: bytes) -> None:
    repo.push({"README.md": card})
    with pytest.raises(CardInvalid):
        repo.publish(repo.report())
    assert repo.writes() == []


def test_a_file_that_is_not_what_the_report_says_is_not_sent(repo: Repository) -> None:
    report = repo.report()
    with pytest.raises(OutputNotTrusted):
        repo.publish(report, {"xnnpack/tiny_xnnpack_8da4w.pte": b"Xnnpack 8da4w program"})
    assert not repo.pulls() and repo.branch not in repo.there.branches()


@pytest.mark.parametrize(
    ("rights", "missing"),
    [
        ({"contents": "read", "pull_requests": "write"}, "contents: write"),
        ({"contents": "write", "pull_requests": "read"}, "pull-requests: write"),
    ],
)
def test_the_missing_right_is_named(repo: Repository, rights: dict[str, str], missing: str) -> None:
    client = repo.client(repo.github.installation_token(repo.there, rights))
    with pytest.raises(GitHubNotAuthorized, match=missing):
        repo.publish(repo.report(), client=client)
    assert repo.pulls() == []


def test_tokens_that_are_none(repo: Repository) -> None:
    with pytest.raises(GitHubNotAuthorized, match="without a token"):
        repo.publish(repo.report(), client=repo.client(None))
    with pytest.raises(GitHubNotAuthorized, match="Bad credentials"):
        repo.publish(repo.report(), client=repo.client("ghs_wrongwrongwrong"))


def test_actions_that_may_not_open_pull_requests(repo: Repository) -> None:
    repo.there.repo.actions_may_open_pulls = False
    with pytest.raises(GitHubNotAuthorized) as caught:
        repo.publish(repo.report())
    assert "Actions, General" in (caught.value.advice or "")
    repo.there.repo.actions_may_open_pulls = True
    left = repo.there.head(repo.branch)
    repo.github.clear()
    assert repo.publish(repo.report()).operation == "created"
    assert repo.there.head(repo.branch) == left, "the branch that was left is used"
    assert repo.writes() == ["POST /pulls"]


@pytest.mark.parametrize("rule", ["creation", "update"])
def test_a_protected_branch(repo: Repository, rule: str) -> None:
    if rule == "update":
        repo.publish(repo.report())
    repo.there.protect("ptebot/*", rule)
    with pytest.raises(BranchProtected):
        repo.publish(repo.report([reports.cell("portable")]))


def test_an_archived_repository(repo: Repository) -> None:
    repo.there.repo.archived = True
    with pytest.raises(RepositoryReadOnly):
        repo.publish(repo.report())


def test_a_repository_that_is_gone(repo: Repository) -> None:
    with pytest.raises(GitHubNotFound):
        repo.publish(repo.report(), repository="acme/nothing-here")


def test_a_limit_that_is_far_is_told(repo: Repository) -> None:
    repo.github.primary_limit(r"/git/trees$", 1800, method="POST")
    with pytest.raises(GitHubRateLimited, match="UTC"):
        repo.publish(repo.report())
    assert repo.publish(repo.report()).operation == "created"


def test_a_limit_that_is_near_is_waited_for(repo: Repository) -> None:
    repo.github.secondary_limit(r"/pulls$", 0, method="POST")
    assert repo.publish(repo.report()).operation == "created"
    assert repo.pulls() == [(1, "open")]


def test_a_file_beyond_the_plans_limit(repo: Repository) -> None:
    repo.there.repo.lfs.max_file = 20
    with pytest.raises(LargeFileRefused, match=r"tiny_portable_fp32\.pte \(21 bytes\).*limit is 20 bytes") as caught:
        repo.publish(repo.report())
    assert "storage: release" in (caught.value.advice or "")
    assert repo.pulls() == [] and repo.branch not in repo.there.branches()


@pytest.mark.parametrize("status", [403, 507, 422])
def test_a_full_storage(repo: Repository, status: int) -> None:
    repo.there.repo.lfs.quota, repo.there.repo.lfs.quota_status = 30, status
    with pytest.raises(LargeFileRefused, match="budget"):
        repo.publish(repo.report())


def test_things_that_are_no_folders_and_no_files(github: RunningGitHub, tmp_path: Path) -> None:
    repo = repository(github, tmp_path)
    repo.push({"executorch": b"a file"})
    with pytest.raises(UnsafeRepository, match="no folder"):
        repo.publish(repo.report())


def test_a_github_that_is_away(repo: Repository) -> None:
    repo.github.fail(rf"/repos/{repo.there.full_name}$", 503, times=50)
    with pytest.raises(GitHubUnreachable, match="503"):
        repo.publish(repo.report())
