"""A fault at every request of every flow, one at a time: it ends as without it, and nothing is there twice."""

from __future__ import annotations

import multiprocessing
import os
import random
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from bot import githubapi
from bot.errors import GitHubRefused, GitHubUnreachable
from bot.export_process import load_output
from bot.publish import message
from bot.publish.github.read import Reader
from bot.publish.github.store import Storing
from bot.publish.loop import Published
from bot.publish.target import GitHubTarget
from tests.bot import reports
from tests.bot.publish.github.repositories import CARD, Repository, repository
from tests.localgithub.testing import RunningGitHub

AFTER = [reports.cell("xnnpack")]


def opened(repo: Repository) -> None:
    """Nothing is there yet."""


def refreshed(repo: Repository) -> None:
    repo.publish(repo.report([reports.cell("portable")]))


def conflicting(repo: Repository) -> None:
    refreshed(repo)
    repo.push({"README.md": CARD + b"\nRewritten.\n\nAnd longer at its very end.\n"})


def left_behind(repo: Repository) -> None:
    """A run that ended before it opened its pull request, of files that are no longer the right ones."""
    repo.there.repo.actions_may_open_pulls = False
    with pytest.raises(Exception, match="not permitted"):
        refreshed(repo)
    repo.there.repo.actions_may_open_pulls = True


def whole(repo: Repository, done: Published, commits: int) -> None:
    """One pull request with everything, and no more commits than it takes."""
    report = repo.report(AFTER)
    assert done.pr_num == 1 and repo.pulls() == [(1, "open")]
    reader = Reader(repo.client(), repo.folder)
    branch = reader.published(reader.repository(repo.there.full_name), str(done.revision))
    assert done.revision == repo.there.head(repo.branch)
    assert branch.manifest is not None and branch.has_section()
    if repo.storage == "lfs":
        assert branch.offers(report) and len(branch.our_files()) == 1
        assert repo.read("executorch/xnnpack/tiny_xnnpack_fp32.pte", repo.branch) == b"xnnpack fp32 program"
    else:
        (made,) = repo.there.repo.releases.values()
        names = [one.name for one in made.assets]
        assert len(names) == len(set(names))
        (kept,) = [one for one in made.assets if one.name.startswith("tiny_xnnpack_fp32-")]
        assert kept.path.read_bytes() == b"xnnpack fp32 program"
    assert message.marker_of(report).line() in repo.description()
    assert len(repo.there.log(repo.branch)) - len(repo.there.log()) == commits


KINDS = ("drop", "drop_before", 502)
FLOWS: list[tuple[Callable[[Repository], None], Storing, int]] = [
    (opened, "lfs", 1),
    (refreshed, "lfs", 2),
    (conflicting, "lfs", 2),
    (left_behind, "lfs", 1),
    (opened, "release", 1),
    (refreshed, "release", 2),
]


def requests_of(github: RunningGitHub, repo: Repository, commits: int) -> list[tuple[int, str]]:
    """Number and method of every request of a publish without faults."""
    github.clear()
    done = repo.publish(repo.report(AFTER))
    found = [(number, one.method) for number, one in enumerate(github.requests)]
    whole(repo, done, commits)
    github.clear()
    assert repo.publish(repo.report(AFTER)).operation == "unchanged"
    assert repo.writes() == []
    return found


@pytest.mark.parametrize(("before", "storage", "commits"), FLOWS)
def test_a_fault_at_every_write(
    github: RunningGitHub, tmp_path: Path, before: Callable[[Repository], None], storage: Storing, commits: int
) -> None:
    def fresh() -> Repository:
        made = repository(github, tmp_path, storage=storage)
        before(made)
        github.clear()
        return made

    writes = [number for number, method in requests_of(github, fresh(), commits) if method not in ("GET", "HEAD")]
    assert len(writes) >= 6
    # Every kind of fault at every write of the first flow; one kind at each of the others.
    for turn, number in enumerate(writes):
        for kind in KINDS if (before, storage) == (opened, "lfs") else [KINDS[turn % 3]]:
            repo = fresh()
            fault = github.fail(".", kind, skip=number)  # type: ignore[arg-type]
            done = repo.publish(repo.report(AFTER))
            assert fault.hits == 1 and done.operation in ("created", "updated")
            whole(repo, done, commits)


def test_a_fault_at_every_read(github: RunningGitHub, tmp_path: Path) -> None:
    requests = requests_of(github, repository(github, tmp_path), 1)
    for number in [number for number, method in requests if method == "GET"]:
        repo = repository(github, tmp_path)
        fault = github.fail(".", KINDS[number % 3], skip=number)  # type: ignore[arg-type]
        whole(repo, repo.publish(repo.report(AFTER)), 1)
        assert fault.hits == 1


