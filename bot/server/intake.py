"""Kept deliveries into jobs: takes what the inbox holds, in order, asks the Hub what is true, and submits. Stage 1.

A payload only says where to look. What fails for what can pass (the network, the Hub's limits, the database) is tried
again with growing pauses, and later deliveries of the same repository wait behind it. A delivery counts as handled
when what it asks for is done, so that a crash in between does it again: job ids are hashes, and replies are looked
for before they are written.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from bot.errors import DatabaseUnavailable, HubUnreachable
from bot.hubapi import SHA, asking, connect
from bot.publish.markdown import one_line
from bot.publish.places import REPO_ID
from bot.server import hub_lists
from bot.server.actions import Actions
from bot.server.comments import Comments
from bot.server.records import Asked, Asker, Delivery
from bot.server.settings import Settings
from bot.server.store import Store
from bot.server.turn import Turn
from bot.server.watched import Watched
from exporter.errors import DiskFull, PtebotError


class NotSeenYet(Exception):
    """The Hub told of a commit that its API does not show on the main branch yet. Never shown: it is tried again."""


PASSING: tuple[type[Exception], ...] = (HubUnreachable, DatabaseUnavailable, DiskFull, NotSeenYet)
"""Tried again; everything else is told as the outcome."""
FIRST_PAUSE, LONGEST_PAUSE = 1.0, 300.0
"""Seconds before a delivery is tried again, doubled each time."""
MOST_DEFECTS = 5
"""Tries of a delivery that meets a defect of ours."""
MOST_AGE = 3 * 86400.0
"""Seconds after which a delivery that cannot be handled is given up: the sweep finds what it was about."""
MOST_UNANSWERED = 3
"""Failures in a row after which the others wait too: the Hub is down, or asks to wait."""
MOST_WAITING = 1_000
MOST_COMMITS = 500
"""Of the main branch's history, among which a pushed commit is looked for."""
NOT_SEEN_TRIES = 4
"""How often a pushed commit that the Hub does not show yet is waited for."""

log = logging.getLogger(__name__)


@dataclass
class _Trouble:
    """A delivery that could not be handled so far."""

    tries: int = 0
    not_before: float = 0.0
    """On the monotonic clock."""


