"""An engine of this process over a local Hub, with an executor that is quick: no model is exported here."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, HfApi

from bot.localhub.testing import RunningHub
from bot.sandbox.call import Call, Exit, Reads, Writes
from bot.server.heartbeat import Heartbeat
from bot.server.leases import Leases
from bot.server.records import Asked, Asker, JobRecord, Trigger
from bot.server.sealing import Sealer
from bot.server.settings import Settings
from bot.server.steps import Steps
from bot.server.store import Store, open_engine
from bot.workflow.engine import Engine
from bot.workflow.queue import Queue
from exporter import facts
from exporter import spec as specs
from exporter.errors import PtebotError
from tests.bot import reports

PATIENCE = 60.0
"""Seconds for what should take one; only a broken engine takes them."""


class QuickExecutor:
    """Writes what an exporter would write, at once; may be told to wait, or to fail."""

    rung = "none"

    def __init__(self) -> None:
        self.exports: list[tuple[str, str]] = []
        """Revision and backend, in the order in which they began."""
        self.begun = threading.Event()
        self.go_on = threading.Event()
        self.go_on.set()
        self.held: set[str] = set()
        """Backends that wait for ``go_on``; empty: all do."""
        self.fail: dict[str, PtebotError | int] = {}
        """By backend: a typed error, or an exit code without one."""
        self.stopped = 0
        self.at_once, self.most_at_once = 0, 0
        self.now: list[str | None] = []
        self.overlaps: list[str | None] = []
        """Repositories of which two exports ran at once."""
        self.limits: list[Any] = []
        self._lock = threading.Lock()

    def run(self, call: Call, *, on_line: Callable[[bytes], None], on_log: Callable[[str], None]) -> Exit:
        if call.module == "exporter.available":
            return Exit(code=0, log_tail="")
        spec_file, model, out = call.args[:3]
        assert isinstance(spec_file, Reads) and isinstance(model, Reads) and isinstance(out, Writes)
        spec = specs.load(spec_file.path)
        (backend,) = spec.backends
        with self._lock:
            self.at_once += 1
            self.most_at_once = max(self.most_at_once, self.at_once)
            self.limits.append(call.limits)
            self.overlaps += [spec.model.repo_id] if spec.model.repo_id in self.now else []
            self.now.append(spec.model.repo_id)
        self.exports.append((str(spec.model.revision), backend))
        self.begun.set()
        try:
            on_line(json.dumps({"stage": "lower", "backend": backend, "precision": "fp32", "fraction": 0.5}).encode())
            on_log(f"lowering for {backend}")
            while (not self.held or backend in self.held) and not self.go_on.wait(0.02):
                if call.stop is not None and call.stop.is_set():
                    self.stopped += 1
                    return Exit(code=-9, log_tail="", stopped=True)
            return self._end(spec, backend, model.path, out.path, on_line)
        finally:
            with self._lock:
                self.at_once -= 1
                self.now.remove(spec.model.repo_id)

    def _end(self, spec: Any, backend: str, model: Path, out: Path, on_line: Callable[[bytes], None]) -> Exit:
        error = self.fail.get(backend)
        if isinstance(error, int):
            return Exit(code=error, log_tail="it fell over")
        if error is not None:
            said = {"stage": "error", "error": type(error).__name__, "message": error.what, "remedy": error.advice}
            on_line(json.dumps(said).encode())
            return Exit(code=error.exit_code, log_tail="")
        files = {path.name: path.read_bytes() for path in model.iterdir() if path.name in reports.MODEL_FILES}
        made = [reports.cell(backend, precision) for precision in spec.precisions]
        report = reports.report(
            made,
            files=files,
            repo_id=spec.model.repo_id,
            revision=spec.model.revision,
            spec=spec,
            toolchain=facts.toolchain(),
        )
        reports.write(report, out)
        return Exit(code=0, log_tail="")


@dataclass(kw_only=True)
class Place:
    """A server's engine, its store, and a Hub with the repositories of ``acme``."""

    hub: RunningHub
    settings: Settings
    store: Store
    queue: Queue
    engine: Engine
    executor: QuickExecutor
    owner: HfApi
    replies: list[tuple[str, str]] = field(default_factory=list)
    observed: Any = None

    def repository(self, name: str, files: dict[str, bytes] | None = None) -> str:
        """A new repository with a model; the head of its main branch."""
        self.owner.create_repo(f"acme/{name}")
        return self.push(name, {**reports.MODEL_FILES, **(files or {})})

    def push(self, name: str, files: dict[str, bytes]) -> str:
        operations: list[Any] = [CommitOperationAdd(path_in_repo=path, path_or_fileobj=files[path]) for path in files]
        return str(self.owner.create_commit(f"acme/{name}", operations, commit_message="Edit").oid)

    def submit(self, name: str, sha: str, trigger: Trigger = "webhook", **fields: Any) -> JobRecord:
        return self.queue.submit(Asked(repo_id=f"acme/{name}", sha=sha, **fields), Asker(trigger=trigger))[0]

    def job(self, job_id: str) -> JobRecord:
        found = self.store.job(job_id)
        assert found is not None
        return found

    def ended(self, job_id: str) -> JobRecord:
        """The job once it has ended."""
        until(lambda: not self.job(job_id).live, f"the end of {self.job(job_id)}")
        return self.job(job_id)

    def pulls(self, name: str) -> list[Any]:
        return [one for one in self.owner.get_repo_discussions(f"acme/{name}") if one.is_pull_request]


