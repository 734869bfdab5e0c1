"""What others do to the repository before or meanwhile: nothing of theirs is lost, and nothing is opened twice."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.errors import (
    PublishFailed,
)
from bot.publish import message
from bot.publish.marker import CLOSED
from bot.publish.splice import BEGIN
from tests.bot import reports
from tests.bot.publish.github.repositories import CARD, Repository, repository
from tests.localgithub.testing import RunningGitHub


def test_files_of_others_below_our_folder_stay(repo: Repository) -> None:
    theirs = {"executorch/theirs.pte": b"x" * 2000, "executorch/.gitattributes": b"*.bin -text"}
    repo.push(dict(theirs))
    repo.publish(repo.report())
    repo.publish(repo.report([reports.cell("portable")]))
    assert repo.read("executorch/theirs.pte", repo.branch) == b"x" * 2000
    assert repo.read("executorch/.gitattributes", repo.branch).splitlines() == [
        b"*.bin -text",
        b"*.pte filter=lfs diff=lfs merge=lfs -text",
    ]
    assert "models/tiny/executorch/xnnpack/tiny_xnnpack_fp32.pte" not in repo.files(repo.branch)


def test_pull_requests_of_others_are_not_ours_even_with_our_marker(repo: Repository) -> None:
    text = message.pr_description(repo.report())
    owner = repo.client(repo.github.create_user("acme"))
    repo.there.commit({"x.txt": b"x"}, branch=repo.branch)
    body = {"title": "Add ExecuTorch files", "body": text, "head": repo.branch, "base": "main"}
    owner.call("POST", f"/repos/{repo.there.full_name}/pulls", body=body)
    with pytest.raises(PublishFailed, match="commits that are not ptebot's"):
        repo.publish(repo.report())
    assert repo.pulls() == [(1, "open")]
    assert repo.there.files(repo.branch)["x.txt"] == b"x"


def test_another_token_finds_what_the_first_one_opened(repo: Repository) -> None:
    repo.publish(repo.report())
    owner = repo.client(repo.github.create_user("acme"))
    assert repo.publish(repo.report(), client=owner).operation == "unchanged"
    assert repo.publish(repo.report([reports.cell("portable")]), client=owner).operation == "updated"
    assert repo.pulls() == [(1, "open")]
    repo.there.close(1)
    assert repo.publish(repo.report(), client=owner).operation == "none"


def test_a_branch_of_others_is_not_overwritten(repo: Repository) -> None:
    tip = repo.there.commit({"x.txt": b"x"}, branch=repo.branch)
    with pytest.raises(PublishFailed, match=f"{repo.branch} .* not ptebot's"):
        repo.publish(repo.report())
    assert repo.there.head(repo.branch) == tip


def test_a_conflict_is_merged_without_losing_history(repo: Repository) -> None:
    repo.publish(repo.report())
    before = repo.there.head(repo.branch)
    repo.push({"README.md": CARD + b"\nRewritten.\n\nAnd longer at its very end.\n"})
    done = repo.publish(repo.report())
    assert (done.operation, done.pr_num) == ("updated", 1)
    assert repo.pulls() == [(1, "open")]
    card = repo.read("README.md", repo.branch)
    assert b"And longer at its very end." in card and card.count(BEGIN.encode()) == 1
    commit = repo.there.repo.git[str(repo.there.head(repo.branch))]
    assert [str(one) for one in commit.parent_ids] == [before, repo.head]
    repo.github.clear()
    assert repo.publish(repo.report()).operation == "unchanged"
    repo.merge(1)


def test_a_conflict_with_changes_of_others_is_left_to_them(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.there.commit({"notes.txt": b"a reviewer's"}, branch=repo.branch)
    repo.push({"README.md": CARD + b"\nRewritten.\n"})
    with pytest.raises(PublishFailed, match=r"not ptebot's: notes\.txt"):
        repo.publish(repo.report())


def test_a_refresh_keeps_changes_of_others(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.there.commit({"notes.txt": b"a reviewer's"}, branch=repo.branch)
    assert repo.publish(repo.report([reports.cell("portable")])).operation == "updated"
    assert repo.there.files(repo.branch)["notes.txt"] == b"a reviewer's"


def test_what_is_pushed_to_the_branch_meanwhile_is_not_lost(repo: Repository) -> None:
    repo.publish(repo.report())

    def review() -> None:
        repo.there.commit({"notes.txt": b"a reviewer's"}, branch=repo.branch)

    repo.github.meanwhile(r"/git/trees$", review, method="POST")
    assert repo.publish(repo.report([reports.cell("portable")])).operation == "updated"
    assert repo.there.files(repo.branch)["notes.txt"] == b"a reviewer's"
    assert "Edit" in repo.there.log(repo.branch)[1]


def test_a_branch_that_never_stands_still_is_told(repo: Repository) -> None:
    repo.publish(repo.report())
    for number in range(20):
        files: dict[str, bytes | None] = {"notes.txt": str(number).encode()}
        repo.github.meanwhile(
            r"/git/trees$", lambda files=files: repo.there.commit(files, branch=repo.branch), method="POST"
        )
    with pytest.raises(PublishFailed, match="went on so"):
        repo.publish(repo.report([reports.cell("portable")]))


def test_several_open_ones_become_one(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.there.commit({"x.txt": b"x"}, branch="dev")
    body = {"title": "Twice", "body": repo.description(), "head": repo.branch, "base": "dev"}
    repo.client().call("POST", f"/repos/{repo.there.full_name}/pulls", body=body)
    assert repo.publish(repo.report()).operation == "unchanged"
    assert repo.pulls() == [(1, "open"), (2, "closed")]
    assert CLOSED in repo.description(2) and "pull request 1" in repo.description(2)


def test_a_renamed_repository_is_followed_and_told(repo: Repository) -> None:
    old = repo.there.full_name
    repo.publish(repo.report())
    repo.there.rename(f"{repo.there.repo.name}-renamed")
    said: list[str] = []
    done = repo.publish(repo.report([reports.cell("portable")]), repository=old, said=said)
    assert (done.operation, done.pr_num) == ("updated", 1)
    assert f"{old} is called {repo.there.full_name} now" in said


def test_a_model_at_the_root_of_one_that_was_renamed(github: RunningGitHub, tmp_path: Path) -> None:
    repo = repository(github, tmp_path, folder=".")
    repo.publish(repo.report())
    repo.there.rename(f"{repo.there.repo.name}-renamed")
    assert repo.publish(repo.report()).operation == "unchanged"
    assert repo.pulls() == [(1, "open")]


def test_one_that_is_renamed_meanwhile(repo: Repository) -> None:
    old = repo.there.full_name
    new = f"{repo.there.repo.name}-elsewhere"
    repo.github.meanwhile(r"/git/trees$", lambda: repo.there.rename(new), method="POST")
    assert repo.publish(repo.report(), repository=old).operation == "created"
    assert repo.pulls() == [(1, "open")]
