"""Requests to the Hub that fail, are lost or meet others: still one pull request, and the next run mends it."""

from __future__ import annotations

import logging
import threading

import pytest
from huggingface_hub import HfApi

from bot.errors import (
    HubRefused,
    PublishFailed,
)
from bot.publish import hub as publishing
from bot.publish import message
from bot.publish.loop import Published
from bot.publish.marker import CLOSED
from tests.bot import reports
from tests.bot.hubs import Repository

COMMIT = r"/commit/main$"


PR_COMMIT = r"/commit/refs%2Fpr%2F\d+$"


@pytest.mark.parametrize("action", ["drop", "drop_before", 500, 503])
def test_a_lost_reply_to_the_commit_opens_no_second_one(repo: Repository, action: str | int) -> None:
    repo.hub.fail(COMMIT, action, method="POST")  # type: ignore[arg-type]
    done = repo.publish(repo.report())
    assert (done.operation, done.pr_num) == ("created", 1)
    assert repo.pulls() == [(1, "open")]


@pytest.mark.parametrize("action", ["drop", "drop_before", 502])
def test_a_lost_reply_to_the_refreshing_commit_makes_no_second_commit(repo: Repository, action: str | int) -> None:
    repo.publish(repo.report())
    repo.hub.fail(PR_COMMIT, action, method="POST")  # type: ignore[arg-type]
    done = repo.publish(repo.report([reports.cell("portable")]))
    assert (done.operation, done.pr_num) == ("updated", 1)
    assert len(repo.commits("refs/pr/1")) == len(repo.commits("main")) + 2
    assert "tiny_xnnpack" not in repo.description()


@pytest.mark.parametrize("path", [r"/discussions/1/title$", r"/comment/\w+/edit$"])
def test_a_description_that_was_not_brought_up_is_brought_up_by_the_next_run(repo: Repository, path: str) -> None:
    repo.publish(repo.report())
    report = repo.report([reports.cell("portable")])
    repo.hub.fail(path, 400, method="POST", times=20)
    with pytest.raises(HubRefused):
        repo.publish(report)
    repo.hub.clear_faults()
    done = repo.publish(report)
    assert done.operation == "updated" and repo.description() == message.pr_description(report)
    assert repo.owner.get_discussion_details(repo.repo_id, 1).title == message.pr_title(report)
    assert repo.publish(report).operation == "unchanged"


def test_a_hub_that_loses_our_marker_gets_it_back(repo: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    real = HfApi.create_commit

    def without_description(api: HfApi, *args: object, **options: object) -> object:
        return real(api, *args, **{**options, "commit_description": "gone"})  # type: ignore[call-overload]

    monkeypatch.setattr(HfApi, "create_commit", without_description)
    assert repo.publish(repo.report()).operation == "created"
    assert repo.description() == message.pr_description(repo.report())
    assert repo.pulls() == [(1, "open")]


def test_a_refreshing_commit_on_a_branch_that_moved_reads_it_again(repo: Repository) -> None:
    repo.publish(repo.report())
    repo.hub.fail(PR_COMMIT, 412, method="POST", times=2)
    assert repo.publish(repo.report([reports.cell("portable")])).operation == "updated"
    repo.hub.fail(PR_COMMIT, 412, method="POST", times=20)
    with pytest.raises(PublishFailed, match="412"):
        repo.publish(repo.report())


def test_several_open_ones_become_one(repo: Repository) -> None:
    repo.publish(repo.report())
    mine = HfApi(endpoint=repo.hub.endpoint, token=repo.bot_token)
    for _ in range(2):
        mine.create_pull_request(repo.repo_id, "Twice", description=repo.description())
    assert repo.publish(repo.report()).operation == "unchanged"
    assert repo.pulls() == [(1, "open"), (2, "closed"), (3, "closed")]
    comments = [getattr(event, "content", "") for event in repo.owner.get_discussion_details(repo.repo_id, 3).events]
    assert any(text.startswith(CLOSED) and "pull request 1" in text for text in comments)


def test_two_at_once_leave_one_pull_request(repo: Repository) -> None:
    report = repo.report()
    out = reports.write(report, repo.scratch / "shared")
    ended: list[Published | Exception] = []

    def one() -> None:
        try:
            ended.append(
                publishing.publish(
                    report,
                    out,
                    repo_id=repo.repo_id,
                    endpoint=repo.hub.endpoint,
                    token=repo.bot_token,
                    command="ptebot run",
                )
            )
        except Exception as error:
            ended.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(item, Published) for item in ended), ended
    assert [status for _, status in repo.pulls()].count("open") == 1
    kept = next(num for num, status in repo.pulls() if status == "open")
    assert {item.pr_num for item in ended if isinstance(item, Published)} == {kept}
    assert repo.publish(report).operation == "unchanged"


def test_the_token_is_nowhere_to_be_read(repo: Repository, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    report = repo.report()
    for action in (400, 403, 418, "drop", "drop_before"):
        repo.hub.clear_faults()
        repo.hub.fail(COMMIT, action, method="POST", times=50)
        try:
            repo.publish(report)
        except Exception as error:
            chain = [error, error.__cause__, error.__context__ if not error.__suppress_context__ else None]
            assert all(repo.bot_token not in f"{one!r} {one}" for one in chain)
            assert error.__cause__ is None and error.__suppress_context__
    assert repo.bot_token not in caplog.text
    published = repo.description() + repo.read("executorch/manifest.json", "refs/pr/1").decode()
    assert repo.bot_token not in published + repo.read("README.md", "refs/pr/1").decode()