def until(condition: Callable[[], object], what: str) -> None:
    """Wait until it holds; looked at often, given up late."""
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end, f"waited in vain for {what}"
        time.sleep(0.02)


class Observed:
    """Counts what the engine tells."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, str | None]] = []
        self.operations: list[str] = []
        self.ends: list[tuple[str, str | None]] = []
        self.peaks: list[tuple[str | None, int]] = []

    def exporter_peak(self, backend: str | None, peak_bytes: int) -> None:
        self.peaks.append((backend, peak_bytes))

    def observe_stage(self, stage: str, backend: str | None, seconds: float) -> None:
        self.stages.append((stage, backend))

    def published(self, operation: str) -> None:
        self.operations.append(operation)

    def ended(self, state: str, failure: str | None = None) -> None:
        self.ends.append((state, failure))


@contextmanager
def place(hub: RunningHub, owner: HfApi, token: str, data: Path, url: str, **given: Any) -> Iterator[Place]:
    """An engine that runs for the time of the block."""
    from bot.server import migrate

    fields: dict[str, Any] = {"backends": ("portable", "xnnpack"), "precisions": ("fp32",), "heartbeat": 0.5}
    settings = Settings(
        endpoint=hub.endpoint,
        token=token,
        webhook_secret="0123456789abcdef",
        watch=("acme",),
        data=data,
        **{**fields, **given},
    )
    store = Store(open_engine(url))
    migrate.upgrade(store.engine)
    heartbeat = Heartbeat(store, settings, "one")
    leases = Leases(heartbeat)
    sealer = Sealer.of(settings)
    queue = Queue(settings, store, lambda job, secret: sealer.seal(secret.encode(), context=f"job {job}"))
    executor, observed = QuickExecutor(), Observed()
    replies: list[tuple[str, str]] = []

    def token_of(job_id: str) -> str | None:
        sealed = store.sealed(job_id)
        found = sealer.open(sealed, context=f"job {job_id}") if sealed is not None else None
        return found.decode() if found else None

    steps = Steps(settings, store, queue, leases, worker="one", executor=executor, observer=observed, token_of=token_of)
    engine = Engine(settings, steps, queue, worker="one", reply=lambda job: replies.append((job.id, job.state)))
    heartbeat.start()
    engine.start()
    try:
        yield Place(
            hub=hub,
            settings=settings,
            store=store,
            queue=queue,
            engine=engine,
            executor=executor,
            owner=owner,
            replies=replies,
            observed=observed,
        )
    finally:
        executor.go_on.set()
        engine.stop()
        engine.close()
        heartbeat.stop()
        queue.close()
        store.close()
