"""Comments, reactions, locks, pages of lists."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from github import GithubException, UnknownObjectException
from github.Repository import Repository

from tests.localgithub.clients import client
from tests.localgithub.testing import LocalRepo, RunningGitHub


def test_a_comment_is_written_edited_found_and_removed(local: LocalRepo, repo: Repository) -> None:
    number = local.open_issue("eve", "Please", "export")
    issue = repo.get_issue(number)
    assert (issue.title, issue.body, issue.user.login, issue.pull_request) == ("Please", "export", "eve", None)
    first = local.add_comment(number, "eve", "/ptebot export")
    comment = issue.create_comment("working")
    comment.edit("done <!-- ptebot -->")
    assert [(one.id, one.body) for one in issue.get_comments()] == [
        (first, "/ptebot export"), (comment.id, "done <!-- ptebot -->"),
    ]  # fmt: skip
    assert issue.get_comment(first).user.login == "eve"
    soon = datetime.now(UTC) + timedelta(hours=1)
    assert list(issue.get_comments(since=soon)) == []
    assert len(list(issue.get_comments(since=soon - timedelta(hours=2)))) == 2
    comment.delete()
    with pytest.raises(UnknownObjectException):
        issue.get_comment(comment.id)
    with pytest.raises(UnknownObjectException):
        repo.get_issue(99)


def test_sizes(local: LocalRepo, repo: Repository) -> None:
    issue = repo.get_issue(local.open_issue("eve"))
    comment = issue.create_comment("é" * 65_536)
    for change in (lambda: issue.create_comment("x" * 65_537), lambda: comment.edit("x" * 65_537)):
        with pytest.raises(GithubException, match="Validation Failed") as caught:
            change()
        assert caught.value.data["errors"][0]["message"] == "body is too long (maximum is 65536 characters)"
    with pytest.raises(GithubException):
        issue.create_comment("")
    with pytest.raises(GithubException):
        repo.create_issue("x" * 257)


def test_a_reaction_is_there_once_per_person(github: RunningGitHub, local: LocalRepo, repo: Repository) -> None:
    number = local.open_issue("eve")
    comment = repo.get_issue(number).get_comment(local.add_comment(number, "eve", "/ptebot help"))
    one, again = comment.create_reaction("eyes"), comment.create_reaction("eyes")
    assert one.id == again.id
    assert [entry.status for entry in github.api_requests("POST", "/reactions$")] == [201, 200]
    comment.create_reaction("rocket")
    eve = client(github, github.create_user("eve")).get_repo(local.full_name)
    theirs = eve.get_issue(number).get_comment(comment.id)
    theirs.create_reaction("eyes")
    assert local.reactions("comment", comment.id) == [
        ("github-actions[bot]", "eyes"), ("github-actions[bot]", "rocket"), ("eve", "eyes"),
    ]  # fmt: skip
    assert not theirs.delete_reaction(one.id)
    assert comment.delete_reaction(one.id)
    assert [(one.user.login, one.content) for one in comment.get_reactions()] == [
        ("github-actions[bot]", "rocket"), ("eve", "eyes"),
    ]  # fmt: skip
    with pytest.raises(GithubException) as caught:
        comment.create_reaction("shrug")
    assert caught.value.status == 422
    repo.get_issue(number).create_reaction("+1")
    assert local.reactions("issue", number) == [("github-actions[bot]", "+1")]
    assert repo.get_issue(number).get_comment(comment.id).reactions["total_count"] == 2


def test_a_locked_thread(github: RunningGitHub, local: LocalRepo) -> None:
    number = local.open_issue("eve")
    local.lock(number, "too heated")
    issue = client(github, github.create_user("eve")).get_repo(local.full_name).get_issue(number)
    assert (issue.locked, issue.active_lock_reason) == (True, "too heated")
    with pytest.raises(GithubException, match="issue is locked"):
        issue.create_comment("but")
    with pytest.raises(GithubException, match="locked"):
        issue.create_reaction("-1")
    job = client(github, github.installation_token(local)).get_repo(local.full_name).get_issue(number)
    with pytest.raises(GithubException, match="issue is locked"):
        job.create_comment("nor may an App")
    local.set_role("eve", "write")
    issue.create_comment("now I may")
    issue.unlock()
    assert not local.repo.issues[number].locked


def test_comments_of_others_are_theirs(github: RunningGitHub, local: LocalRepo, repo: Repository) -> None:
    number = local.open_issue("acme")
    ours = repo.get_issue(number).create_comment("ours")
    theirs = client(github, github.create_user("eve")).get_repo(local.full_name).get_issue(number).get_comment(ours.id)
    with pytest.raises(GithubException) as caught:
        theirs.edit("theirs")
    assert caught.value.status == 403
    assert local.comments(number)[0].body == "ours"


def test_pull_requests_are_issues_too(local: LocalRepo, repo: Repository) -> None:
    local.commit({"a": b""}, branch="x")
    first = local.open_issue("eve")
    pull = repo.create_pull(base="main", head="x", title="T")
    assert pull.number == first + 1
    assert repo.get_issue(pull.number).pull_request is not None
    pull.create_issue_comment("hello")
    assert [one.body for one in repo.get_pull(pull.number).get_issue_comments()] == ["hello"]
    with pytest.raises(UnknownObjectException):
        repo.get_pull(first)


def test_lists_come_in_pages(github: RunningGitHub, local: LocalRepo, repo: Repository) -> None:
    number = local.open_issue("eve")
    wanted = [local.add_comment(number, "eve", str(index)) for index in range(65)]
    assert [one.id for one in repo.get_issue(number).get_comments()] == wanted
    pages = github.api_requests("GET", f"/issues/{number}/comments$")
    assert [dict(one.query).get("page", "1") for one in pages] == ["1", "2", "3"]
    assert 'rel="next"' in pages[0].response_headers["link"]
    assert 'rel="next"' not in pages[-1].response_headers["link"]


def test_comments_on_commits(local: LocalRepo, repo: Repository) -> None:
    sha = local.head() or ""
    made = repo.get_commit(sha).create_comment("see #1")
    made.edit("see #2")
    assert [one.body for one in repo.get_commit(sha).get_comments()] == ["see #2"]
    assert local.commit_comments(sha)[0].author.login == "github-actions[bot]"
    made.delete()
    assert local.commit_comments(sha) == []
