"""Who may do what: people, fine-grained tokens, the tokens of jobs; private, renamed and archived repositories."""

from __future__ import annotations

import pytest
from github import GithubException, UnknownObjectException

from tests.localgithub.clients import client
from tests.localgithub.testing import LocalRepo, RunningGitHub


def test_people(github: RunningGitHub, local: LocalRepo) -> None:
    stranger = client(github, github.create_user("eve"))
    assert stranger.get_user().login == "eve"
    repo = stranger.get_repo(local.full_name)
    assert (repo.permissions.pull, repo.permissions.push) == (True, False)
    with pytest.raises(UnknownObjectException):  # a classic token is not told that the thing exists
        repo.create_git_ref("refs/heads/x", local.head() or "")
    with pytest.raises(GithubException, match="Must have push access") as caught:
        repo.get_collaborator_permission("acme")
    assert caught.value.status == 403
    repo.create_issue("Anybody may ask")
    local.set_role("eve", "maintain")
    repo = stranger.get_repo(local.full_name)
    repo.create_git_ref("refs/heads/x", local.head() or "")
    assert [repo.get_collaborator_permission(name) for name in ("acme", "eve")] == ["admin", "write"]
    assert repo.get_collaborator_role_name("eve") == "maintain"
    github.create_user("mallory")
    assert repo.get_collaborator_permission("mallory") == "read"
    with pytest.raises(GithubException, match="nobody is not a user") as caught:
        repo.get_collaborator_permission("nobody")
    assert caught.value.status == 404


def test_a_job_may_what_its_permissions_say(github: RunningGitHub, local: LocalRepo) -> None:
    token = github.installation_token(local, {"contents": "write", "pull_requests": "read"})
    repo = client(github, token).get_repo(local.full_name)
    repo.create_git_ref("refs/heads/x", local.head() or "")
    local.commit({"a": b""}, branch="x")
    number = local.open_issue("eve")
    calls = {
        "pull_requests=write": lambda: repo.create_pull(base="main", head="x", title="T"),
        "issues=write; pull_requests=write": lambda: repo.get_issue(number).create_comment("hi"),
        "checks=write": lambda: repo.create_check_run("ptebot", local.head() or ""),
        "statuses=write": lambda: repo.get_commit("main").create_status("success"),
    }
    for needed, call in calls.items():
        with pytest.raises(GithubException, match="Resource not accessible by integration") as caught:
            call()
        assert caught.value.status == 403
        assert (caught.value.headers or {})["x-accepted-github-permissions"] == needed
    with pytest.raises(GithubException, match="not accessible by integration"):
        client(github, token).get_user().login  # noqa: B018
    assert repo.get_collaborator_permission("acme") == "admin"


def test_the_right_for_pull_requests_is_none_for_issues(github: RunningGitHub, local: LocalRepo) -> None:
    local.commit({"a": b""}, branch="x")
    token = github.installation_token(local, {"pull_requests": "write"})
    repo = client(github, token).get_repo(local.full_name)
    pull = repo.create_pull(base="main", head="x", title="T")
    pull.create_issue_comment("on a pull request")
    issue = repo.get_issue(local.open_issue("eve"))
    with pytest.raises(GithubException, match="not accessible"):
        issue.create_comment("on an issue")
    with pytest.raises(GithubException, match="not accessible"):
        issue.create_reaction("eyes")


def test_a_forks_job_only_reads(github: RunningGitHub, local: LocalRepo) -> None:
    repo = client(github, github.fork_token(local)).get_repo(local.full_name)
    assert repo.default_branch == "main"
    with pytest.raises(GithubException, match="not accessible by integration"):
        repo.create_git_blob("x", "utf-8")


def test_a_jobs_token_ends_at_its_repository(github: RunningGitHub, local: LocalRepo) -> None:
    other = github.create_repo("acme", "other-public")
    hidden = github.create_repo("acme", "other-private", private=True)
    gh = client(github, github.installation_token(local))
    with pytest.raises(GithubException, match="not accessible by integration"):
        gh.get_repo(other.full_name).create_issue("x")
    with pytest.raises(UnknownObjectException):
        gh.get_repo(hidden.full_name)


