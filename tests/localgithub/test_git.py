"""Refs, trees, commits, files and comparisons, as PyGithub asks for them."""

from __future__ import annotations

from pathlib import Path

import pytest
from github import GithubException, InputGitTreeElement, UnknownObjectException
from github.Repository import Repository

from tests.localgithub.clients import client
from tests.localgithub.cloning import clone, git
from tests.localgithub.testing import LocalRepo, RunningGitHub

FILES = {"README.md": b"# Tiny\n", "model/config.json": b"{}", "model/old.bin": b"\x00\x01"}


@pytest.fixture
def local(github: RunningGitHub, request: pytest.FixtureRequest) -> LocalRepo:
    return github.create_repo("acme", request.node.name.replace("[", "-").rstrip("]"), dict(FILES))


def put(repo: Repository, branch: str, elements: list[InputGitTreeElement], message: str = "Edit") -> str:
    """A commit on the tip of main, on a new branch; its id."""
    tip = repo.get_git_ref("heads/main").object.sha
    tree = repo.create_git_tree(elements, repo.get_git_tree(tip))
    commit = repo.create_git_commit(message, tree, [repo.get_git_commit(tip)])
    repo.create_git_ref(f"refs/heads/{branch}", commit.sha)
    return commit.sha


def test_a_commit_is_made_of_blobs_and_a_tree(local: LocalRepo, repo: Repository) -> None:
    blob = repo.create_git_blob("AAEC", "base64")
    put(
        repo,
        "ptebot/model",
        [
            InputGitTreeElement("model/new.bin", "100644", "blob", sha=blob.sha),
            InputGitTreeElement("notes.txt", "100644", "blob", content="words"),
            InputGitTreeElement("model/old.bin", "100644", "blob", sha=None),
        ],
    )
    assert local.files("ptebot/model") == {
        "README.md": b"# Tiny\n", "model/config.json": b"{}", "model/new.bin": b"\x00\x01\x02", "notes.txt": b"words",
    }  # fmt: skip
    assert local.files("main") == FILES
    tree = repo.get_git_tree("ptebot/model", recursive=True)
    assert [(item.path, item.type) for item in tree.tree][:3] == [
        ("README.md", "blob"), ("model", "tree"), ("model/config.json", "blob"),
    ]  # fmt: skip
    assert repo.get_git_blob(blob.sha).content.strip() == "AAEC"


def test_a_folder_is_removed_by_its_name_and_replaced_by_a_file(local: LocalRepo, repo: Repository) -> None:
    put(repo, "a", [InputGitTreeElement("model", "040000", "tree", sha=None)])
    assert set(local.files("a")) == {"README.md"}
    put(repo, "b", [InputGitTreeElement("model", "100644", "blob", content="a file now")])
    assert set(local.files("b")) == {"README.md", "model"}


@pytest.mark.parametrize(
    ("element", "words"),
    [
        (InputGitTreeElement("gone.txt", "100644", "blob", sha=None), "BadObjectState"),
        (InputGitTreeElement("x", "100644", "blob", sha="0" * 40), "not a valid blob"),
        (InputGitTreeElement("../x", "100644", "blob", content=""), "malformed path"),
        (InputGitTreeElement(".git/config", "100644", "blob", content=""), "malformed path"),
        (InputGitTreeElement("/x", "100644", "blob", content=""), "slash"),
    ],
)
def test_a_tree_that_cannot_be(repo: Repository, element: InputGitTreeElement, words: str) -> None:
    with pytest.raises(GithubException, match=words) as caught:
        repo.create_git_tree([element], repo.get_git_tree("main"))
    assert caught.value.status == 422


def test_a_branch_moves_forward_and_only_by_force_elsewhere(local: LocalRepo, repo: Repository) -> None:
    first = local.head() or ""
    second = local.commit({"a": b"1"}, branch="work")
    other = local.commit({"a": b"2"}, branch="other")
    ref = repo.get_git_ref("heads/work")
    assert ref.object.sha == second
    with pytest.raises(GithubException, match="not a fast forward"):
        ref.edit(other)
    ref.edit(other, force=True)
    assert local.head("work") == other
    ref.delete()
    assert local.branches() == ["main", "other"]
    with pytest.raises(UnknownObjectException):
        repo.get_git_ref("heads/work").object  # noqa: B018
    for name, sha, words in (
        ("refs/heads/other", first, "already exists"), ("refs/heads/x", "1" * 40, "Object does not exist"),
        ("heads/x", first, "refs/"), ("refs/heads/other/x", first, "update failed"),
        ("refs/heads/a..b", first, "not a valid"),
    ):  # fmt: skip
        with pytest.raises(GithubException, match=words):
            repo.create_git_ref(name, sha)


