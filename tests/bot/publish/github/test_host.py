"""Publishing to a local GitHub with real git: one pull request per model, whatever happens."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.errors import (
    GitHubNotFound,
    SourceMoved,
)
from bot.publish import message
from bot.publish.splice import BEGIN, current_section
from exporter import report as manifests
from tests.bot import reports
from tests.bot.publish.github.repositories import ATTRIBUTES, CARD, Repository, repository
from tests.localgithub.testing import RunningGitHub

PTE = "executorch/xnnpack/tiny_xnnpack_8da4w.pte"


def test_one_commit_on_one_pull_request(repo: Repository) -> None:
    report = repo.report()
    done = repo.publish(report)
    assert (done.operation, done.pr_num) == ("created", 1)
    assert done.pr_url == f"{repo.github.server_url}/{repo.there.full_name}/pull/1"
    assert repo.pulls() == [(1, "open")]
    assert done.revision == repo.there.head(repo.branch)
    assert len(repo.there.log(repo.branch)) == len(repo.there.log()) + 1
    assert repo.there.log(repo.branch)[0].startswith(f"models/tiny: {message.pr_title(report)}\n\nPtebot-Files: ")
    assert repo.files(repo.branch) - repo.files() == {
        "models/tiny/executorch/.gitattributes",
        "models/tiny/executorch/manifest.json",
        "models/tiny/executorch/quality.svg",
        "models/tiny/executorch/portable/tiny_portable_fp32.pte",
        "models/tiny/executorch/xnnpack/tiny_xnnpack_fp32.pte",
        f"models/tiny/{PTE}",
    }
    assert repo.read("executorch/quality.svg", repo.branch).startswith(b"<?xml"), "not through Git LFS"
    assert repo.read(PTE, repo.branch) == b"xnnpack 8da4w program"
    assert repo.there.files(repo.branch)[f"models/tiny/{PTE}"].startswith(b"version https://git-lfs")
    assert manifests.loads(repo.read("executorch/manifest.json", repo.branch)) == report
    card = repo.read("README.md", repo.branch).decode()
    section = current_section(card.encode())
    assert section is not None and card.startswith(CARD.decode())
    assert "---" not in card.split(BEGIN)[0], "no front matter is made for a README.md on GitHub"
    assert "in [`executorch/`](executorch)" in section
    assert 'repo = "models/tiny"  # in a clone of this repository' in section
    assert "ptebot rebuild --model models/tiny models/tiny/executorch/manifest.json" in section
    assert "ptebot export models/tiny --precision fp32" in section
    assert "huggingface" not in section
    assert repo.there.files(repo.branch)["README.md"] == b"# All\n"
    issue = repo.there.repo.issues[1]
    assert issue.title == f"models/tiny: {message.pr_title(report)}"
    assert issue.author.login == "github-actions[bot]"
    assert message.marker_of(report).line() in repo.description()
    assert "folder `models/tiny`" in repo.description() and "Git LFS" in repo.description()


def test_the_model_at_the_root(github: RunningGitHub, tmp_path: Path) -> None:
    repo = repository(github, tmp_path, folder=".")
    assert repo.publish(repo.report()).operation == "created"
    assert "ptebot/executorch" in repo.there.branches()
    assert PTE in repo.files(repo.branch) and "executorch/.gitattributes" in repo.files(repo.branch)
    assert repo.there.files(repo.branch)[".gitattributes"] == ATTRIBUTES
    assert repo.publish(repo.report()).operation == "unchanged"


def test_a_model_card_keeps_its_front_matter_and_gets_the_tag(github: RunningGitHub, tmp_path: Path) -> None:
    repo = repository(github, tmp_path)
    repo.push({"README.md": b"---\nlicense: mit\n---\n# Tiny\n"})
    repo.publish(repo.report())
    assert repo.read("README.md", repo.branch).startswith(b"---\nlicense: mit\ntags:\n- executorch\n---\n# Tiny\n")


def test_two_models_of_one_repository_have_two_pull_requests(repo: Repository) -> None:
    repo.publish(repo.report())
    other = Repository(repo.github, repo.there, repo.token, repo.scratch, "models/other")
    other.push({**reports.MODEL_FILES, "config.json": b'{"other": 1}'})
    files = {**reports.MODEL_FILES, "config.json": b'{"other": 1}'}
    assert other.publish(other.report(files=files)).pr_num == 2
    assert repo.publish(repo.report()).pr_num == 1
    assert repo.pulls() == [(1, "open"), (2, "open")]


def test_the_same_again_is_unchanged_and_sends_nothing(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.github.clear()
    done = repo.publish(repo.report(seconds=99.0))
    assert (done.operation, done.pr_num) == ("unchanged", 1)
    assert repo.writes() == []


def test_a_source_that_moved_refreshes_the_same_pull_request(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.push({"model.safetensors": b"other weights", "README.md": CARD.replace(b"# Tiny", b"# Tiny 2")})
    files = {**reports.MODEL_FILES, "model.safetensors": b"other weights"}
    report = repo.report([reports.cell("xnnpack", content=b"new program"), reports.failed()], files=files)
    contents = {"xnnpack/tiny_xnnpack_fp32.pte": b"new program"}
    done = repo.publish(report, contents)
    assert (done.operation, done.pr_num) == ("updated", 1)
    assert repo.pulls() == [(1, "open")]
    published = {path for path in repo.files(repo.branch) if "/executorch/" in path}
    assert published == {
        "models/tiny/executorch/.gitattributes",
        "models/tiny/executorch/manifest.json",
        "models/tiny/executorch/xnnpack/tiny_xnnpack_fp32.pte",
    }
    assert repo.read("executorch/xnnpack/tiny_xnnpack_fp32.pte", repo.branch) == b"new program"
    assert b"# Tiny 2" in repo.read("README.md", repo.branch)
    assert "the compiler gave up" in repo.description()
    assert repo.there.repo.issues[1].title == f"models/tiny: {message.pr_title(report)}"
    assert repo.publish(report, contents).operation == "unchanged"


@pytest.mark.parametrize("method", ["merge", "squash"])
@pytest.mark.parametrize("delete", [True, False])
def test_a_merged_one_is_unchanged_and_the_next_source_opens_another(
    repo: Repository, method: str, delete: bool
) -> None:
    report = repo.report()
    repo.publish(report)
    repo.merge(1, method)
    if delete:
        repo.there.delete_branch(repo.branch)
    done = repo.publish(repo.report(seconds=9.0))
    assert (done.operation, done.pr_url, done.revision) == ("unchanged", None, repo.head)
    repo.push({"config.json": b'{"model_type": "llama", "x": 1}'})
    files = {**reports.MODEL_FILES, "config.json": b'{"model_type": "llama", "x": 1}'}
    done = repo.publish(repo.report([reports.cell("portable")], files=files))
    assert (done.operation, done.pr_num) == ("created", 2)
    assert "models/tiny/executorch/xnnpack/tiny_xnnpack_fp32.pte" not in repo.files(repo.branch)
    assert repo.there.log(repo.branch)[1:] == repo.there.log()


def test_one_that_the_owner_closed_stays_closed_for_these_weights(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.there.close(1)
    done = repo.publish(repo.report([reports.cell("portable")]))
    assert (done.operation, done.pr_num) == ("none", 1)
    assert "closed" in done.reason and "reopen it on GitHub" in done.reason
    repo.push({"model.safetensors": b"new weights"})
    files = {**reports.MODEL_FILES, "model.safetensors": b"new weights"}
    assert repo.publish(repo.report(files=files)).operation == "created"
    assert repo.pulls() == [(1, "closed"), (2, "open")]


def test_an_upload_tells_how_far_it_is(repo: Repository) -> None:
    content = b"x" * (30 << 20)
    said: list[str] = []
    report = repo.report([reports.cell("xnnpack", content=content)])
    repo.publish(report, {"xnnpack/tiny_xnnpack_fp32.pte": content}, said=said)
    assert [one for one in said if "Git LFS" in one] == [
        f"uploading to Git LFS: {percent}% of 31.5 MB" for percent in range(0, 101, 10)
    ]


def test_another_base(repo: Repository) -> None:
    repo.push({"config.json": b'{"dev": 1}'}, branch="dev")
    files = {**reports.MODEL_FILES, "config.json": b'{"dev": 1}'}
    report = repo.report(files=files)
    with pytest.raises(SourceMoved, match=r"branch main of .* config\.json"):
        repo.publish(report)
    assert repo.publish(report, base="dev").operation == "created"
    pull = repo.there.repo.issues[1].pull
    assert pull is not None and pull.base == "dev"
    with pytest.raises(GitHubNotFound, match="no branch 'nothing'"):
        repo.publish(report, base="nothing")
    assert repo.publish(repo.report(), base="main").pr_num == 2, "each branch has a pull request of its own"
    assert repo.publish(report, base="dev").pr_num == 1
    assert repo.publish(repo.report()).pr_num == 2, "the default branch, named or not, is one"
    assert repo.there.branches() == ["dev", "main", "ptebot/models--tiny", "ptebot/models--tiny@dev"]


def test_a_dry_run_shows_everything_and_changes_nothing(repo: Repository) -> None:
    report = repo.report()
    for client in (repo.client(), repo.client(None)):
        done = repo.publish(report, dry_run=True, client=client)
        assert (done.operation, done.pr_url) == ("created", None)
        assert done.preview is not None
        assert done.preview.title == f"models/tiny: {message.pr_title(report)}"
        assert [path for path, _ in done.preview.files] == [
            "models/tiny/executorch/.gitattributes",
            "models/tiny/executorch/portable/tiny_portable_fp32.pte",
            "models/tiny/executorch/xnnpack/tiny_xnnpack_fp32.pte",
            f"models/tiny/{PTE}",
            "models/tiny/executorch/quality.svg",
            "models/tiny/executorch/manifest.json",
            "models/tiny/README.md",
        ]
        assert "+## ExecuTorch\n" in done.preview.card_diff and "+---" not in done.preview.card_diff
        assert repo.writes() == []
    repo.publish(report)
    done = repo.publish(repo.report([reports.cell("portable")]), dry_run=True)
    assert (done.operation, done.pr_num) == ("updated", 1)


def test_a_folder_without_a_card_gets_one(github: RunningGitHub, tmp_path: Path) -> None:
    repo = repository(github, tmp_path, files=dict(reports.MODEL_FILES))
    repo.publish(repo.report())
    assert repo.read("README.md", repo.branch).startswith(BEGIN.encode())
