"""Pull requests from their opening to their end."""

from __future__ import annotations

import pytest
from github import GithubException
from github.Repository import Repository

from tests.localgithub.clients import client
from tests.localgithub.testing import LocalRepo, RunningGitHub


@pytest.fixture
def local(github: RunningGitHub, request: pytest.FixtureRequest) -> LocalRepo:
    made = github.create_repo("acme", request.node.name.replace("[", "-").rstrip("]"))
    made.commit({"a.txt": b"1\n"}, branch="ptebot/x")
    return made


def opened(repo: Repository, head: str = "ptebot/x") -> int:
    return repo.create_pull(base="main", head=head, title="T", body="B").number


def refusal(caught: pytest.ExceptionInfo[GithubException]) -> str:
    data = caught.value.data
    assert isinstance(data, dict)
    return str(data["errors"][0].get("message") or data["errors"][0]["code"])


def test_one_is_opened_found_edited_and_merged(local: LocalRepo, repo: Repository) -> None:
    number = opened(repo)
    assert [one.number for one in repo.get_pulls(state="open", head="acme:ptebot/x")] == [number]
    assert list(repo.get_pulls(head="acme:other")) == []
    assert [one.number for one in repo.get_pulls(head="other")] == [number]  # no owner: GitHub ignores the filter
    pull = repo.get_pull(number)
    assert (pull.mergeable, pull.mergeable_state, pull.commits, pull.changed_files) == (True, "clean", 1, 1)
    assert [one.filename for one in pull.get_files()] == ["a.txt"]
    pull.edit(title="T2", body="B2")
    second = local.commit({"b.txt": b"2\n"}, branch="ptebot/x")
    again = repo.get_pull(number)
    assert (again.title, again.body, again.head.sha, again.commits) == ("T2", "B2", second, 2)
    assert [one.number for one in repo.get_commit(second).get_pulls()] == [number]
    assert repo.get_git_ref(f"pull/{number}/merge").object.sha == again.merge_commit_sha
    merged = again.merge(sha=second)
    assert merged.merged
    assert [one.number for one in repo.get_commit(merged.sha).get_pulls()] == [number]
    done = repo.get_pull(number)
    assert (done.merged, done.state, done.merged_by.login) == (True, "closed", "github-actions[bot]")
    assert done.is_merged()
    assert set(local.files()) == {"README.md", "a.txt", "b.txt"}
    assert list(repo.get_pulls()) == []


def test_there_is_one_of_a_kind(repo: Repository) -> None:
    opened(repo)
    with pytest.raises(GithubException, match="Validation Failed") as caught:
        opened(repo)
    assert caught.value.status == 422
    assert refusal(caught) == "A pull request already exists for acme:ptebot/x."


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"head": "absent"}, "invalid"),
        ({"base": "absent"}, "invalid"),
        ({"head": "main"}, "No commits between main and main"),
        ({"title": ""}, "missing_field"),
        ({"title": "x" * 257}, "title is too long (maximum is 256 characters)"),
        ({"body": "x" * 65_537}, "body is too long (maximum is 65536 characters)"),
    ],
)
def test_one_that_cannot_be(repo: Repository, arguments: dict[str, str], words: str) -> None:
    with pytest.raises(GithubException) as caught:
        repo.create_pull(**{"base": "main", "head": "ptebot/x", "title": "T", "body": "B", **arguments})  # type: ignore[arg-type]
    assert caught.value.status == 422
    assert refusal(caught) == words
    repo.create_pull(base="main", head="ptebot/x", title="x" * 256, body="x" * 65_536)


def test_whether_it_can_be_merged_is_known_later(local: LocalRepo, repo: Repository) -> None:
    local.repo.mergeable_after = 2
    number = opened(repo)
    assert [repo.get_pull(number).mergeable for _ in range(3)] == [None, True, True]
    local.commit({"b": b""})
    assert [repo.get_pull(number).mergeable for _ in range(3)] == [None, None, True]


def test_a_conflict(local: LocalRepo, repo: Repository) -> None:
    number = opened(repo)
    local.commit({"a.txt": b"other\n"})
    pull = repo.get_pull(number)
    assert (pull.mergeable, pull.mergeable_state) == (False, "dirty")
    with pytest.raises(GithubException, match="not mergeable") as caught:
        pull.merge()
    assert caught.value.status == 405


def test_a_moved_head_is_not_merged_by_an_old_name(local: LocalRepo, repo: Repository) -> None:
    pull = repo.get_pull(opened(repo))
    old = pull.head.sha
    local.commit({"b": b""}, branch="ptebot/x")
    with pytest.raises(GithubException, match="Head branch was modified"):
        pull.merge(sha=old)


def test_closed_and_opened_again(local: LocalRepo, repo: Repository) -> None:
    pull = repo.get_pull(opened(repo))
    pull.edit(state="closed")
    assert repo.get_pull(pull.number).state == "closed"
    pull.edit(state="open")
    assert repo.get_pull(pull.number).state == "open"
    pull.edit(state="closed")
    local.commit({"c": b""}, branch="ptebot/x", parent=local.head())
    with pytest.raises(GithubException) as caught:
        pull.edit(state="open")
    assert refusal(caught) == "state cannot be changed. The ptebot/x branch was force-pushed or recreated."
    second = opened(repo)
    assert second == pull.number + 1
    with pytest.raises(GithubException) as caught:
        pull.edit(state="open")
    assert "already an open pull request" in refusal(caught)


def test_without_its_branch_it_is_closed(local: LocalRepo, repo: Repository) -> None:
    pull = repo.get_pull(opened(repo))
    repo.get_git_ref("heads/ptebot/x").delete()
    assert repo.get_pull(pull.number).state == "closed"
    with pytest.raises(GithubException) as caught:
        pull.edit(state="open")
    assert "has been deleted" in refusal(caught)


def test_the_branch_goes_when_the_repository_wants_it(local: LocalRepo, repo: Repository) -> None:
    local.repo.delete_branch_on_merge = True
    repo.get_pull(opened(repo)).merge(merge_method="squash")
    assert local.branches() == ["main"]
    assert local.log()[0].startswith("T (#1)")


def test_merged_by_hand_is_merged(local: LocalRepo, repo: Repository) -> None:
    number = opened(repo)
    ref = repo.get_git_ref("heads/main")
    ref.edit(local.head("ptebot/x") or "")
    assert repo.get_pull(number).merged


def test_from_a_fork(github: RunningGitHub, local: LocalRepo) -> None:
    fork = github.fork(local, "eve")
    fork.commit({"eve.txt": b"hi"}, branch="idea")
    repo = client(github, github.create_user("eve")).get_repo(local.full_name)
    pull = repo.create_pull(base="main", head="eve:idea", title="Mine")
    assert (pull.head.repo.full_name, pull.head.label, pull.changed_files) == (fork.full_name, "eve:idea", 1)
    moved = fork.commit({"eve.txt": b"ho"}, branch="idea")
    assert repo.get_pull(pull.number).head.sha == moved
    with pytest.raises(GithubException):  # she may not push ptebot's branch
        repo.create_pull(base="main", head="ptebot/x", title="Not mine")


def test_the_setting_that_keeps_jobs_from_opening_any(
    github: RunningGitHub, local: LocalRepo, repo: Repository
) -> None:
    local.repo.actions_may_open_pulls = False
    with pytest.raises(GithubException, match="GitHub Actions is not permitted to create") as caught:
        opened(repo)
    assert caught.value.status == 403
    opened(client(github, github.create_user("acme")).get_repo(local.full_name))
