"""What a lost webhook missed: every watched repository looked at now and then, and queued where nobody did. Stage 1.

In: the watched owners and repositories, as the Hub lists them. Out: jobs for commits that have none. The list tells
the commit, so that one look costs a request per thousand repositories; whether an export would change anything is
asked by the job's own plan. A run queues so many at most; what is left is found by the next one, which then comes soon.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from bot.errors import CommitConflict, DatabaseUnavailable, HubUnreachable, RevisionNotFound
from bot.hubapi import SHA, asking, connect
from bot.publish.markdown import one_line
from bot.publish.places import REPO_ID
from bot.server import hub_lists
from bot.server.actions import Actions
from bot.server.failures import PASSING
from bot.server.records import Asked, Asker, JobRecord
from bot.server.settings import Settings
from bot.server.store import Store
from bot.server.turn import Turn
from bot.server.watched import Watched
from exporter.errors import PtebotError

MOST_LISTED = 50_000
"""Repositories of one owner."""
MOST_QUEUED = 100
"""Jobs of one run: an owner with thousands of models must not fill the queue before anybody else's turn."""
SOON = 900.0
"""Seconds until the next run where this one left something."""
MOST_ATTEMPTS = 5
"""Of a job that failed for what can pass and is queued again."""
NEEDED = ("sha", "siblings", "disabled")
MOST_UNANSWERED = 2
"""Then it is the Hub that does not answer, or asks to wait: nothing more is asked of it in this run."""
SAY_EVERY = 1_000

log = logging.getLogger(__name__)


@dataclass(kw_only=True)
class Swept:
    """What a run found."""

    looked: int = 0
    queued: int = 0
    known: int = 0
    """With a job for their commit already."""
    no_model: int = 0
    """Without a configuration and weights that could be exported."""
    gone: int = 0
    """Watched by name, and not there for this token."""
    left: bool = False
    """Something was left for the next run."""

    def __str__(self) -> str:
        return (
            f"{self.looked} repositories, {self.queued} queued, {self.known} known, {self.no_model} without a model, "
            f"{self.gone} gone{', more to come' if self.left else ''}"
        )


@dataclass(frozen=True, kw_only=True)
class _Found:
    """A repository as the Hub lists it."""

    repo_id: str
    sha: str
    exportable: bool


