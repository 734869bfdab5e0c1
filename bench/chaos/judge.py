"""The verdict on a chaos run, from what can be seen from outside: the Hub's API, the job rows, the exporters' journal.

In: a scenario that has ended. Out: figures, and a line for each violation of what docs/reliability.md promises.
"""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from bench.chaos.exporter import LOG
from bench.chaos.hub import Push, expected
from bench.chaos.scenario import Scenario

GOOD = ("passed", "unchanged", "superseded")
"""Ends of a job in a run in which every export is good."""


@dataclass(kw_only=True)
class Verdict:
    """What came of it."""

    figures: dict[str, Any] = field(default_factory=dict)
    lost: list[str] = field(default_factory=list)
    """Pushes that were answered for and have no job, or one that has not ended."""
    broken: list[str] = field(default_factory=list)
    """Jobs that ended otherwise than they should."""
    doubled: list[str] = field(default_factory=list)
    """Repositories with more than one pull request, or none."""
    stale: list[str] = field(default_factory=list)
    """Pull requests that do not offer the files of the last commit."""
    overlaps: list[str] = field(default_factory=list)
    """Exports that began while another one of the same repository ran."""
    orphans: list[str] = field(default_factory=list)
    """Exporters that outlived their workers."""

    @property
    def violations(self) -> list[str]:
        kinds = ("lost", "broken", "doubled", "stale", "overlaps", "orphans")
        return [f"{kind}: {line}" for kind in kinds for line in getattr(self, kind)]


def judge(scenario: Scenario) -> Verdict:
    """Look at everything once."""
    verdict = Verdict()
    _jobs(scenario, verdict)
    _pulls(scenario, verdict)
    _exports(scenario, verdict)
    return verdict


def last_pushes(scenario: Scenario) -> dict[str, Push]:
    return {push.repo_id: push for push in scenario.organisation.pushes}


def _jobs(scenario: Scenario, verdict: Verdict) -> None:
    jobs = {one.asked.sha: one for one in scenario.jobs()}
    last = last_pushes(scenario)
    for push in scenario.organisation.pushes:
        job = jobs.get(push.sha)
        name = f"{push.repo_id} push {push.number} ({push.sha[:8]})"
        if job is None:
            verdict.lost.append(f"{name} has no job")
        elif job.live:
            verdict.lost.append(f"{name}: job {job.id} is {job.state} at {job.stage!r}, worker {job.worker}")
        elif job.state not in GOOD:
            why = job.failure.what[:200] if job.failure else job.reason
            verdict.broken.append(f"{name}: job {job.id} ended as {job.state}: {why}")
        elif push is last[push.repo_id] and job.state == "superseded":
            verdict.broken.append(f"{name}: job {job.id} of the last commit is superseded: {job.reason}")
        elif job.state == "superseded" and not job.reason:
            verdict.broken.append(f"{name}: job {job.id} does not say what superseded it")
    for delivery in scenario.store.waiting(10_000):
        verdict.lost.append(f"delivery {delivery.key} of {delivery.repo_id} was never handled")
    course = scenario.course
    verdict.figures |= {
        "jobs": len(jobs),
        **dict(sorted(Counter(one.state for one in jobs.values()).items())),
        "kills": course.kills,
        "frozen": course.frozen,
        "died for good": course.died,
        "delivered again": course.delivered_again,
        "gave up": course.gave_up,
        "seconds": round(course.seconds, 1),
    }


def _pulls(scenario: Scenario, verdict: Verdict) -> None:
    organisation, count = scenario.organisation, 0
    for repo_id, push in last_pushes(scenario).items():
        pulls = organisation.pulls(repo_id)
        count += len(pulls)
        if len(pulls) != 1:
            verdict.doubled.append(f"{repo_id} has {len(pulls)} pull requests: {pulls}")
            continue
        num, status = pulls[0]
        for backend in scenario.figures.backends:
            path = f"{backend}/tiny_{backend}_fp32.pte"
            try:
                found = organisation.offered(repo_id, num, f"executorch/{path}", scenario.folder / "offered")
            except Exception as error:
                verdict.stale.append(f"{repo_id} #{num} ({status}): {path}: {type(error).__name__}")
                continue
            if found != expected(push, backend, "fp32"):
                verdict.stale.append(f"{repo_id} #{num} ({status}): {path} is not of {push.sha[:8]}")
    verdict.figures["pull requests"] = count


def _exports(scenario: Scenario, verdict: Verdict) -> None:
    path: Path = scenario.journal / LOG
    notes = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    begun = [one for one in notes if one["event"] != "end"]
    ended = {(one["pid"], one["sha"], one["backend"]) for one in notes if one["event"] == "end"}
    for one in begun:
        if one["event"] == "overlap":
            verdict.overlaps.append(f"{one['repo']} {one['sha'][:8]} {one['backend']}, process {one['pid']}")
    pids = {one["pid"] for one in begun}
    for process in psutil.process_iter(["pid", "cmdline"]):
        words = process.info["cmdline"] or []
        if process.info["pid"] in pids and "bench.chaos.exporter" in words and str(scenario.journal) in words:
            verdict.orphans.append(f"process {process.info['pid']}: {' '.join(words[-4:])}")
    verdict.figures["exports begun"] = len(begun)
    verdict.figures["exports killed"] = sum((one["pid"], one["sha"], one["backend"]) not in ended for one in begun)
