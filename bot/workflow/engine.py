"""Does jobs, durably: each step's outcome is kept, and a kill costs no more than the step it hits. Stages 2 to 6.

In: jobs of the store that a ``Queue`` asked for. Out: their ends, in the store.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from typing import Any

import sqlalchemy as sa
from dbos import DBOS, DBOSConfig, StepOptions
from dbos import error as engine_errors

from bot.errors import DatabaseUnavailable, Stopped
from bot.server import failures, planning
from bot.server.planning import End
from bot.server.records import LIVE, Failure, JobRecord
from bot.server.running import Run
from bot.server.settings import Settings
from bot.server.steps import Steps
from bot.workflow.names import APPLICATION, MOST_RECOVERIES, QUEUE, VERSION, WORKFLOW, database
from bot.workflow.queue import Queue
from exporter.errors import PtebotError

FIRST_PAUSE_SECONDS = 5.0
BACKOFF = 3.0
POLL_SECONDS = 0.5
MEND_SECONDS = 10.0
log = logging.getLogger(__name__)


def _unrecorded(why: str) -> BaseException:
    """What ends an execution without a trace in what the engine keeps: the step is done again, if it ever is.

    dbos 3.4, ``_core.invoke_step``: every other exception is kept as the step's outcome.
    """
    return engine_errors.DBOSWorkflowCancelledError(why)


def _worth_telling(record: logging.LogRecord) -> bool:
    """Not that a job's thread ended because the job was cancelled, superseded or taken over: dbos calls it an error."""
    error = record.exc_info[1] if record.exc_info else None
    wanted_no_more = engine_errors.DBOSAwaitedWorkflowCancelledError, engine_errors.DBOSWorkflowCancelledError
    return not isinstance(error, wanted_no_more)


_running: Engine | None = None


@DBOS.workflow(name=WORKFLOW, max_recovery_attempts=MOST_RECOVERIES)
def _export(job_id: str, attempt: int) -> str:
    assert _running is not None  # noqa: S101 - the engine launches after it is set
    return _running.perform(job_id, attempt)


