"""A publisher that is killed at any moment and started again leaves one pull request, whole."""

from __future__ import annotations

import multiprocessing
import os
import random
import time
from collections.abc import Callable
from pathlib import Path

from bot.export_process import load_output
from bot.publish import hub as publishing
from bot.publish import message, state
from exporter.report import Report
from tests.bot import reports
from tests.bot.hubs import Repository

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["bot.publish.hub", "bot.export_process", "tests.bot.reports"])


def publish(out: str, repo_id: str, endpoint: str, token: str) -> None:
    """In a process of its own."""
    os.environ["HF_HUB_DISABLE_PROGRESS_BARS"] = "1"
    report = load_output(Path(out))
    publishing.publish(report, Path(out), repo_id=repo_id, endpoint=endpoint, token=token, command="ptebot run")


def kill_after(repo: Repository, out: Path, requests: int, delay: float) -> bool:
    """Start a publisher and kill it ``delay`` seconds after so many of its requests; whether it was still alive."""
    repo.hub.traffic.clear()
    child = PROCESSES.Process(target=publish, args=(str(out), repo.repo_id, repo.hub.endpoint, repo.bot_token))
    child.start()
    until = time.monotonic() + 60
    while child.is_alive() and len(repo.hub.traffic) < requests and time.monotonic() < until:
        time.sleep(0.002)
    time.sleep(delay)
    alive = child.is_alive()
    child.kill()
    child.join()
    return alive


def killed_often(repo: Repository, report: Report, moments: list[int], check: Callable[[], None]) -> int:
    """Kill a publisher at each of these moments; how many were alive then."""
    out = reports.write(report, repo.scratch / f"out-{len(report.cells)}")
    dice = random.Random(7)  # noqa: S311 - moments, not secrets
    hits = 0
    for moment in moments:
        hits += kill_after(repo, out, moment, dice.choice([0, 0, 0.01, 0.03, 0.1]))
        check()
    return hits


def test_killed_while_it_opens_and_while_it_refreshes(repo: Repository) -> None:
    report = repo.report()

    def nothing_is_half_published() -> None:
        for num, status in repo.pulls():
            branch = state.read_branch(repo.owner, repo.repo_id, f"refs/pr/{num}")
            assert status in ("open", "closed")
            assert branch.manifest is not None and branch.offers(branch.manifest)

    hits = killed_often(repo, report, [0, 8, 9, 10, 11, 11], nothing_is_half_published)
    assert hits >= 3
    done = repo.publish(report)
    assert done.operation in ("created", "unchanged", "updated")
    assert [status for _, status in repo.pulls()].count("open") == 1

    other = repo.report([reports.cell("portable"), reports.cell("openvino")])
    hits = killed_often(repo, other, [14, 17, 18, 19, 20, 33], nothing_is_half_published)
    assert hits >= 3
    done = repo.publish(other)
    assert done.pr_num is not None
    assert [status for _, status in repo.pulls()].count("open") == 1
    assert repo.description(done.pr_num) == message.pr_description(other)
    assert repo.owner.get_discussion_details(repo.repo_id, done.pr_num).title == message.pr_title(other)
    branch = state.read_branch(repo.owner, repo.repo_id, f"refs/pr/{done.pr_num}")
    assert branch.offers(other) and len(branch.our_files()) == 2
    assert repo.publish(other).operation == "unchanged"