class Sweep:
    """One thread that looks, in one process at a time of those that share the database."""

    def __init__(self, settings: Settings, store: Store, actions: Actions) -> None:
        token = settings.token.get_secret_value() if settings.token else None
        self._api = connect(settings.endpoint, token)
        self._store, self._actions, self._interval = store, actions, settings.sweep_interval
        self._watched = Watched(settings.watch)
        self._turn = Turn(store.engine, "sweep")
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="sweep", daemon=True)

    def start(self) -> None:
        """Look now and then again each interval; nothing where the interval is 0 or nothing is watched."""
        if self._interval > 0 and (self._watched.owners or self._watched.repos):
            self._thread.start()

    def stop(self, timeout: float = 30.0) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._turn.close()

    def run_once(self) -> Swept:
        """Look at everything once. What cannot be looked at now is logged and left.

        Raises:
            DatabaseUnavailable: the rest is left for later.
        """
        swept, unanswered = Swept(), 0
        for name in (*self._watched.owners, *self._watched.repos):
            try:
                for found in self._of(name):
                    swept.looked += 1
                    if swept.looked % SAY_EVERY == 0:
                        log.info("sweep: %s so far", swept)
                    self._consider(found, swept)
                    if swept.queued >= MOST_QUEUED or self._stopping.is_set():
                        swept.left = True
                        return swept
            except DatabaseUnavailable:
                raise
            except HubUnreachable as error:
                log.warning("sweep: %s is left for later: %s", name, one_line(error.what, 300))
                swept.left = True
                unanswered += 1
                if unanswered >= MOST_UNANSWERED:
                    return swept
            except (PtebotError, CommitConflict) as error:
                log.warning("sweep: %s cannot be looked at: %s", name, one_line(error, 300))
                swept.gone += 1
        return swept

    def _of(self, name: str) -> Iterator[_Found]:
        """The repositories that a watched name stands for, the latest change first."""
        if "/" in name:
            with asking(f"reading {name}", self._api):
                info = self._api.model_info(name, revision="main", expand=["sha", "siblings", "disabled"])
            if info.id.lower() != name.lower():
                log.warning("sweep: %s is called %s now; its webhooks need the new name", name, one_line(info.id, 200))
            rows: Iterator[dict[str, Any]] = iter(
                [{"id": info.id, "sha": info.sha, "siblings": info.siblings, "disabled": info.disabled}]
            )
        else:
            rows = hub_lists.rows(
                self._api,
                "/api/models",
                f"listing the models of {name}",
                most=MOST_LISTED,
                author=name,
                sort="lastModified",
                limit=1_000,
                expand=list(NEEDED),
            )
        for row in rows:
            found = _found(row)
            if found is not None and (found.repo_id in self._watched or "/" in name):
                yield found

    def _consider(self, found: _Found, swept: Swept) -> None:
        """Queue a repository's commit where it has no job, or one that ended for what has passed since."""
        if not found.exportable:
            swept.no_model += 1
            return
        there = self._store.job(Asked(repo_id=found.repo_id, sha=found.sha).id)
        if (there is not None and not _again(there)) or self._asked_otherwise(found):
            swept.known += 1
            return
        asked = Asked(repo_id=found.repo_id, sha=self._head(found.repo_id))
        there = self._store.job(asked.id)
        if there is None:
            self._actions.submit(asked, Asker(trigger="sweep"))
        elif _again(there):
            self._actions.retry(there.id, by="sweep")
        else:
            swept.known += 1
            return
        log.info("sweep: %s at %s queued", asked.repo_id, asked.sha[:12])
        swept.queued += 1

    def _head(self, repo_id: str) -> str:
        """The main branch's commit, asked of the repository itself: a list may be old, and would end newer jobs."""
        with asking(f"reading {repo_id}", self._api):
            sha = self._api.model_info(repo_id, revision="main", expand=["sha"]).sha
        if not SHA.fullmatch(sha or ""):
            raise RevisionNotFound(f"The Hub gives {repo_id} no commit on its main branch.")
        return str(sha)

    def _asked_otherwise(self, found: _Found) -> bool:
        """Whether a job that a person asked for is at work on this commit: it is left alone, and looked at later."""
        jobs = self._store.jobs(states=("queued", "running"), repo_id=found.repo_id, limit=10)
        return any(job.asked.sha == found.sha for job in jobs)

    def _run(self) -> None:
        wait = 0.0
        while not self._stopping.wait(wait):
            wait = min(self._interval, SOON)
            began = time.monotonic()
            try:
                if not self._turn.mine():
                    continue
                swept = self.run_once()
                log.info("sweep: %s, %.1f s", swept, time.monotonic() - began)
                if not swept.left:
                    wait = self._interval
            except PtebotError as error:
                log.warning("sweep: left for later: %s", one_line(error.what, 300))
            except Exception:  # a thread that ends here would be a part of the server that is silently off
                log.exception("sweep: a defect")


def _found(row: dict[str, Any]) -> _Found | None:
    """A listed repository; None where the list does not name a commit, or it is switched off."""
    repo_id, sha = row.get("id"), row.get("sha")
    if not isinstance(repo_id, str) or not REPO_ID.fullmatch(repo_id):
        return None
    if not isinstance(sha, str) or not SHA.fullmatch(sha) or row.get("disabled") is True:
        return None
    return _Found(repo_id=repo_id, sha=sha, exportable=_exportable(row.get("siblings")))


def _exportable(siblings: Any) -> bool:
    """Whether there may be something to export; a list of files that the Hub does not give says nothing."""
    if not isinstance(siblings, list) or not siblings:
        return True
    names = {one.get("rfilename") if isinstance(one, dict) else getattr(one, "rfilename", None) for one in siblings}
    plain = {name for name in names if isinstance(name, str) and "/" not in name}
    return "config.json" in plain and any(name.endswith(".safetensors") for name in plain)


def _again(job: JobRecord) -> bool:
    """Whether an ended job is done again: its commit is on the main branch after all, or its trouble may have passed.

    One that was cancelled stays so, and one whose failure is the model's is not tried again: it would fail again.
    """
    if job.state == "superseded":
        return True
    passing = job.failure is not None and job.failure.name in {error.__name__ for error in PASSING}
    return job.state == "error" and passing and job.attempt < MOST_ATTEMPTS