class Engine:
    """Does jobs in this process; one for each process, because DBOS is."""

    def __init__(
        self, settings: Settings, steps: Steps, queue: Queue, *, worker: str, reply: Callable[[JobRecord], None]
    ) -> None:
        """
        Args:
            worker: this process's name, the same after a restart: what it had begun is its own again.
            reply: tells the person who asked how a job stands, as far as it can.
        """
        self._settings, self._steps, self._queue, self._worker = settings, steps, queue, worker
        self._store = steps.store
        self._reply = reply
        self._closing = threading.Event()
        self.launched = False
        self._mender = threading.Thread(target=self._mend, name="mend", daemon=True)

    def start(self) -> None:
        """Launch the engine: what this worker had begun goes on; raises DatabaseUnavailable."""
        global _running  # noqa: PLW0603 - DBOS registers functions, not objects
        _running = self
        config: DBOSConfig = {
            "name": APPLICATION,
            "system_database_url": database(self._store),
            "application_version": VERSION,
            "executor_id": self._worker,
            "log_level": "ERROR",
        }
        DBOS(config=config)
        logging.getLogger("dbos").addFilter(_worth_telling)
        try:
            DBOS.launch()
            # Not partitioned by repository: dbos 3.4 then keeps priorities within a partition only. That exports of one
            # repository do not overlap is what leases are for.
            DBOS.register_queue(
                QUEUE,
                worker_concurrency=self._settings.concurrency,
                polling_interval_sec=POLL_SECONDS,
                on_conflict="always_update",
            )
        except sa.exc.SQLAlchemyError as error:
            raise DatabaseUnavailable(f"The job engine cannot use the database: {type(error).__name__}.") from None
        self._queue.mend()
        self._mender.start()
        self.launched = True

    def stop(self) -> None:
        """Begin nothing more. Steps that run are left to the caller's patience: the process is ended under them, and
        they are done again by whoever goes on."""
        self._closing.set()

    def close(self, seconds: int = 10) -> None:
        """End what ``stop`` left, for a process that lives on; running steps get so many seconds."""
        DBOS.destroy(workflow_completion_timeout_sec=seconds)

    def adopt(self, workers: Sequence[str]) -> None:
        """Go on with what dead workers had begun."""
        DBOS._recover_pending_workflows(list(workers))

    def perform(self, job_id: str, attempt: int) -> str:
        """One attempt of a job from its plan to its end; gives its last state."""
        failure: Failure | None = None
        try:
            end = self._perform(job_id, attempt)
        except PtebotError as error:
            end, failure = End(state="error"), failures.as_record(error)
        DBOS.run_step({"name": "end", **self._patience()}, self._end, job_id, attempt, end, failure)
        DBOS.run_step({"name": "reply"}, self._tell, job_id)
        return end.state

    def _perform(self, job_id: str, attempt: int) -> End:
        def planned(run: Run) -> dict[str, Any]:
            self._reply(run.job)
            return self._steps.plan(run).data()

        plan = planning.from_data(self._step("plan", job_id, attempt, planned))
        if plan.end is not None:
            return plan.end
        self._step("fetch", job_id, attempt, lambda run: self._steps.fetch(run, plan))
        failed: dict[str, PtebotError] = {}
        for backend in plan.asked.backends:
            export = partial(self._steps.export, plan=plan, backend=backend)
            try:
                self._step("export", job_id, attempt, export, backend)
            except failures.OF_ONE_BACKEND as error:
                failed[backend] = error
        if len(failed) == len(plan.asked.backends):
            raise next(iter(failed.values()))
        done = self._step("publish", job_id, attempt, lambda run: asdict(self._steps.publish(run, plan, failed)))
        return End(**done)

    def _step(
        self, stage: str, job_id: str, attempt: int, body: Callable[[Run], Any], backend: str | None = None
    ) -> Any:
        """One durable step, tried again for what passes; raises its failure."""
        name = f"{stage} {backend}" if backend else stage
        outcome = DBOS.run_step(
            {"name": name, **self._patience()},
            self._once,
            stage,
            job_id,
            attempt,
            body,
            backend,
        )
        if "failure" in outcome:
            raise failures.as_error(Failure(**outcome["failure"]))
        return outcome.get("value")

    def _patience(self) -> StepOptions:
        return {
            "retries_allowed": True,
            "max_attempts": self._settings.attempts,
            "interval_seconds": FIRST_PAUSE_SECONDS,
            "backoff_rate": BACKOFF,
            "should_retry": failures.passes,
        }

    def _once(
        self, stage: str, job_id: str, attempt: int, body: Callable[[Run], Any], backend: str | None
    ) -> dict[str, Any]:
        """What the engine keeps of a step: plain data, whatever happened."""
        try:
            with self._steps.running.step(job_id, attempt, stage, backend) as run:
                return {"value": body(run)}
        except Stopped as stopped:
            raise _unrecorded(f"{stage} of {job_id}: {stopped}") from None
        except Exception as error:
            if self._closing.is_set():
                raise _unrecorded(f"{stage} of {job_id} broke off as the process ends") from None
            now = DBOS.step_status
            last = now is None or (now.current_attempt or 0) + 1 >= self._settings.attempts
            if failures.passes(error) and not last:
                # Kept by nobody: the engine calls again after a pause.
                log.warning("%s of %s fails for now: %s", stage, job_id, failures.as_record(error).what)
                raise
            if not isinstance(error, PtebotError):
                log.exception("%s of %s broke", stage, job_id)
            return {"failure": asdict(failures.as_record(error))}

    def _end(self, job_id: str, attempt: int, end: End, failure: Failure | None) -> None:
        record = self._store.job(job_id)
        if record is None or record.attempt != attempt or not record.live:
            return
        fields = {"operation": end.operation, "pr_url": end.pr_url, "pr_num": end.pr_num}
        told = {name: value for name, value in fields.items() if value is not None}
        if told:
            self._store.update(job_id, only_if=LIVE, **told)
        if self._store.end(job_id, end.state, reason=end.reason, failure=failure) and self._steps.observer is not None:
            self._steps.observer.ended(end.state, failure.name if failure else None)

    def _tell(self, job_id: str) -> None:
        record = self._store.job(job_id)
        if record is not None:
            self._reply(record)

    def _mend(self) -> None:
        while not self._closing.wait(MEND_SECONDS):
            try:
                self._queue.mend()
            except Exception:  # a thread that ends here would be a part of the server that is silently off
                log.exception("jobs could not be compared with the engine's; tried again in %s s", MEND_SECONDS)
