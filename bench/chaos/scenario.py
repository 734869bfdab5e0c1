"""One chaos run: pushes over time, processes killed at random moments, one frozen, one that dies for good.

In: figures and a seed. Out: what the judge needs. The moments are drawn from the seed: each is a number of jobs that
have ended and some milliseconds more, so that a slow machine is killed in the same places as a quick one. Where in a
step that is, the machine decides; the more kills, the more places.
"""

from __future__ import annotations

import random
import secrets
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from bench.chaos.hub import OWNER, Organisation, Push
from bench.chaos.processes import Process
from bot.localhub.testing import RunningHub
from bot.server.records import LIVE, JobRecord
from bot.server.store import Store, open_engine

STUCK_SECONDS = 120.0
"""Without anything that changes, after which a run is given up; the judge tells what is stuck."""
BACKLOG = 24
"""Jobs that wait or run at once, at most: pushes go on until the end, and kills hit all kinds of moments."""
HASTY = 0.35
"""Of the pushes, those that do not wait for the job of the one before."""
STILLBORN, STARTING_SECONDS = 0.25, 4.0
"""How often a process is killed again while it starts, and within which time."""
AGAIN_SECONDS = 3.0
"""After which a push of which the server knows nothing is delivered again."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What is done to whom."""

    jobs: int = 200
    repos: int = 60
    kills: int = 12
    seed: int = 1
    workers: int = 1
    """With two, the second is frozen once, and dies for good later on."""
    concurrency: int = 3
    heartbeat: float = 1.0
    backends: tuple[str, ...] = ("xnnpack",)


@dataclass
class Course:
    """How a run went."""

    figures: Figures
    seconds: float = 0.0
    kills: int = 0
    frozen: int = 0
    died: int = 0
    delivered_again: int = 0
    gave_up: bool = False
    processes: list[Process] = field(default_factory=list)


OnText = Callable[[str], None]


def say_on_terminal(text: str) -> None:
    if sys.stderr.isatty():
        print(text, end="", file=sys.stderr, flush=True)


