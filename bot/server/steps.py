"""What a job does, step by step: each may be killed at any moment and done again. Stages 2 to 5.

In: a job of the store. Out: plain data for the durable workflow (``bot.workflow``), which is the only one to know in
which order, how often and where steps run. Nothing here trusts that an earlier step ran on this machine: what it left
is looked for, and made again where it is missing.
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Literal

from bot import assemble, export_process, fetch, job, workspace
from bot.action import status
from bot.command_line import command_line
from bot.errors import SignInFailed, SourceMoved, Stopped
from bot.export_process import Progress
from bot.publish.target import HubTarget
from bot.sandbox.call import Conditions, Executor, Limits
from bot.server import planning
from bot.server.actions import Actions
from bot.server.leases import Lease, Leases
from bot.server.planning import End, Plan
from bot.server.records import Asked, JobRecord
from bot.server.running import Observer, Run, Running
from bot.server.settings import Settings
from bot.server.store import Store
from bot.sources import HubModel
from exporter import facts
from exporter import report as reports
from exporter.errors import NoGoodCell, PtebotError
from exporter.report import Report
from exporter.spec import ExportSpec


class Steps:
    """The steps, with what they need."""

    def __init__(
        self,
        settings: Settings,
        store: Store,
        actions: Actions,
        leases: Leases,
        *,
        worker: str,
        executor: Executor | None = None,
        observer: Observer | None = None,
        token_of: Callable[[str], str | None] = lambda _: None,
    ) -> None:
        """``token_of`` gives the token of the person who asked for a job, by its id; None for the bot's own."""
        self.settings, self.store, self._actions = settings, store, actions
        self._executor, self.observer, self._leases = executor, observer, leases
        self.running = Running(store, worker=worker, observer=observer)
        self.publishing = 0
        """Steps that write to the Hub now."""
        self._token_of = token_of

    # --- stage 2

    def plan(self, run: Run) -> Plan:
        """What there is to do; raises as the Hub answers, and what the exporter says of the spec."""
        settings, asked = self.settings, run.job.asked
        run.telling.show(Progress(stage="plan", message=f"looking at {asked.repo_id}"))
        token = self._read_token(run.job)
        head = fetch.resolve(asked.repo_id, None, endpoint=settings.endpoint, token=token)
        if head.private != run.job.private:
            self.store.update(run.job.id, private=head.private)
        if head.revision != asked.sha:
            return Plan(repo_id=head.repo_id, sha=asked.sha, end=self._superseded(run.job, head.revision))
        owners = planning.read_config(head, endpoint=settings.endpoint, token=token)
        spec = planning.spec_of(run.job, head, owners, settings)
        if isinstance(spec, str):
            return Plan(repo_id=head.repo_id, sha=asked.sha, end=End(state="unchanged", reason=spec))
        target = self._target(run.job, head.repo_id)
        target.check(dry_run=False)
        end = None
        head = fetch.with_texts(head, spec.calibration, endpoint=settings.endpoint, token=token)
        try:
            found = target.ask(head.tree, spec, facts.toolchain())
        except SourceMoved as error:
            return Plan(repo_id=head.repo_id, sha=asked.sha, end=self._moved(run.job, head.repo_id, error))
        if found is not None:
            end = planning.ended(found)
        else:
            export_process.check_spec(spec, on_log=run.telling.log, conditions=self._conditions(run, None))
            target.ready()
        return Plan(repo_id=head.repo_id, sha=asked.sha, spec=specs_data(spec), end=end)

    def _superseded(self, record: JobRecord, head: str) -> End:
        """Let the main branch's own commit have its job."""
        asked = record.asked
        newer = Asked(repo_id=asked.repo_id, sha=head, options=asked.options, again=asked.again)
        self._actions.submit(newer, record.asker, token=self._token_of(record.id))
        return End(state="superseded", reason=f"the main branch is at {head[:12]} now")

    def _moved(self, record: JobRecord, repo_id: str, error: SourceMoved) -> End:
        """How a job ends whose main branch moved under it; raises the error where it did not."""
        token = self._read_token(record)
        head = fetch.resolve(repo_id, None, endpoint=self.settings.endpoint, token=token)
        if head.revision == record.asked.sha:
            raise error
        return self._superseded(record, head.revision)

    # --- stage 3

    def fetch(self, run: Run, plan: Plan) -> None:
        """Download the model; at once where it is there."""
        self._source(run.job, plan).fetch(run.telling.show)

    def export(self, run: Run, plan: Plan, backend: str) -> None:
        """Make one backend's files, unless they are there; raises as ``bot.export_process.run_export``."""
        with self._alone(run, plan) as (space, _):
            self._ensure(run, plan, backend, space)

    def _ensure(self, run: Run, plan: Plan, backend: str, space: workspace.Workspace) -> assemble.Part:
        spec = assemble.one_backend(plan.asked, backend)
        source = self._source(run.job, plan)
        key = job.export_key(spec, source.tree, facts.toolchain())
        found = space.finished(key)
        if found is None:
            directory = source.fetch(run.telling.show)
            conditions = self._conditions(run, key)

            def export(out: Path) -> Report:
                run.telling.show(Progress(stage="export", backend=backend, message="the exporter starts"))
                return export_process.run_export(
                    spec,
                    directory,
                    out,
                    on_progress=lambda step: run.telling.show(_of_all(step, plan.asked.backends, backend)),
                    on_log=run.telling.log,
                    conditions=conditions,
                )

            found = space.make(key, export)
            if self.observer is not None:
                self.observer.exporter_peak(backend, found[1].peak_rss_bytes)
        self.store.put_report(run.job.id, backend, reports.dumps(found[1]))
        return found

    def _conditions(self, run: Run, key: str | None) -> Conditions:
        settings = self.settings
        limits = Limits(
            memory_bytes=settings.memory_limit,
            cpus=settings.cpu_limit,
            seconds=settings.export_timeout,
            output_bytes=settings.output_limit,
        )
        of = f"{settings.endpoint} {run.job.asked.repo_id.lower()}"
        owner = hashlib.sha256(of.encode()).hexdigest()[:32] if key is not None else None
        return Conditions(executor=self._executor, limits=limits, name=key, stop=run.stop, owner=owner)

    # --- stage 5

    def publish(self, run: Run, plan: Plan, failed: Mapping[str, PtebotError]) -> End:
        """Put the backends together and open or refresh the one pull request.

        Args:
            failed: why a backend has no export, by backend.

        Raises: as ``bot.publish.loop.publish``.
        """
        spec = plan.asked
        with self._alone(run, plan) as (space, held):
            parts = {name: self._ensure(run, plan, name, space) for name in spec.backends if name not in failed}
            into = space.scratch(f"whole-{run.job.id[:12]}")
            try:
                report = assemble.assemble(spec, parts, failed, into)
                self.store.put_report(run.job.id, "", reports.dumps(report))
                state = status.judge(report, "never").status
                end = End(state="failed", reason=_nothing_offered(report))
                if report.good_cells:
                    offered: Literal["partial", "passed"] = "partial" if state == "partial" else "passed"
                    end = self._offer(run, plan, spec, report, into, offered, held)
            finally:
                shutil.rmtree(into, ignore_errors=True)
            if end.state != "superseded":
                self._clean(run.job, plan, space)
        return end

    def _offer(
        self,
        run: Run,
        plan: Plan,
        spec: ExportSpec,
        report: Report,
        files: Path,
        state: Literal["partial", "passed"],
        held: Lease,
    ) -> End:
        def may_write() -> None:
            """A frozen process may wake long after others took its work over."""
            if run.stop.is_set():
                raise Stopped(f"{run.job.id} is wanted no more.")
            held.check()

        target = replace(self._target(run.job, plan.repo_id), may_write=may_write)
        self.publishing += 1
        try:
            done = target.publish(report, files, command=command_line(spec), dry_run=False, progress=run.telling.show)
        except SourceMoved as error:
            return self._moved(run.job, plan.repo_id, error)
        finally:
            self.publishing -= 1
        if self.observer is not None:
            self.observer.published(done.operation)
        return replace(planning.ended(done), state=state)

    def _clean(self, record: JobRecord, plan: Plan, space: workspace.Workspace) -> None:
        """Published, or of no use: exports and the model's files go."""
        source = self._source(record, plan)
        for backend in plan.asked.backends:
            spec = assemble.one_backend(plan.asked, backend)
            space.discard(job.export_key(spec, source.tree, facts.toolchain()))
        shutil.rmtree(source.directory, ignore_errors=True)

    # --- what steps share

    @contextmanager
    def _alone(self, run: Run, plan: Plan) -> Iterator[tuple[workspace.Workspace, Lease]]:
        """The repository's workspace while no other export of it runs anywhere."""
        run.telling.show(Progress(stage="wait", message=f"for the right to export {plan.repo_id}"))
        with self._leases.lease(plan.repo_id, run.job.id, run.stop) as held:
            owner = f"{self.settings.endpoint} {plan.repo_id}"
            with workspace.open_workspace(self.settings.data, owner) as space:
                yield space, held

    def _source(self, record: JobRecord, plan: Plan) -> HubModel:
        token = self._read_token(record)
        resolved = fetch.resolve(plan.repo_id, plan.sha, endpoint=self.settings.endpoint, token=token)
        model = HubModel(
            resolved=resolved, endpoint=self.settings.endpoint, token=token, into=self.settings.data / "models"
        )
        return model.with_texts(plan.asked.calibration)

    def _target(self, record: JobRecord, repo_id: str) -> HubTarget:
        token = self._read_token(record)
        return HubTarget(repo_id=repo_id, endpoint=self.settings.endpoint, token=token)

    def _read_token(self, record: JobRecord) -> str | None:
        """That of the person who asked, if they did it in their own name; the bot's account never takes over.

        Raises:
            SignInFailed: theirs is gone: it is kept until a job ends, and no longer.
        """
        token = self._token_of(record.id)
        if token is None and record.asker.own_token:
            raise SignInFailed("The person who asked for this is not signed in any more.", remedy="Ask for it again.")
        return token or self._own_token()

    def _own_token(self) -> str | None:
        token = self.settings.token
        return token.get_secret_value() if token is not None else None


def _of_all(step: Progress, backends: tuple[str, ...], backend: str) -> Progress:
    """One backend's progress as a share of all: a bar that begins anew with each of them tells nobody how far it is."""
    if step.fraction is None:
        return step
    return replace(step, fraction=(backends.index(backend) + step.fraction) / len(backends))


def _nothing_offered(report: Report) -> str:
    """Why; for what all backends failed for alike, such as a budget, with what was found."""
    error = export_process.nothing_good(report, "no file met its bounds")
    said = error.what if isinstance(error, NoGoodCell) else f"{error.title}: {error.what.rstrip('.')}"
    return f"{said}; nothing was offered"


def specs_data(spec: ExportSpec) -> dict[str, object]:
    from exporter import spec as specs

    return specs.to_dict(spec)
