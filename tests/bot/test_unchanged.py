"""Whether a run has anything to do, against a real Hub: asked before any work, answered as publishing would."""

from __future__ import annotations

from dataclasses import replace

import pytest

from bot import fetch
from bot.errors import SourceMoved
from bot.localhub.testing import RunningHub
from bot.publish.loop import Published
from bot.publish.target import HubTarget
from exporter.report import Report
from exporter.spec import ExportSpec
from tests.bot import reports
from tests.bot.hubs import Repository


def target(repo: Repository) -> HubTarget:
    return HubTarget(repo_id=repo.repo_id, endpoint=repo.hub.endpoint, token=repo.bot_token)


def ask(repo: Repository, report: Report, spec: ExportSpec | None = None, **toolchain: str) -> Published | None:
    """The question, for what the repository's main branch holds now."""
    now = fetch.resolve(repo.repo_id, None, endpoint=repo.hub.endpoint, token=repo.bot_token)
    return target(repo).ask(now.tree, spec or report.spec, report.toolchain | toolchain)


def test_a_new_repository_needs_an_export(repo: Repository) -> None:
    assert ask(repo, repo.report()) is None


def test_an_open_pull_request_is_enough(repo: Repository) -> None:
    report = repo.report()
    made = repo.publish(report)
    ended = ask(repo, report)
    assert ended is not None
    assert (ended.operation, ended.pr_num, ended.pr_url) == ("unchanged", 1, made.pr_url)


def test_a_merged_one_too_although_the_commit_is_another(repo: Repository) -> None:
    report = repo.report()
    repo.publish(report)
    repo.owner.merge_pull_request(repo.repo_id, 1)
    assert repo.head != report.model.revision
    ended = ask(repo, report)
    assert ended is not None
    assert (ended.operation, ended.pr_num) == ("unchanged", None)


def test_one_that_its_owner_closed_is_the_last_word(repo: Repository) -> None:
    report = repo.report()
    repo.publish(report)
    repo.owner.change_discussion_status(repo.repo_id, 1, "closed")
    ended = ask(repo, report)
    assert ended is not None
    assert (ended.operation, ended.pr_num) == ("none", 1)
    assert "was closed" in ended.reason


@pytest.mark.parametrize("name", ["model.safetensors", "config.json", "tokenizer.json"])
def test_a_changed_model_needs_an_export(repo: Repository, name: str) -> None:
    report = repo.report()
    repo.publish(report)
    repo.push({name: b'{"changed": true}'})
    assert ask(repo, report) is None


def test_a_changed_card_does_not(repo: Repository) -> None:
    report = repo.report()
    repo.publish(report)
    repo.push({"notes.txt": b"words"})
    assert ask(repo, report) is not None


def test_another_spec_or_toolchain_needs_an_export(repo: Repository) -> None:
    report = repo.report()
    repo.publish(report)
    assert ask(repo, report, replace(report.spec, max_seq_len=64)) is None
    assert ask(repo, report, torch="2.14.0") is None


def test_a_pull_request_of_somebody_else_does_not_count(repo: Repository, hub: RunningHub) -> None:
    report = repo.report()
    repo.publish(report, token=hub.create_user("mallory"))
    assert ask(repo, report) is None


def test_a_section_that_was_removed_is_work_to_do(repo: Repository) -> None:
    report = repo.report()
    repo.publish(report)
    repo.push({"README.md": b"# Mine alone\n"}, revision="refs/pr/1")
    assert ask(repo, report) is None


def test_another_model_is_refused(repo: Repository) -> None:
    now = fetch.resolve(repo.repo_id, None, endpoint=repo.hub.endpoint, token=repo.bot_token)
    repo.push({"model.safetensors": b"other weights"})
    with pytest.raises(SourceMoved, match=r"model\.safetensors"):
        target(repo).ask(now.tree, ExportSpec(), reports.TOOLCHAIN)
