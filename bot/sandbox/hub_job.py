"""One Job on Hugging Face: asked, followed, ended; and what the Hub answers, in our terms.

Stage 3 of the way of one request. In: what ``run_job`` or ``list_jobs`` of huggingface_hub gave. Out: lines and words.
"""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress

from huggingface_hub import HfApi, JobInfo
from huggingface_hub._jobs_api import JobStatus

from bot.errors import CommitConflict, HubRefused, HubUnreachable, RemoteJobFailed, RepoNotFound
from bot.hubapi import asking
from bot.sandbox.following import Unanswered
from exporter.errors import PtebotError

TAKEN = "ptebot-taken"
"""The label of a job whose result nobody waits for any more."""
LIVE, ENDED = ("RUNNING", "SCHEDULING"), ("COMPLETED", "CANCELED", "ERROR", "DELETED")
GONE_SECONDS = 60.0


class HubJob:
    """One Job (``bot.sandbox.following.RemoteJob``)."""

    def __init__(self, api: HfApi, namespace: str, info: JobInfo) -> None:
        self._api, self._namespace, self._info = api, namespace, info
        self.id = info.id
        self.name = f"Job {info.id} of {namespace}"

    def lines(self) -> Iterable[str]:
        """As ``RemoteJob``."""
        with _passing(f"reading the log of {self.name}", self._api):
            for text in self._api.fetch_job_logs(job_id=self.id, namespace=self._namespace, follow=True):
                yield from text.split("\n")

    def over(self) -> str | None:
        """As ``RemoteJob``."""
        status = self._status()
        return f"{status.stage}: {(status.message or '')[:300]}" if status.stage in ENDED else None

    def end(self) -> None:
        """As ``RemoteJob``; comes back when it has ended."""
        until = time.monotonic() + GONE_SECONDS
        with _passing(f"ending {self.name}", self._api):
            self._api.cancel_job(job_id=self.id, namespace=self._namespace)
        while self._status().stage not in ENDED:
            if time.monotonic() > until:
                raise RemoteJobFailed(f"{self.name} was cancelled, and does not end.")
            time.sleep(0.2)

    def forget(self) -> None:
        """Say by a label that nobody waits for its result any more."""
        labels = {**(self._info.labels or {}), TAKEN: "1"}
        with _passing(f"labelling {self.name}", self._api):
            self._api.update_job_labels(job_id=self.id, labels=labels, namespace=self._namespace)

    def _status(self) -> JobStatus:
        with _passing(f"asking for {self.name}", self._api):
            return self._api.inspect_job(job_id=self.id, namespace=self._namespace).status


@contextmanager
def refused(what: str, api: HfApi) -> Iterator[None]:
    """What the Hub says no to, as a failure of the job; NotAuthorized and HubUnreachable stay what they are."""
    try:
        with asking(what, api):
            yield
    except (HubRefused, RepoNotFound) as error:
        raise RemoteJobFailed(
            error.what, remedy="Jobs need a paid plan or credits, and a flavor that exists."
        ) from None
    except CommitConflict as conflict:
        raise RemoteJobFailed(str(conflict)) from None


@contextmanager
def _passing(what: str, api: HfApi) -> Iterator[None]:
    """As ``refused``; no answer is Unanswered."""
    try:
        with refused(what, api):
            yield
    except HubUnreachable as error:
        raise Unanswered(error.what) from None


@contextmanager
def at_most() -> Iterator[None]:
    """For what only tidies up: the next run of the same name does it where it cannot be done now."""
    with suppress(Unanswered, PtebotError):
        yield
