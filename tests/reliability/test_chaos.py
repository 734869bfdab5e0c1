"""Servers killed, frozen and dead for good, in small: nothing is lost, nothing doubled, nothing overlaps.

The same scenario and the same judge as ``bench/bot.py``, which runs them with larger figures.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import pytest
from huggingface_hub import CommitOperationAdd, HfApi

from bench.chaos.executor import ROOT
from bench.chaos.exporter import LOG
from bench.chaos.judge import judge
from bench.chaos.scenario import Figures, Scenario
from bot.localhub.testing import running_hub
from exporter import spec as specs
from exporter.spec import ExportSpec, ModelRef
from tests.bot import reports
from tests.reliability.waiting import until


def test_sqlite_one_server_killed_again_and_again(tmp_path: Path) -> None:
    figures = Figures(jobs=12, repos=4, kills=3, seed=3, heartbeat=0.5)
    with running_hub(tmp_path / "hub") as hub:
        scenario = Scenario(figures, hub, f"sqlite:///{tmp_path / 'jobs.sqlite3'}", tmp_path)
        scenario.run()
        verdict = judge(scenario)
        assert verdict.violations == []
        assert verdict.figures["jobs"] == 12
        assert verdict.figures["kills"] >= 3
        assert verdict.figures["pull requests"] == 4
        _the_judge_sees(scenario)


def _the_judge_sees(scenario: Scenario) -> None:
    """What must not happen, done by hand after the run."""
    organisation = scenario.organisation
    push = organisation.pushes[-1]
    bot = HfApi(endpoint=organisation.hub.endpoint, token=organisation.bot_token)
    bot.create_pull_request(push.repo_id, "Another one")
    other = next(one for one in organisation.pushes if one.repo_id != push.repo_id)
    path = "executorch/xnnpack/tiny_xnnpack_fp32.pte"
    operations = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=b"old")]
    bot.create_commit(other.repo_id, operations, commit_message="Back", revision="refs/pr/1")
    jobs = {one.asked.sha: one for one in scenario.jobs()}
    scenario.store.update(jobs[push.sha].id, state="running")
    scenario.store.update(jobs[other.sha].id, state="error")
    (scenario.journal / LOG).open("a").write(
        json.dumps({"event": "overlap", "repo": push.repo_id, "sha": push.sha, "backend": "xnnpack", "pid": 0, "at": 0})
    )
    verdict = judge(scenario)
    assert [len(found) for found in (verdict.doubled, verdict.stale, verdict.overlaps)] == [1, 1, 1]
    assert [len(found) for found in (verdict.lost, verdict.broken)] == [1, 1]


def test_postgresql_one_of_two_workers_frozen_and_then_dead_for_good(tmp_path: Path, postgres_url: str) -> None:
    figures = Figures(jobs=10, repos=5, kills=1, seed=2, workers=2, heartbeat=0.5, concurrency=2)
    with running_hub(tmp_path / "hub") as hub:
        scenario = Scenario(figures, hub, postgres_url, tmp_path)
        course = scenario.run()
        verdict = judge(scenario)
        scenario.store.close()
    assert verdict.violations == []
    assert (course.frozen, course.died) == (1, 1)
    assert verdict.figures["jobs"] == 10
    assert verdict.figures["pull requests"] == 5


@pytest.fixture
def export(tmp_path: Path) -> list[str]:
    """The command of a quick export."""
    spec = ExportSpec(model=ModelRef(repo_id="acme/tiny", revision="1" * 40), backends=("xnnpack",))
    (tmp_path / "spec.json").write_text(json.dumps(specs.to_dict(spec)))
    (tmp_path / "model").mkdir()
    for name, content in reports.MODEL_FILES.items():
        (tmp_path / "model" / name).write_bytes(content)
    (tmp_path / "journal").mkdir()
    words = [tmp_path / "spec.json", tmp_path / "model", tmp_path / "out", tmp_path / "journal"]
    return [sys.executable, "-m", "bench.chaos.exporter", *map(str, words)]


def test_two_exports_of_one_repository_at_once_are_noted(export: list[str], tmp_path: Path) -> None:
    def notes() -> list[str]:
        path = tmp_path / "journal" / LOG
        return [json.loads(line)["event"] for line in path.read_text().splitlines()] if path.exists() else []

    first = subprocess.Popen(export, cwd=ROOT, stdout=subprocess.DEVNULL)
    until(lambda: notes() == ["begin"], "the first begins")
    first.send_signal(19)  # SIGSTOP: it is there as long as the second takes
    subprocess.run(export, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    first.kill()
    first.wait()
    subprocess.run(export, cwd=ROOT, stdout=subprocess.DEVNULL, check=True)
    assert notes() == ["begin", "overlap", "end", "begin", "end"]
    assert time.monotonic() > json.loads((tmp_path / "journal" / LOG).read_text().splitlines()[0])["at"]
