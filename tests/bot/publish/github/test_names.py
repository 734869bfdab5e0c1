"""Names that never clash: a branch and a release for each folder, as git and GitHub take them."""

from __future__ import annotations

import subprocess

import pytest

from bot.errors import InvalidInput
from bot.publish.github.names import (
    branch,
    check_folder,
    commit_message,
    is_our_commit,
    slug,
    tag,
)

FOLDERS = [".", "tiny", "models/tiny", "models--tiny", "models", "a/b/c", "a--b/c", "x.lock", "x..y", ".hidden", "x.",
           "executorch", "-x", "m+n", "m-n", "A/b", "tiny/.git2"]  # fmt: skip


def test_each_folder_has_its_own_word_which_git_takes() -> None:
    words = [slug(folder) for folder in FOLDERS]
    assert len(set(words)) == len(words)
    for folder in FOLDERS:
        for name in (f"refs/heads/{branch(folder)}", f"refs/tags/{tag(folder)}"):
            subprocess.run(["git", "check-ref-format", name], check=True)
            assert name.count("/") <= 3, "no branch is a folder of another's"


def test_each_base_has_its_own_branch_which_git_takes() -> None:
    bases = [None, "dev", "release/1", "release--1", "a@b", "x y", "-"]
    found = [branch("tiny", base) for base in bases]
    assert found[:3] == ["ptebot/tiny", "ptebot/tiny@dev", "ptebot/tiny@release--1"]
    assert len(set(found)) == len(found)
    for name in found:
        subprocess.run(["git", "check-ref-format", f"refs/heads/{name}"], check=True)


def test_plain_names_stay_readable() -> None:
    assert branch("models/tiny") == "ptebot/models--tiny"
    assert branch("tiny-llama.v2") == "ptebot/tiny-llama.v2"
    assert branch(".") == "ptebot/executorch"
    assert tag("tiny") == "ptebot-tiny"


@pytest.mark.parametrize(
    ("given", "expected"), [("", "."), (".", "."), ("./", "."), ("./a/b/", "a/b"), ("a", "a"), (" a ", "a")]
)
def test_folders(given: str, expected: str) -> None:
    assert check_folder(given) == expected


@pytest.mark.parametrize("folder", ["..", "a/../b", "/etc", "a//b", "a b", "a\nb", "ä", "`x`", "a/..", "x" * 300])
def test_what_is_no_folder_is_refused(folder: str) -> None:
    with pytest.raises(InvalidInput):
        check_folder(folder)


def test_our_commits_are_told_by_their_trailer() -> None:
    assert is_our_commit(commit_message("Add files", "a" * 64))
    assert not is_our_commit("Add files\n\nPtebot-Files: none\n")
    assert not is_our_commit("Ptebot-Files")