class Intake:
    """One thread that handles deliveries, in one process at a time of those that share the database."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        actions: Actions,
        *,
        poll: float = 5.0,
        on_outcome: Callable[[Delivery, str], None] = lambda _, __: None,
    ) -> None:
        """
        Args:
            poll: seconds between two looks where nothing wakes it: other machines receive webhooks too.
            on_outcome: told of each handled delivery and its outcome.
        """
        self._store, self._actions, self._poll, self._on_outcome = store, actions, poll, on_outcome
        token = settings.token.get_secret_value() if settings.token else None
        self._api = connect(settings.endpoint, token)
        self._watched = Watched(settings.watch)
        self._comments = Comments(settings, store, actions, self._api)
        self._turn = Turn(store.engine, "intake")
        self._troubles: dict[str, _Trouble] = {}
        self._awake, self._stopping = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, name="intake", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def wake(self) -> None:
        """Something new is there; may be called from anywhere."""
        self._awake.set()

    def stop(self, timeout: float = 30.0) -> None:
        """End after what is being handled now."""
        self._stopping.set()
        self._awake.set()
        if self._thread.is_alive():
            self._thread.join(timeout)
        self._turn.close()

    def drain(self) -> float | None:
        """Handle all that can be handled now; seconds until more can, None where nothing is left.

        Raises:
            DatabaseUnavailable: the rest is left for later.
        """
        held: set[str] = set()
        soonest: float | None = None
        unanswered = 0
        waiting = self._store.waiting(MOST_WAITING)
        self._troubles = {one.key: self._troubles[one.key] for one in waiting if one.key in self._troubles}
        for delivery in waiting:
            if self._stopping.is_set():
                return 0.0
            repo = delivery.repo_id.lower()
            if repo in held:
                continue
            if self._pause(delivery) == 0:
                unanswered = 0 if self._handle(delivery) else unanswered + 1
            if delivery.key in self._troubles:
                held.add(repo)
                pause = self._pause(delivery)
                soonest = pause if soonest is None else min(soonest, pause)
            if unanswered >= MOST_UNANSWERED:
                return max(FIRST_PAUSE, soonest or 0.0)
        return 0.0 if soonest is None and len(waiting) == MOST_WAITING else soonest

    def _pause(self, delivery: Delivery) -> float:
        """Seconds that a delivery waits still; 0 where it may be tried."""
        trouble = self._troubles.get(delivery.key)
        return max(trouble.not_before - time.monotonic(), 0.0) if trouble is not None else 0.0

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._awake.clear()
            wait: float | None = None
            try:
                if self._turn.mine():
                    wait = self.drain()
            except DatabaseUnavailable as error:
                log.warning("deliveries wait: %s", error.what)
            except Exception:  # a thread that ends here would be a part of the server that is silently off
                log.exception("deliveries wait: a defect")
            self._awake.wait(min(self._poll, max(wait, 0.01)) if wait is not None else self._poll)

    def _handle(self, delivery: Delivery) -> bool:
        """Whether it is handled; else it is tried again."""
        try:
            outcome = self._outcome(delivery)
        except PASSING as error:
            if time.time() - delivery.received_at < MOST_AGE:
                self._later(delivery, error)
                return False
            outcome = f"given up: {type(error).__name__}"
        except PtebotError as error:
            outcome = f"{type(error).__name__}: {error.what}"
        except Exception as error:
            if self._tries(delivery) < MOST_DEFECTS:
                log.exception("a delivery met a defect: %s %s", delivery.kind, delivery.repo_id)
                self._later(delivery, error)
                return False
            log.exception("a delivery is given up: %s %s", delivery.kind, delivery.repo_id)
            outcome = f"given up: {type(error).__name__}"
        self._store.handled(delivery.key, one_line(outcome, 1000))
        self._troubles.pop(delivery.key, None)
        log.info("%s %s: %s", delivery.kind, delivery.repo_id, one_line(outcome, 300))
        self._on_outcome(delivery, outcome)
        return True

    def _later(self, delivery: Delivery, error: Exception) -> None:
        trouble = self._troubles.setdefault(delivery.key, _Trouble())
        trouble.tries += 1
        pause = min(FIRST_PAUSE * 2 ** (trouble.tries - 1), LONGEST_PAUSE) * random.uniform(0.8, 1.2)  # noqa: S311
        trouble.not_before = time.monotonic() + pause
        log.warning("%s %s waits %.1f s: %s", delivery.kind, delivery.repo_id, pause, one_line(error, 300))

    def _tries(self, delivery: Delivery) -> int:
        return trouble.tries if (trouble := self._troubles.get(delivery.key)) is not None else 0

    def _outcome(self, delivery: Delivery) -> str:
        """Do what a delivery asks for: the job's id, or why there is none."""
        if delivery.repo_id not in self._watched:
            return f"{delivery.repo_id} is not watched"
        if delivery.kind == "comment":
            return self._comments.handle(delivery)
        return self._push(delivery)

    def _push(self, delivery: Delivery) -> str:
        """Export what the main branch holds now: a delivery may be late, or sent again."""
        told = delivery.data.get("sha")
        with asking(f"reading {delivery.repo_id}", self._api):
            info = self._api.model_info(delivery.repo_id, revision="main")
        head = str(info.sha or "")
        if not SHA.fullmatch(head) or not REPO_ID.fullmatch(info.id):
            return "the Hub does not say what is on the main branch"
        if not self._watched.follows(delivery.repo_id, info.id):
            return f"{delivery.repo_id} is {info.id} now, which is not watched"
        if told != head and self._tries(delivery) < NOT_SEEN_TRIES and not self._past(info.id, head, told):
            raise NotSeenYet(f"the Hub does not show {told} yet")
        job, _ = self._actions.submit(Asked(repo_id=info.id, sha=head), Asker(trigger="webhook"))
        return job.id

    def _past(self, repo_id: str, head: str, sha: object) -> bool:
        """Whether a commit is among the latest of the main branch."""
        path = f"/api/models/{repo_id}/commits/{head}"
        listed = hub_lists.rows(self._api, path, f"reading the commits of {repo_id}", most=MOST_COMMITS)
        return any(one.get("id") == sha for one in listed)
