"""Tells people in discussions how their jobs stand: at the engine's word, and in between as the work goes on. Stage 6.

In: a job. Out: the reply's edits, as ``bot.replies.discussion`` bounds them. What cannot be said never ends a job: it
is logged, and tried again later where that may help.
"""

from __future__ import annotations

import logging
import threading
import time

from bot.errors import HubUnreachable
from bot.hubapi import connect
from bot.publish.markdown import one_line
from bot.replies.discussion import EVERY_SECONDS, Discussion
from bot.server.records import JobRecord
from bot.server.settings import Settings
from bot.server.store import Store
from exporter.errors import PtebotError

MOST_AGE = 86_400.0
"""Seconds for which what could not be said is tried again."""

log = logging.getLogger(__name__)


class Replier:
    """What the engine of one process calls with a job (``reply``); ``start`` shows progress in between."""

    def __init__(self, settings: Settings, store: Store, *, worker: str = "", every: float = EVERY_SECONDS) -> None:
        """
        Args:
            worker: this process's name: its own running jobs are followed.
            every: seconds between two looks at them.
        """
        token = settings.token.get_secret_value() if settings.token else None
        self._api, self._speaks = connect(settings.endpoint, token), token is not None
        self._store, self._worker, self._every, self._public_url = store, worker, every, settings.public_url
        self._lock = threading.Lock()
        self._unsaid: dict[str, float] = {}
        self._shown_live: set[str] = set()
        """Jobs that a reply shows as waiting or running: whoever ends them need not be their workflow."""
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="replies", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self, timeout: float = 30.0) -> None:
        self._stopping.set()
        if self._thread.is_alive():
            self._thread.join(timeout)

    def __call__(self, record: JobRecord) -> None:
        """Tell how a job stands now; raises nothing of the Hub's."""
        if not self._speaks or record.asker.discussion is None or record.asker.comment_id is None:
            return
        with self._lock:  # one after the other, each with what is true then: an old one must not come last
            now = self._store.job(record.id)
            if now is not None:
                self._tell(now)

    def look(self) -> None:
        """Tell of every running job of this process, of what could not be told before, and of ends nobody told of."""
        jobs = [job for job in self._store.jobs(states=("running",), limit=200) if job.worker == self._worker]
        wanted = [job.id for job in jobs if job.asker.comment_id is not None]
        for job_id in dict.fromkeys([*wanted, *self._unsaid, *self._shown_live]):
            if (job := self._store.job(job_id)) is not None and not self._stopping.is_set():
                self(job)

    def _tell(self, job: JobRecord) -> None:
        num = job.asker.discussion
        if num is None or self._handed_on(job):
            self._shown_live.discard(job.id)
            return
        place = Discussion(self._api, job.asked.repo_id, num, public_url=self._public_url)
        try:
            reply_id = place.say(job, self._store.reports(job.id))
        except HubUnreachable as error:
            log.warning("the reply of job %s waits: %s", job.id, one_line(error.what, 300))
            first = self._unsaid.setdefault(job.id, time.monotonic())
            if time.monotonic() - first > MOST_AGE:
                del self._unsaid[job.id]
            return
        except PtebotError as error:
            log.warning("no reply for job %s: %s", job.id, one_line(error.what, 300))
        else:
            if reply_id is not None and reply_id != job.reply_id:
                self._store.update(job.id, reply_id=reply_id)
            (self._shown_live.add if job.live else self._shown_live.discard)(job.id)
        self._unsaid.pop(job.id, None)

    def _handed_on(self, job: JobRecord) -> bool:
        """Whether a job of a newer commit answers the same command by now."""
        if job.state != "superseded":
            return False
        others = self._store.jobs(repo_id=job.asked.repo_id, limit=20)
        return any(one.asker.comment_id == job.asker.comment_id and one.id != job.id for one in others)

    def _run(self) -> None:
        while not self._stopping.wait(self._every):
            try:
                self.look()
            except PtebotError as error:
                log.warning("replies wait: %s", one_line(error.what, 300))
            except Exception:  # a thread that ends here would be a part of the server that is silently off
                log.exception("replies wait: a defect")