class Scenario:
    """A run over a Hub and a database that are there."""

    def __init__(
        self,
        figures: Figures,
        hub: RunningHub,
        database: str,
        folder: Path,
        say: Callable[[str], None] = say_on_terminal,
    ) -> None:
        self.figures, self.database, self.folder, self._say = figures, database, folder, say
        self._random = random.Random(figures.seed)  # noqa: S311 - repeatable, not secret
        self.organisation = Organisation.on(hub)
        self.journal = folder / "journal"
        self.journal.mkdir(parents=True)
        self.store = Store(open_engine(database))
        self.course = Course(figures)
        self._moments = self._drawn()
        self._later: list[tuple[float, Callable[[], None]]] = []

    def run(self) -> Course:
        """From the first push to the last job's end; processes are gone behind it."""
        figures, course = self.figures, self.course
        repos = [self.organisation.create(f"model-{number}") for number in range(figures.repos)]
        secret, port = secrets.token_hex(32), free_port()
        course.processes = [self._process(name, secret, port) for name in ("one", "two")[: figures.workers]]
        began = time.monotonic()
        try:
            for process in course.processes:
                process.start()
            self.organisation.install(f"http://127.0.0.1:{port}/webhooks/hub", secret)
            self._drive(repos)
        finally:
            for process in course.processes:
                process.kill()
        course.seconds = time.monotonic() - began
        return course

    def _process(self, name: str, secret: str, port: int) -> Process:
        figures, organisation = self.figures, self.organisation
        settings = {
            **server_settings(organisation.hub.endpoint, organisation.bot_token, secret, self.database),
            "PTEBOT_CONCURRENCY": str(figures.concurrency),
            "PTEBOT_HEARTBEAT": str(figures.heartbeat),
            "PTEBOT_BACKENDS": ",".join(figures.backends),
            "PTEBOT_PRECISIONS": "fp32",
        }
        return Process(name, self.folder, settings, self.journal, port if name == "one" else 0)

    def _drive(self, repos: list[str]) -> None:
        waiting = self._pushes(repos)
        told: dict[str, tuple[Push, float]] = {}
        changed, seen = time.monotonic(), None
        while True:
            jobs = {one.asked.sha: one for one in self.jobs()}
            live = sum(one.live for one in jobs.values())
            ended = len(jobs) - live
            self._say(f"\r{ended} of {self.figures.jobs} jobs ended, {live} live, {self.course.kills} kills ")
            self._strike(ended)
            self._deliver_again(told, jobs)
            busy = {one.asked.repo_id for one in jobs.values() if one.live}
            for repo_id, hasty in list(waiting):
                if live + len(told) >= BACKLOG:
                    break
                if repo_id not in told and (hasty or repo_id not in busy):
                    waiting.remove((repo_id, hasty))
                    told[repo_id] = (self.organisation.push(repo_id), time.monotonic())
            now = (ended, live, len(told), len(waiting), self.course.kills, sorted(map(str, jobs.values())))
            if now != seen:
                changed, seen = time.monotonic(), now
            if not waiting and not told and not live and not self._later:
                return
            if time.monotonic() - changed > STUCK_SECONDS:
                self.course.gave_up = True
                return
            time.sleep(0.1)

    def _pushes(self, repos: list[str]) -> list[tuple[str, bool]]:
        """Whose main branch moves, in order, and whether it moves although a job of it runs, which is superseded."""
        found: list[tuple[str, bool]] = []
        while len(found) < self.figures.jobs:
            self._random.shuffle(repos)
            found += [(repo_id, self._random.random() < HASTY) for repo_id in repos]
        return found[: self.figures.jobs]

    def jobs(self) -> list[JobRecord]:
        """All jobs that the server knows."""
        return self.store.jobs(limit=100_000)

    def live(self) -> list[JobRecord]:
        return self.store.jobs(states=LIVE, limit=100_000)

    def _deliver_again(self, told: dict[str, tuple[Push, float]], jobs: dict[str, JobRecord]) -> None:
        """Deliveries that met a dead server are lost, as on the Hub; their owner sends them again."""
        known = {one.data.get("sha") for one in self.store.waiting(10_000)}
        for repo_id, (push, at) in list(told.items()):
            if push.sha in jobs:
                del told[repo_id]
            elif push.sha not in known and time.monotonic() - at > AGAIN_SECONDS and self._serving():
                self.organisation.deliver_again(push)
                self.course.delivered_again += 1
                told[repo_id] = (push, time.monotonic())

    def _serving(self) -> bool:
        first = self.course.processes[0]
        return first.running and not first.frozen

    # --- what happens to the processes

    def _drawn(self) -> list[tuple[int, float, str]]:
        """When and what: ended jobs, seconds after that, and ``kill``, ``freeze`` or ``die``."""
        figures, draw = self.figures, self._random
        most = int(figures.jobs * 0.9)
        found = [(draw.randint(0, most), draw.uniform(0, 1.5), "kill") for _ in range(figures.kills)]
        if figures.workers > 1:
            found.append((int(figures.jobs * draw.uniform(0.1, 0.4)), draw.uniform(0, 1.5), "freeze"))
            found.append((int(figures.jobs * draw.uniform(0.55, 0.75)), draw.uniform(0, 1.5), "die"))
        return sorted(found)

    def _strike(self, ended: int) -> None:
        now = time.monotonic()
        while self._moments and self._moments[0][0] <= ended:
            _, after, what = self._moments.pop(0)
            self._later.append((now + after, getattr(self, f"_{what}")))
        due = [one for one in self._later if one[0] <= now]
        self._later = [one for one in self._later if one[0] > now]
        for _, act in due:
            act()

    def _kill(self) -> None:
        able = [one for one in self.course.processes if one.running and not one.frozen]
        if able:
            victim = self._random.choice(able)
            victim.kill()
            self.course.kills += 1
            while self._random.random() < STILLBORN:
                victim.launch()
                time.sleep(self._random.uniform(0, STARTING_SECONDS))
                victim.kill()
                self.course.kills += 1
            victim.start()

    def _freeze(self) -> None:
        """Longer than it takes to be taken for dead."""
        victim = self.course.processes[1]
        if not victim.running:
            return
        victim.freeze()
        self.course.frozen += 1
        self._later.append((time.monotonic() + 10 * self.figures.heartbeat, victim.wake))

    def _die(self) -> None:
        """For good: nobody starts it again."""
        victim = self.course.processes[1]
        if victim.frozen:
            self._later.append((time.monotonic() + self.figures.heartbeat, self._die))
            return
        victim.kill()
        self.course.died += 1


def server_settings(endpoint: str, token: str, secret: str, database: str) -> dict[str, str]:
    """What every server of the bench is told, as environment variables."""
    return {
        "HF_ENDPOINT": endpoint,
        "HF_TOKEN": token,
        "PTEBOT_WEBHOOK_SECRET": secret,
        "PTEBOT_WATCH": OWNER,
        "PTEBOT_DATABASE": database,
        "PTEBOT_SWEEP_INTERVAL": "0",  # what is lost has to be lost
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
