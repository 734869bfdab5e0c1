"""Every kind of request that the local GitHub serves, sent once by PyGithub, so that its answers can be checked."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any

from github import GithubException, InputGitTreeElement
from github.Repository import Repository

from tests.localgithub.clients import client
from tests.localgithub.testing import LocalRepo, RunningGitHub


def everything(github: RunningGitHub) -> None:
    local = github.create_repo("acme", "contract", {"README.md": b"# Tiny\n", "model/a.bin": b"\x00"})
    local.set_role("eve", "maintain")
    gh = client(github, github.installation_token(local))
    gh.get_rate_limit()
    client(github, github.create_user("acme")).get_user().login  # noqa: B018
    repo = gh.get_repo(local.full_name)
    repo.get_collaborator_permission("eve")
    repo.create_repository_dispatch("model-updated", {"model": "acme/tiny", "any": {"thing": 1}})
    commit = _git(repo)
    _files(local, repo)
    _pulls(repo)
    _conversation(local, repo)
    _checks(repo, commit)
    _releases(repo)
    fork = github.fork(local, "eve")
    fork.commit({"b": b""}, branch="idea")
    theirs = client(github, github.create_user("eve")).get_repo(local.full_name)
    theirs.create_pull(base="main", head="eve:idea", title="Mine")
    client(github).get_repo(fork.full_name)
    local.rename("other")
    gh.get_repo("acme/contract")


def refusals(github: RunningGitHub) -> None:
    """One refusal of each kind: their documents have shapes of their own."""
    local = github.create_repo("acme", "refusals")
    sha, number = local.head() or "", local.open_issue("eve")
    local.commit({"a": b"1"}, branch="ptebot/x")
    local.commit({"a": b"2"})
    local.protect("locked/**")
    repo = client(github, github.installation_token(local)).get_repo(local.full_name)
    reader = client(github, github.fork_token(local)).get_repo(local.full_name)
    pull = repo.create_pull(base="main", head="ptebot/x", title="T")
    empty = github.create_repo("acme", "empty", {})
    local.lock(number)
    calls: list[Callable[[], object]] = [
        lambda: client(github, "ghs_wrong").get_repo(local.full_name),
        lambda: client(github).get_repo("acme/nothing"),
        lambda: reader.create_git_blob("x", "utf-8"),
        lambda: reader.create_issue("x"),
        lambda: repo.create_issue("x" * 257),
        lambda: repo.get_issue(number).create_comment("locked"),
        lambda: repo.get_issue(99),
        lambda: repo.create_pull(base="main", head="ptebot/x", title="T"),
        lambda: repo.create_pull(base="main", head="absent", title="T"),
        lambda: repo.create_pull(base="main", head="main", title="T"),
        lambda: repo.create_pull(base="main", head="ptebot/x", title="T", body="x" * 65_537),
        pull.merge,
        lambda: pull.merge(sha=sha),
        lambda: repo.create_git_ref("refs/heads/main", sha),
        lambda: repo.create_git_ref("refs/heads/locked/x", sha),
        lambda: repo.get_git_ref("heads/ptebot/x").edit(sha),
        lambda: repo.get_git_ref("heads/absent").object,
        lambda: repo.create_git_tree([InputGitTreeElement("x", "100644", "blob", sha=None)], repo.get_git_tree(sha)),
        lambda: client(github, github.create_user("acme")).get_repo(empty.full_name).create_git_blob("x", "utf-8"),
        lambda: client(github, github.create_user("acme")).get_repo(local.full_name).create_check_run("x", sha),
        lambda: repo.create_check_run("x", "0" * 40),
        lambda: repo.get_commit(sha).create_status("success", description="x" * 141),
        lambda: repo.get_commit("absent"),
        lambda: repo.compare("main", "absent"),
        lambda: repo.get_contents("absent"),
        lambda: repo.get_release("absent"),
        lambda: repo.get_collaborator_permission("nobody"),
        lambda: repo.create_git_release("v1", "v1", "", target_commitish="absent"),
    ]
    for call in calls:
        try:
            call()
        except GithubException as error:
            assert 400 <= error.status < 500
        else:
            raise AssertionError("this was to be refused")


def _git(repo: Repository) -> str:
    tip = repo.get_git_ref("heads/main").object.sha
    blob = repo.create_git_blob("AAEC", "base64")
    repo.get_git_blob(blob.sha)
    elements = [
        InputGitTreeElement("model/b.bin", "100644", "blob", sha=blob.sha),
        InputGitTreeElement("notes.txt", "100644", "blob", content="words"),
        InputGitTreeElement("model/a.bin", "100644", "blob", sha=None),
    ]
    tree = repo.create_git_tree(elements, repo.get_git_tree(tip))
    repo.get_git_tree(tree.sha, recursive=True)
    made = repo.create_git_commit("Edit", tree, [repo.get_git_commit(tip)])
    ref = repo.create_git_ref("refs/heads/ptebot/model", made.sha)
    ref.edit(made.sha, force=True)
    list(repo.get_git_matching_refs("heads/ptebot"))
    repo.create_git_ref("refs/heads/gone", made.sha).delete()
    return made.sha


def _files(local: LocalRepo, repo: Repository) -> None:
    found = repo.get_contents("README.md", ref="ptebot/model")
    repo.get_contents("model")
    local.commit({"big.bin": b"x" * (1024 * 1024 + 1)})
    repo.get_contents("big.bin")
    created = repo.create_file("new.txt", "Add", "one")["content"]
    changed = repo.update_file("new.txt", "Edit", "two", created.sha)["content"]
    repo.delete_file("new.txt", "Remove", changed.sha)
    list(repo.get_commits(sha="main", path="README.md"))
    repo.get_commit("ptebot/model")
    repo.compare("main", "ptebot/model")
    list(repo.get_branches())
    repo.get_branch("ptebot/model")
    assert not isinstance(found, list)


def _pulls(repo: Repository) -> None:
    pull = repo.create_pull(base="main", head="ptebot/model", title="T", body="B", draft=False)
    try:
        repo.create_pull(base="main", head="ptebot/model", title="T", body="B")
    except GithubException as error:
        assert error.status == 422
    list(repo.get_pulls(state="all", head="acme:ptebot/model", base="main", sort="created", direction="asc"))
    list(pull.get_files())
    list(pull.get_commits())
    list(repo.get_commit(pull.head.sha).get_pulls())
    pull.edit(title="T2", body="B2")
    pull.edit(state="closed")
    pull.edit(state="open")
    pull.create_issue_comment("hello")
    pull.as_issue()
    repo.get_pull(pull.number).merge(sha=pull.head.sha)
    repo.get_pull(pull.number).is_merged()


def _conversation(local: LocalRepo, repo: Repository) -> None:
    issue = repo.create_issue("Please", "export")
    list(repo.get_issues(state="all"))
    comment = issue.create_comment("/ptebot help")
    issue.get_comment(comment.id).edit("done")
    list(issue.get_comments(since=comment.created_at))
    list(repo.get_issues_comments(since=comment.created_at))
    first = comment.create_reaction("eyes")
    comment.create_reaction("eyes")
    list(comment.get_reactions())
    comment.delete_reaction(first.id)
    second = issue.create_reaction("rocket")
    list(issue.get_reactions())
    issue.delete_reaction(second.id)
    issue.lock("resolved")
    issue.unlock()
    issue.edit(state="closed")
    comment.delete()
    commit = repo.get_commit(local.head() or "")
    remark = commit.create_comment("see #1")
    remark.edit("see #2")
    list(commit.get_comments())
    repo.get_comment(remark.id)
    remark.delete_reaction(remark.create_reaction("heart").id)
    list(remark.get_reactions())
    remark.delete()


def _checks(repo: Repository, sha: str) -> None:
    output: dict[str, Any] = {"title": "Working", "summary": "soon"}
    made = repo.create_check_run("ptebot", sha, status="in_progress", external_id="1", output=output)
    note = {"path": "a.txt", "start_line": 1, "end_line": 1, "annotation_level": "failure", "message": "m"}
    made.edit(status="completed", conclusion="neutral", output={**output, "text": "more", "annotations": [note]})
    list(repo.get_check_run(made.id).get_annotations())
    commit = repo.get_commit(sha)
    list(commit.get_check_runs(check_name="ptebot", filter="latest"))
    commit.create_status("success", target_url="https://example.invalid", description="all", context="ptebot")
    commit.get_combined_status()
    repo.requester.requestJsonAndCheck("GET", f"{commit.url}/statuses")


def _releases(repo: Repository) -> None:
    made = repo.create_git_release("ptebot-1", "Files", "Body", draft=True, target_commitish="main")
    asset = made.upload_asset_from_memory(io.BytesIO(b"abc"), 3, "a.pte", content_type="application/octet-stream")
    asset.update_asset("b.pte", "b")
    repo.get_release_asset(asset.id)
    made.update_release("Files", "Body 2", draft=False)
    repo.get_release("ptebot-1")
    repo.get_latest_release()
    list(repo.get_releases())
    list(made.get_assets())
    asset.delete_asset()
    made.delete_release()
