"""What GitHub is asked before an export: whether it is needed, and whether its files could be published."""

from __future__ import annotations

from pathlib import Path

import pytest

from bot.errors import (
    GitHubNotAuthorized,
    SourceMoved,
)
from exporter.errors import InvalidModelDirectory
from exporter.spec import ExportSpec
from tests.bot import reports
from tests.bot.publish.github.repositories import Repository


def listed(files: dict[str, bytes], folder: Path) -> dict[str, object]:
    from bot.sources import LocalModel

    for name, data in files.items():
        (folder / name).write_bytes(data)
    return dict(LocalModel(folder).tree)


def test_asked_before_the_export(repo: Repository, tmp_path: Path) -> None:
    report = repo.report()
    tree = listed(reports.MODEL_FILES, tmp_path)
    assert repo.target().ask(tree, report.spec, report.toolchain) is None  # type: ignore[arg-type]
    repo.publish(report)
    ended = repo.target().ask(tree, report.spec, report.toolchain)  # type: ignore[arg-type]
    assert ended is not None and (ended.operation, ended.pr_num) == ("unchanged", 1)
    assert repo.target().ask(tree, ExportSpec(max_seq_len=64), report.toolchain) is None  # type: ignore[arg-type]
    repo.there.close(1)
    repo.there.delete_branch(repo.branch)
    ended = repo.target().ask(tree, report.spec, report.toolchain)  # type: ignore[arg-type]
    assert ended is not None and (ended.operation, ended.pr_num) == ("none", 1)


def test_a_checkout_without_lfs_is_told_with_the_remedy(repo: Repository, tmp_path: Path) -> None:
    bare = {name: repo.there.files()[f"models/tiny/{name}"] for name in reports.MODEL_FILES}
    with pytest.raises(InvalidModelDirectory, match=r"model\.safetensors") as caught:
        repo.target().ask(listed(bare, tmp_path), ExportSpec(), {})  # type: ignore[arg-type]
    assert "lfs: true" in (caught.value.advice or "")
    other = listed({**reports.MODEL_FILES, "config.json": b"{}"}, tmp_path)
    with pytest.raises(SourceMoved, match=r"config\.json"):
        repo.target().ask(other, ExportSpec(), {})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("rights", "missing"),
    [
        ({"contents": "read", "pull_requests": "write"}, "contents: write"),
        ({"contents": "write", "pull_requests": "read"}, "pull-requests: write"),
        ({"contents": "write", "pull_requests": "write"}, None),
    ],
)
def test_it_is_named_before_the_export(repo: Repository, rights: dict[str, str], missing: str | None) -> None:
    before = repo.there.branches()
    target = repo.target(client=repo.client(repo.github.installation_token(repo.there, rights)))
    if missing is None:
        target.ready()
        repo.there.repo.actions_may_open_pulls = False
        with pytest.raises(GitHubNotAuthorized, match="not permitted"):
            target.ready()
    else:
        with pytest.raises(GitHubNotAuthorized, match=missing):
            target.ready()
    assert repo.pulls() == [] and repo.there.branches() == before


@pytest.mark.parametrize("action", ["drop", 502, 422])
def test_trouble_before_the_export_is_no_reason_to_stop(repo: Repository, action: str | int) -> None:
    repo.github.fail(r"/(git/blobs|pulls)$", action, method="POST", times=2)  # type: ignore[arg-type]
    repo.target().ready()
    assert repo.pulls() == []