def test_a_repository_without_commits(github: RunningGitHub) -> None:
    local = github.create_repo("acme", "empty", {})
    repo = client(github, github.installation_token(local)).get_repo("acme/empty")
    with pytest.raises(GithubException, match="empty") as caught:
        repo.create_git_blob("x", "utf-8")
    assert caught.value.status == 409
    with pytest.raises(GithubException, match="empty"):
        repo.get_contents("README.md")


def test_a_protected_branch(local: LocalRepo, repo: Repository) -> None:
    local.protect("ptebot/**")
    with pytest.raises(GithubException, match="Repository rule violations") as caught:
        put(repo, "ptebot/x", [InputGitTreeElement("a", "100644", "blob", content="")])
    assert caught.value.status == 422
    assert local.branches() == ["main"]
    local.repo.rules.clear()
    local.commit({"a": b"1"}, branch="ptebot/x")
    local.protect("ptebot/**", "force", "deletion")
    with pytest.raises(GithubException, match="rule violations"):
        repo.get_git_ref("heads/ptebot/x").delete()
    with pytest.raises(GithubException, match="rule violations"):
        repo.get_git_ref("heads/ptebot/x").edit(local.head() or "", force=True)
    assert repo.get_branch("ptebot/x").protected
    assert not repo.get_branch("main").protected


def test_older_branch_protection_says_less(local: LocalRepo, repo: Repository) -> None:
    local.protect("ptebot/**", classic=True)
    with pytest.raises(GithubException, match="Reference update failed") as caught:
        repo.create_git_ref("refs/heads/ptebot/x", local.head() or "")
    assert caught.value.status == 422


def test_files_by_path(local: LocalRepo, repo: Repository) -> None:
    found = repo.get_contents("README.md")
    assert not isinstance(found, list)
    assert found.decoded_content == b"# Tiny\n"
    listing = repo.get_contents("model", ref="main")
    assert isinstance(listing, list)
    assert [item.path for item in listing] == ["model/config.json", "model/old.bin"]
    with pytest.raises(UnknownObjectException):
        repo.get_contents("absent")
    with pytest.raises(GithubException, match="No commit found"):
        repo.get_contents("README.md", ref="absent")
    repo.create_file("new.txt", "Add", "one")
    repo.update_file("README.md", "Edit", "two", found.sha)
    with pytest.raises(GithubException) as caught:
        repo.update_file("README.md", "Edit", "three", found.sha)
    assert caught.value.status == 409
    assert (local.read("new.txt"), local.read("README.md")) == (b"one", b"two")
    assert local.log()[:2] == ["Edit", "Add"]


def test_a_large_file_has_no_content_in_its_document(local: LocalRepo, repo: Repository) -> None:
    local.commit({"big.bin": b"x" * (1024 * 1024 + 1)})
    found = repo.get_contents("big.bin")
    assert not isinstance(found, list)
    assert (found.encoding, found.size) == ("none", 1024 * 1024 + 1)


def test_a_comparison(local: LocalRepo, repo: Repository) -> None:
    local.commit({"a": b"1\n", "model/old.bin": None}, branch="ptebot/x")
    local.commit({"b": b"2"}, branch="main")
    found = repo.compare("main", "ptebot/x")
    assert (found.status, found.ahead_by, found.behind_by) == ("diverged", 1, 1)
    assert [(one.filename, one.status) for one in found.files] == [("a", "added"), ("model/old.bin", "removed")]
    assert repo.compare("main", "main").status == "identical"
    with pytest.raises(UnknownObjectException):
        repo.compare("main", "absent")
    assert [one.commit.message for one in repo.get_commits(sha="ptebot/x", path="a")] == ["Edit"]
    assert repo.get_commit("ptebot/x").files[0].patch == "@@ -0,0 +1 @@\n+1"


def test_a_clone_is_what_the_api_wrote(
    github: RunningGitHub, local: LocalRepo, repo: Repository, tmp_path: Path
) -> None:
    put(repo, "ptebot/x", [InputGitTreeElement("sub/a.txt", "100644", "blob", content="hello")], "Add a")
    folder = clone(local, tmp_path / "clone", branch="ptebot/x", lfs=False)
    assert (folder / "sub" / "a.txt").read_text() == "hello"
    assert git(folder, "log", "--format=%s %an").splitlines() == ["Add a github-actions[bot]", "First acme"]
    git(folder, "fsck", "--strict")
