"""Asks for jobs: rows of the store and workflows of the engine, made to agree. Stage 1 of the way of one request.

In: what is wanted. Out: jobs that wait for an ``Engine`` of any process. Our own table is what people see; ``mend``
makes it agree with the engine's where a kill came between the two.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import sqlalchemy as sa
from dbos import DBOSClient

from bot.errors import DatabaseUnavailable, ExporterFailed, ExportTimedOut, JobNotFound, NotOfThisState
from bot.server import failures
from bot.server.records import LIVE, PRIORITIES, Asked, Asker, JobRecord
from bot.server.settings import Settings
from bot.server.store import Store
from bot.workflow.names import APPLICATION, MOST_RECOVERIES, QUEUE, VERSION, WORKFLOW, database, workflow_id
from exporter.errors import PtebotError

log = logging.getLogger(__name__)


class Queue:
    """Asks for jobs; ``bot.server.actions.Actions`` over the engine's own tables. Needs a database that an ``Engine``
    has been started on once."""

    def __init__(self, settings: Settings, store: Store, seal: Callable[[str, str], bytes] | None = None) -> None:
        """``seal`` encrypts a person's token for a job's id before it is kept; without it, tokens are refused."""
        self._settings, self.store, self._seal = settings, store, seal
        self.on_end: Callable[[str, str | None], None] = lambda _state, _failure: None
        """Told of each job that is ended here rather than by its workflow: its state, and the class of its failure."""
        try:
            self._client = DBOSClient(
                system_database_url=database(store),
                application_name=APPLICATION,
                lazy=True,
                retry_connection_errors=False,
            )
        except sa.exc.SQLAlchemyError as error:
            raise DatabaseUnavailable(f"The database does not answer: {type(error).__name__}.") from None

    def close(self) -> None:
        self._client.destroy()

    def submit(self, asked: Asked, asker: Asker, *, token: str | None = None) -> tuple[JobRecord, bool]:
        """As ``Actions.submit``. What the main branch came back to is done again, and for a person what broke, too."""
        if token is not None and self._seal is None:
            raise ValueError("a token was given, and nothing to seal it with")
        asker = replace(asker, own_token=token is not None)
        record, new = self.store.add(asked, asker)
        self._supersede(record)
        again = not record.live and (self._overtaken(record) or self._broke(record, asker))
        # Whoever else asks for a job that is there waits for it; they do not make it theirs.
        if token is not None and self._seal is not None and (new or again or (record.live and record.asker == asker)):
            self.store.seal(record.id, self._seal(record.id, token))
        if again:
            return self._again(record, asker=asker), True
        if record.state == "queued" and PRIORITIES[asker.trigger] < record.priority:
            record = self._hurry(record, PRIORITIES[asker.trigger])
        if record.live:
            self._enqueue(record)
        return record, new

    def cancel(self, job_id: str, *, by: str) -> JobRecord:
        record = self._found(job_id)
        if not self.store.end(job_id, "cancelled", reason=f"cancelled by {by}"):
            raise NotOfThisState(f"Job {job_id} is {record.state}; only a waiting or running one can be cancelled.")
        self.on_end("cancelled", None)
        self._stop(record)
        return self._found(job_id)

    def retry(self, job_id: str, *, by: str) -> JobRecord:
        record = self._found(job_id)
        if record.live:
            raise NotOfThisState(f"Job {job_id} is {record.state}; only one that ended can be done again.")
        log.info("retry of %s by %s", job_id, by)
        return self._again(record)

    def resume(self, job_id: str, *, by: str) -> JobRecord:
        record = self._found(job_id)
        if record.state not in ("cancelled", "error", "superseded"):
            raise NotOfThisState(f"Job {job_id} is {record.state}; only what broke off can go on.")
        name = workflow_id(job_id, record.attempt)
        if self._statuses([name]).get(name) not in ("CANCELLED", "MAX_RECOVERY_ATTEMPTS_EXCEEDED"):
            return self._again(record)
        if not self._open(record, record.attempt):
            raise NotOfThisState(f"Job {job_id} changed at this moment.")
        log.info("%s resumed by %s", job_id, by)
        self._client.resume_workflow(name, queue_name=QUEUE)
        return self._found(job_id)

    def forget(self, job_ids: Sequence[str]) -> None:
        """Remove what the engine keeps of ended jobs, of all their attempts."""
        names = [status.workflow_id for job in job_ids for status in self._listed(prefix=f"{job}-")]
        if names:
            self._client.delete_workflows(names)

    def mend(self) -> None:
        """Make our jobs and the engine's agree where a kill, or the engine itself, came between them."""
        live = self.store.jobs(states=LIVE, limit=10_000, oldest_first=True)
        names = {workflow_id(one.id, one.attempt): one for one in live}
        statuses = self._statuses(list(names))
        for name, record in names.items():
            status = statuses.get(name)
            if status is None:
                self._enqueue(record)
            elif status == "CANCELLED" and record.started_at is None:
                self._client.resume_workflow(name, queue_name=QUEUE)  # killed between the two halves of ``resume``
            elif status == "CANCELLED":
                hours = self._settings.job_timeout / 3600
                self._broken(record, ExportTimedOut(f"The job took longer than {hours:,.1f} hours."))
            elif status == "MAX_RECOVERY_ATTEMPTS_EXCEEDED":
                self._broken(record, ExporterFailed(f"Its process died {MOST_RECOVERIES} times while it ran."))
            elif status in ("ERROR", "SUCCESS"):
                # A workflow writes its job's end before its own: one that did not, met a kill or a defect there.
                self._broken(record, ExporterFailed("Its workflow broke off; the log of its worker says why."))

        wanted = set(names)
        unwanted = [one.workflow_id for one in self._listed(status=["PENDING", "ENQUEUED", "DELAYED"])]
        if left := [name for name in unwanted if name not in wanted and not self._wanted(name)]:
            self._client.cancel_workflows(left)

    def _wanted(self, name: str) -> bool:
        """Asked again of the store: the job may have come since the list was made."""
        job_id, _, attempt = name.rpartition("-")
        record = self.store.job(job_id)
        return record is not None and record.live and str(record.attempt) == attempt

    def _broken(self, record: JobRecord, error: PtebotError) -> None:
        now = self.store.job(record.id)
        if now is None or now.attempt != record.attempt:
            return
        if self.store.end(record.id, "error", failure=failures.as_record(error)):
            self.on_end("error", type(error).__name__)

    def _again(self, record: JobRecord, asker: Asker | None = None) -> JobRecord:
        if not self._open(record, record.attempt + 1, asker):
            raise NotOfThisState(f"Job {record.id} changed at this moment.")
        opened = self._found(record.id)
        self._enqueue(opened)
        return opened

    def _open(self, record: JobRecord, attempt: int, asker: Asker | None = None) -> bool:
        fields: dict[str, Any] = {"state": "queued", "attempt": attempt, "stage": "", "fraction": None, "reason": None}
        fields |= {"failure": None, "started_at": None, "ended_at": None, "created_at": time.time()}
        if asker is not None:
            fields["asker"] = asdict(asker)
        return self.store.update(record.id, only_if=(record.state,), **fields)

    def _supersede(self, record: JobRecord) -> None:
        """End the repository's live jobs at other commits: what they would publish is not what it holds."""
        for other in self.store.jobs(states=LIVE, repo_id=record.asked.repo_id, limit=1000):
            if other.asked.sha != record.asked.sha:
                reason = f"newer commit {record.asked.sha[:12]}"
                if self.store.end(other.id, "superseded", reason=reason):
                    self.on_end("superseded", None)
                    self._stop(other)

    def _hurry(self, record: JobRecord, priority: int) -> JobRecord:
        """Somebody waits for what nobody waited for: it goes before others, as an attempt of its own."""
        if not self.store.update(record.id, only_if=("queued",), priority=priority, attempt=record.attempt + 1):
            return self._found(record.id)
        self._stop(record)
        return self._found(record.id)

    @staticmethod
    def _broke(record: JobRecord, asker: Asker) -> bool:
        """Whether a person asks anew for what did not come to its end."""
        return asker.trigger in ("form", "cli") and record.state in ("error", "cancelled")

    def _overtaken(self, record: JobRecord) -> bool:
        """Whether an ended job has to be done again: it was superseded, or the repository has moved on and back."""
        newest = self.store.jobs(repo_id=record.asked.repo_id, limit=1)
        moved_on = bool(newest) and newest[0].asked.sha != record.asked.sha
        return record.state == "superseded" or moved_on

    def _enqueue(self, record: JobRecord) -> None:
        self._client.enqueue(
            {
                "workflow_name": WORKFLOW,
                "queue_name": QUEUE,
                "workflow_id": workflow_id(record.id, record.attempt),
                "priority": record.priority,
                "workflow_timeout": self._settings.job_timeout,
                "app_version": VERSION,
            },
            record.id,
            record.attempt,
        )

    def _stop(self, record: JobRecord) -> None:
        self._client.cancel_workflow(workflow_id(record.id, record.attempt))

    def _statuses(self, names: Sequence[str]) -> dict[str, str]:
        return {one.workflow_id: one.status for one in self._listed(names=names)} if names else {}

    def _listed(
        self, *, names: Sequence[str] | None = None, prefix: str | None = None, status: list[str] | None = None
    ) -> list[Any]:
        return list(
            self._client.list_workflows(
                workflow_ids=list(names) if names is not None else None,
                workflow_id_prefix=prefix,
                status=status,
                queue_name=QUEUE if status is not None else None,
                load_input=False,
                load_output=False,
            )
        )

    def _found(self, job_id: str) -> JobRecord:
        record = self.store.job(job_id)
        if record is None:
            raise JobNotFound(f"There is no job {job_id}.")
        return record