def test_fine_grained_tokens(github: RunningGitHub, local: LocalRepo) -> None:
    token = github.fine_grained_token("acme", {"contents": "write"}, local)
    repo = client(github, token).get_repo(local.full_name)
    repo.create_git_blob("x", "utf-8")
    with pytest.raises(GithubException, match="not accessible by personal access token"):
        repo.create_issue("x")
    eve = client(github, github.fine_grained_token("eve", {"contents": "write"})).get_repo(local.full_name)
    with pytest.raises(GithubException, match="not accessible by personal access token"):
        eve.create_git_blob("x", "utf-8")


def test_no_token_and_a_wrong_one(github: RunningGitHub, local: LocalRepo) -> None:
    hidden = github.create_repo("acme", "hidden", private=True)
    nobody = client(github)
    assert nobody.get_repo(local.full_name).default_branch == "main"
    with pytest.raises(GithubException, match="Requires authentication"):
        nobody.get_repo(local.full_name).create_issue("x")
    for gh in (nobody, client(github, github.create_user("eve"))):
        with pytest.raises(UnknownObjectException):
            gh.get_repo(hidden.full_name)
    with pytest.raises(GithubException, match="Bad credentials") as caught:
        client(github, "ghp_wrong").get_repo(local.full_name)
    assert caught.value.status == 401


def test_a_renamed_repository_redirects(github: RunningGitHub, local: LocalRepo) -> None:
    gh = client(github, github.installation_token(local))
    before = gh.get_repo(local.full_name)
    old = local.full_name
    local.rename("renamed")
    assert gh.get_repo(old).full_name == "acme/renamed"
    assert before.get_git_ref("heads/main").object.sha == local.head()
    reading, writing = (one for one in github.requests[-4:] if one.status in (301, 307)), None
    assert all(one.response_headers["location"].startswith(f"{github.api_url}/repositories/") for one in reading)
    before.create_git_blob("x", "utf-8")  # PyGithub takes the 307 for a success: callers must look at what they got
    writing = github.requests[-1]
    assert (writing.status, writing.method) == (307, "POST")


def test_an_archived_repository_is_read_only(github: RunningGitHub, local: LocalRepo) -> None:
    local.repo.archived = True
    repo = client(github, github.installation_token(local)).get_repo(local.full_name)
    assert repo.archived
    assert repo.get_git_ref("heads/main").object.sha
    with pytest.raises(GithubException, match="archived so is read-only") as caught:
        repo.create_git_blob("x", "utf-8")
    assert caught.value.status == 403


def test_tokens_are_not_recorded(github: RunningGitHub, local: LocalRepo) -> None:
    token = github.installation_token(local)
    client(github, token).get_repo(local.full_name)
    recorded = github.requests[-1]
    assert recorded.auth == "token ghs"
    assert token not in repr(github.requests)
    assert token not in repr(github)


def test_a_dispatch_is_kept(github: RunningGitHub, local: LocalRepo) -> None:
    repo = client(github, github.installation_token(local)).get_repo(local.full_name)
    assert repo.create_repository_dispatch("model-updated", {"model": "acme/tiny"})
    assert local.repo.dispatches == [{"event_type": "model-updated", "client_payload": {"model": "acme/tiny"}}]
    assert not repo.create_repository_dispatch("x" * 101, {})
    assert client(github).get_rate_limit().rate.limit == 5000


def test_an_apps_token_learns_its_name_over_graphql(github: RunningGitHub, local: LocalRepo) -> None:
    for token, login in (
        (github.installation_token(local), "github-actions[bot]"), (github.create_user("eve"), "eve"),
    ):  # fmt: skip
        _, data = client(github, token).requester.graphql_query("query { viewer { login } }", {})
        assert data["data"]["viewer"]["login"] == login
    with pytest.raises(GithubException, match="authentication"):
        client(github).requester.graphql_query("query { viewer { login } }", {})