def test_what_goes_on_failing_is_told_and_the_next_run_goes_on(repo: Repository) -> None:
    for path in (r"/objects/batch$", r"/git/blobs$", r"/git/refs$", r"/pulls$"):
        repo.github.fail(path, 502, method="POST", times=-1)
        with pytest.raises(GitHubUnreachable):
            repo.publish(repo.report(AFTER))
        repo.github.clear()
        assert repo.pulls() == []
    whole(repo, repo.publish(repo.report(AFTER)), 1)


def test_a_reply_that_githubs_is_not_opens_nothing(repo: Repository) -> None:
    repo.github.fail(r"/git/trees$", 418, method="POST", times=-1)
    with pytest.raises(GitHubRefused):
        repo.publish(repo.report(AFTER))
    assert repo.pulls() == [] and repo.branch not in repo.there.branches()


def test_two_at_once_leave_one_pull_request(repo: Repository) -> None:
    report = repo.report(AFTER)
    out = reports.write(report, repo.scratch / "shared")
    ended: list[Published | Exception] = []

    def one() -> None:
        try:
            ended.append(repo.target().publish(report, out, command="ptebot", dry_run=False, progress=lambda _: None))
        except Exception as error:
            ended.append(error)

    threads = [threading.Thread(target=one) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all(isinstance(item, Published) for item in ended), ended
    assert repo.pulls() == [(1, "open")]
    assert repo.publish(report).operation == "unchanged"


def test_the_token_is_nowhere_to_be_read(repo: Repository, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("DEBUG")
    for path in (r"/objects/batch$", r"/_storage/", r"/verify/", r"/pulls$"):
        for action in (400, 403, "drop"):
            repo.github.clear()
            repo.github.fail(path, action, times=-1, body={"message": f"not with {repo.token}"})  # type: ignore[arg-type]
            try:
                repo.publish(repo.report(AFTER))
            except Exception as error:
                chain = [error, error.__cause__, error.__context__ if not error.__suppress_context__ else None]
                assert all(repo.token not in f"{one!r} {one}" for one in chain), path
    assert repo.token not in caplog.text
    repo.github.clear()
    repo.publish(repo.report(AFTER))
    assert repo.token not in repo.description() + repo.there.log(repo.branch)[0]
    assert repo.token not in "".join(str(one.body) for one in repo.github.requests)


def test_the_token_goes_to_github_alone(repo: Repository) -> None:
    repo.publish(repo.report(AFTER))
    uploads = [one for one in repo.github.requests if one.path.startswith("/_storage/")]
    assert uploads and all(one.auth.startswith("AWS4") for one in uploads)
    assert all(one.auth == "Basic" for one in repo.github.requests if one.path.endswith("/objects/batch"))


# -- killed ----------------------------------------------------------------------------------------------------------

PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(["bot.publish.target", "bot.export_process", "tests.bot.reports"])


def publish(out: str, api_url: str, token: str, repository_name: str, folder: str) -> None:
    """In a process of its own."""
    githubapi.PAUSE_SECONDS = githubapi.WRITE_PAUSE_SECONDS = None
    client = githubapi.connect(token, api_url=api_url)
    target = GitHubTarget(client=client, repository=repository_name, folder=folder)
    report = load_output(Path(out))
    target.publish(report, Path(out), command="ptebot run", dry_run=False, progress=lambda _: None)


def test_killed_at_any_moment(repo: Repository) -> None:
    report = repo.report(AFTER)
    out = reports.write(report, repo.scratch / "killed")
    dice = random.Random(7)  # noqa: S311 - moments, not secrets
    hits = 0
    for moment in (2, 12, 14, 16, 17, 18, 19, 20):
        repo.github.clear()
        arguments = (str(out), repo.github.api_url, repo.token, repo.there.full_name, repo.folder)
        child = PROCESSES.Process(target=publish, args=arguments)
        child.start()
        until = time.monotonic() + 60
        while child.is_alive() and len(repo.github.requests) < moment and time.monotonic() < until:
            time.sleep(0.001)
        time.sleep(dice.choice([0, 0, 0.005, 0.02]))
        hits += child.is_alive()
        os.kill(child.pid or 0, 9)
        child.join()
        assert len(repo.pulls()) <= 1
    assert hits >= 4
    done = repo.publish(report)
    assert done.operation in ("created", "unchanged")
    whole(repo, done, 1)
