"""The unmodified huggingface_hub client does its everyday work against the local Hub."""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationCopy, CommitOperationDelete, HfApi, ModelCard, RepoFile
from huggingface_hub.errors import (
    BadRequestError,
    EntryNotFoundError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

from bot.localhub.testing import RunningHub

CARD = b"---\nlicense: apache-2.0\ntags:\n- small\nlibrary_name: transformers\n---\n# A model\n"


def add(path: str, data: bytes) -> CommitOperationAdd:
    return CommitOperationAdd(path, data)


def test_whoami_names_the_user_and_the_organisations(as_user) -> None:
    me = as_user("carol", orgs={"acme": "write"}).whoami()
    assert (me["name"], me["type"], me["auth"]["accessToken"]["role"]) == ("carol", "user", "write")
    assert [(org["name"], org["roleInOrg"]) for org in me["orgs"]] == [("acme", "write")]


def test_a_bad_token_is_told_so(hub: RunningHub) -> None:
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi(endpoint=hub.endpoint, token="hf_wrong").whoami()
    assert caught.value.response.status_code == 401


def test_create_repo_gives_its_address_and_refuses_a_second(alice: HfApi, hub: RunningHub) -> None:
    url = alice.create_repo("alice/twice")
    assert (str(url), url.repo_id) == (f"{hub.endpoint}/alice/twice", "alice/twice")
    with pytest.raises(HfHubHTTPError, match="already created"):
        alice.create_repo("ALICE/Twice")
    assert alice.create_repo("alice/twice", exist_ok=True).repo_id == "alice/twice"
    assert alice.create_repo("short").repo_id == "alice/short"


@pytest.mark.parametrize("name", ["a--b", ".hidden", "x.git", "a" * 97, "sp ace", "ü", "a/b", "..", ""])
def test_bad_repository_names_are_refused(hub: RunningHub, alice: HfApi, name: str, http) -> None:
    assert http.post("/api/repos/create", json={"name": name}, token=alice.token).status_code == 400


def test_round_trip_of_regular_and_large_files(alice: HfApi, repo: str, tmp_path: Path) -> None:
    large = os.urandom(2_500_000) + b"\0" * 500_000
    commit = alice.create_commit(
        repo,
        [add("README.md", CARD), add("config.json", b"{}"), add("model.safetensors", large), add("empty.txt", b"")],
        commit_message="Add it",
        commit_description="All of it",
    )
    assert len(commit.oid) == 40
    folder = Path(alice.snapshot_download(repo, cache_dir=tmp_path))
    assert (folder / "model.safetensors").read_bytes() == large
    assert (folder / "README.md").read_bytes() == CARD
    assert (folder / "empty.txt").read_bytes() == b""
    assert folder.name == commit.oid

    info = alice.model_info(repo, files_metadata=True)
    assert (info.sha, info.author, info.private, info.library_name) == (commit.oid, "alice", False, "transformers")
    assert {"small", "license:apache-2.0"} <= set(info.tags or [])
    files = {sibling.rfilename: sibling for sibling in info.siblings or []}
    assert files["model.safetensors"].lfs["sha256"] == hashlib.sha256(large).hexdigest()
    assert files["model.safetensors"].size == len(large)
    assert files["config.json"].lfs is None

    first = alice.list_repo_commits(repo)[0]
    assert (first.title, first.message.strip(), first.authors) == ("Add it", "All of it", ["alice"])
    assert ModelCard.load(folder / "README.md").data.tags == ["small"]


def test_binary_content_goes_to_large_storage_whatever_its_name(alice: HfApi, repo: str) -> None:
    alice.create_commit(repo, [add("odd.name", b"\0\1\2" * 50), add("text.pte.txt", b"words")], commit_message="x")
    found = {item.path: item for item in alice.list_repo_tree(repo) if isinstance(item, RepoFile)}
    assert found["odd.name"].lfs is not None
    assert found["text.pte.txt"].lfs is None
    attributes = Path(alice.hf_hub_download(repo, ".gitattributes")).read_text()
    assert "odd.name filter=lfs" in attributes


def test_what_is_there_already_makes_no_commit(alice: HfApi, repo: str) -> None:
    large = os.urandom(20_000)
    operations = {"a.txt": b"one", "b.bin": large}
    head = alice.create_commit(repo, [add(*item) for item in operations.items()], commit_message="first").oid
    again = alice.create_commit(repo, [add(*item) for item in operations.items()], commit_message="again")
    proposed = alice.create_commit(
        repo, [add(*item) for item in operations.items()], commit_message="again", create_pr=True
    )
    assert (again.oid, proposed.oid, proposed.pr_url) == (head, head, None)
    assert not list(alice.get_repo_discussions(repo))


def test_delete_copy_and_folders(alice: HfApi, repo: str) -> None:
    large = os.urandom(5000)
    alice.create_commit(
        repo, [add("d/a.txt", b"a"), add("d/e/b.txt", b"b"), add("big.bin", large), add("c.txt", b"c")],
        commit_message="1",
    )  # fmt: skip
    alice.create_commit(
        repo,
        [
            CommitOperationDelete("d/", is_folder=True),
            CommitOperationCopy("big.bin", "copy/big.bin"),
            CommitOperationCopy("c.txt", "copy/c.txt"),
            CommitOperationDelete("c.txt"),
        ],
        commit_message="2",
    )
    assert set(alice.list_repo_files(repo)) == {".gitattributes", "big.bin", "copy/big.bin", "copy/c.txt"}
    with pytest.raises(EntryNotFoundError):
        alice.create_commit(repo, [CommitOperationDelete("nothing.txt")], commit_message="3")


def test_large_files_can_be_copied_from_another_repository(alice: HfApi, repo: str, tmp_path: Path) -> None:
    large = os.urandom(150_000)
    alice.create_commit(repo, [add("w.safetensors", large)], commit_message="1")
    other = alice.create_repo("alice/copy-target").repo_id
    alice.create_commit(
        other,
        [CommitOperationCopy("w.safetensors", "w.safetensors", src_repo_id=repo, src_repo_type="model")],
        commit_message="copied",
    )
    path = alice.hf_hub_download(other, "w.safetensors", cache_dir=tmp_path)
    assert Path(path).read_bytes() == large


def test_tree_pages_through_many_files(alice: HfApi, repo: str) -> None:
    names = [f"many/{number:04}.txt" for number in range(1100)]
    alice.create_commit(repo, [add(name, name.encode()) for name in names], commit_message="many")
    listed = [item.path for item in alice.list_repo_tree(repo, "many", recursive=True)]
    assert listed == names
    assert len(list(alice.list_repo_tree(repo, recursive=True))) == len(names) + 2  # .gitattributes and the directory


def test_tree_expanded_tells_the_last_commit_of_each_path(alice: HfApi, repo: str) -> None:
    alice.create_commit(repo, [add("a.txt", b"1"), add("sub/b.txt", b"1")], commit_message="first")
    alice.create_commit(repo, [add("sub/b.txt", b"2")], commit_message="second")
    entries = {item.path: item for item in alice.list_repo_tree(repo, recursive=True, expand=True)}
    titles = {path: item.last_commit.title for path, item in entries.items()}
    assert titles == {".gitattributes": "initial commit", "a.txt": "first", "sub": "second", "sub/b.txt": "second"}
    infos = alice.get_paths_info(repo, ["sub", "a.txt", "missing"], expand=True)
    assert {item.path for item in infos} == {"sub", "a.txt"}


def test_branches_and_tags(alice: HfApi, repo: str) -> None:
    start = alice.model_info(repo).sha
    alice.create_branch(repo, branch="feature/x")
    commit = alice.create_commit(repo, [add("f.txt", b"f")], commit_message="on a branch", revision="feature/x")
    alice.create_tag(repo, tag="v1.0", revision=start)
    refs = alice.list_repo_refs(repo)
    assert {(ref.name, ref.target_commit) for ref in refs.branches} == {("main", start), ("feature/x", commit.oid)}
    assert [(ref.name, ref.target_commit) for ref in refs.tags] == [("v1.0", start)]
    assert alice.model_info(repo, revision="v1.0").sha == start
    assert alice.model_info(repo, revision=commit.oid[:10]).sha == commit.oid
    with pytest.raises(HfHubHTTPError, match="409"):
        alice.create_branch(repo, branch="feature/x")
    with pytest.raises(HfHubHTTPError, match="409"):
        alice.create_branch(repo, branch="feature")
    with pytest.raises(BadRequestError, match="branch"):
        alice.create_commit(repo, [add("g.txt", b"g")], commit_message="on a tag", revision="v1.0")
    alice.delete_branch(repo, branch="feature/x")
    alice.delete_tag(repo, tag="v1.0")
    assert [ref.name for ref in alice.list_repo_refs(repo).branches] == ["main"]
    with pytest.raises(HfHubHTTPError, match="403"):
        alice.delete_branch(repo, branch="main")


def test_missing_things_raise_the_clients_own_errors(alice: HfApi, repo: str) -> None:
    with pytest.raises(RepositoryNotFoundError):
        alice.model_info("alice/nothing-here")
    with pytest.raises(RepositoryNotFoundError):
        alice.hf_hub_download("alice/nothing-here", "x")
    with pytest.raises(RevisionNotFoundError):
        alice.hf_hub_download(repo, "README.md", revision="nowhere")
    with pytest.raises(RevisionNotFoundError):
        alice.model_info(repo, revision="0" * 40)
    with pytest.raises(EntryNotFoundError):
        alice.hf_hub_download(repo, "README.md")
    assert alice.file_exists(repo, ".gitattributes")
    assert not alice.file_exists(repo, "README.md")
    assert not alice.revision_exists(repo, "nowhere")


def test_bad_metadata_in_a_card_is_refused_before_anything_is_sent(alice: HfApi, repo: str) -> None:
    with pytest.raises(ValueError, match="Invalid metadata"):
        alice.create_commit(repo, [add("README.md", b"---\ntags: [a\n---\n")], commit_message="x")
    with pytest.warns(UserWarning, match="empty or missing yaml"):
        alice.create_commit(repo, [add("README.md", b"# bare\n")], commit_message="x")


def test_move_settings_and_delete(alice: HfApi, as_user) -> None:
    as_user("alice", orgs={"guild": "write"})
    repo = alice.create_repo("alice/wanders").repo_id
    large = os.urandom(10_000)
    alice.create_commit(repo, [add("m.bin", large)], commit_message="x")
    alice.move_repo(repo, "guild/settled")
    assert Path(alice.hf_hub_download("guild/settled", "m.bin")).read_bytes() == large
    assert not alice.repo_exists(repo)
    with pytest.raises(HfHubHTTPError, match="403"):
        alice.update_repo_settings("guild/settled", private=True)  # members with the role write are not owners
    own = alice.create_repo("alice/shy").repo_id
    alice.update_repo_settings(own, private=True)
    assert alice.model_info(own).private is True
    alice.delete_repo(own)
    assert not alice.repo_exists(own)
    alice.delete_repo(own, missing_ok=True)


def test_list_models_shows_what_one_may_see(alice: HfApi, bot: HfApi) -> None:
    alice.create_repo("alice/seen-public")
    alice.create_repo("alice/seen-private", private=True)
    mine = {model.id for model in alice.list_models(author="alice", search="seen-")}
    theirs = {model.id for model in bot.list_models(author="alice", search="seen-")}
    assert mine == {"alice/seen-public", "alice/seen-private"}
    assert theirs == {"alice/seen-public"}
