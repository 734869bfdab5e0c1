"""One whole job: a model in, a pull request (or the reason why there is none) out. Stages 2 to 5.

Nothing that a kill costs is more than the stage it hits: downloads go on where they ended, a finished export is
found again in its workspace, and publishing looks before it acts. So the answer to any interruption
is to run the same command again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from bot import export_process, plan, speed, workspace
from bot.export_process import OnLog, OnProgress, Progress
from bot.publish.loop import Published
from bot.publish.target import Target
from bot.sandbox.call import UNBOUND, Conditions
from bot.sources import HubModel, LocalModel
from bot.speed import Speeds
from exporter import facts
from exporter.report import SCHEMA_VERSION, Report
from exporter.spec import ExportSpec


@dataclass(frozen=True, kw_only=True)
class Job:
    """What is asked for."""

    source: LocalModel | HubModel
    spec: ExportSpec
    target: Target | None
    """Where the pull request goes; None: nothing is published."""
    command: str
    """What a person would type; shown in the card."""
    root: Path
    """Where ptebot keeps work and downloads."""
    dry_run: bool = False
    conditions: Conditions = UNBOUND
    """How the exporter runs, and under which limits."""
    bench: bool = False
    """Whether the files' speed is measured too."""
    exported: Callable[[Path, Report], None] | None = None
    """Told of the finished export, good or not, before it is published: the folder is gone once it is."""


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a job ended."""

    published: Published | None
    """None where nothing was to be published."""
    report: Report | None
    """None where nothing was exported, because there was nothing to do."""
    out_dir: Path | None
    """Where the files are; None where they are published or were never made."""
    speeds: Speeds | None = None
    """Of the files on this machine, where that was asked for and there was an export."""


def run(job: Job, *, show: OnProgress, log: OnLog = lambda _: None) -> Outcome:
    """Do the job; the same job again gives the same end and no second pull request.

    Raises:
        InvalidCalibration: the model has no such text as the spec names.
        NotAuthorized: there is no token to publish with.
        PtebotError: a stage failed, as its own class. That no file passed is told by the report.
    """
    job = replace(job, source=job.source.with_texts(job.spec.calibration))
    toolchain = facts.toolchain()
    if job.target is not None:
        job.target.check(dry_run=job.dry_run)
    key = export_key(job.spec, job.source.tree, toolchain)
    with workspace.open_workspace(job.root, _owner(job), waiting=_waiting(show)) as space:
        if (ended := _unchanged(job, toolchain, show)) is not None:
            return Outcome(published=ended, report=None, out_dir=None)
        if (found := space.finished(key)) is not None:
            out_dir, report = found
            speeds = _speeds(job, out_dir, report, None, show, log)
        else:
            if job.target is not None and not job.dry_run:
                job.target.ready()
            out_dir, report, speeds = _export(job, space, key, show, log)
        if job.exported is not None:
            job.exported(out_dir, report)
        if not report.good_cells:
            # Kept, it would be found "finished" forever; made again, it may do better (more memory, a package).
            space.discard(key)
            return Outcome(published=None, report=report, out_dir=None)
        if job.target is None:
            return Outcome(published=None, report=report, out_dir=out_dir, speeds=speeds)
        published = job.target.publish(report, out_dir, command=job.command, dry_run=job.dry_run, progress=show)
        if job.dry_run:
            return Outcome(published=published, report=report, out_dir=out_dir, speeds=speeds)
        space.discard(key)
    return Outcome(published=published, report=report, out_dir=None, speeds=speeds)


def export_key(spec: ExportSpec, tree: Mapping[str, object], toolchain: Mapping[str, str]) -> str:
    """The name of an export in its workspace: equal for equal inputs, spec and toolchain (32 hex digits)."""
    model = [spec.model.repo_id, spec.model.revision, spec.model.name]
    files = sorted(map(repr, tree.values()))
    data = [SCHEMA_VERSION, model, plan.spec_key(spec), dict(toolchain), files]
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:32]


def _unchanged(job: Job, toolchain: Mapping[str, str], show: OnProgress) -> Published | None:
    """How the job ends at once. Asked under the lock, so that a run that waited sees what the other one did."""
    if job.target is None:
        return None
    show(Progress(stage="plan", message=f"asking what there is already: {job.target.place}"))
    return job.target.ask(job.source.tree, job.spec, toolchain)


def _export(
    job: Job, space: workspace.Workspace, key: str, show: OnProgress, log: OnLog
) -> tuple[Path, Report, Speeds | None]:
    if isinstance(job.source, HubModel):
        export_process.check_spec(job.spec, on_log=log)
    directory = job.source.fetch(show)

    def export(out: Path) -> Report:
        return export_process.run_export(
            job.spec, directory, out, on_progress=show, on_log=log, conditions=job.conditions
        )

    out_dir, report = space.make(key, export)
    speeds = _speeds(job, out_dir, report, directory, show, log)
    if isinstance(job.source, HubModel):
        # The export is whole, so the weights are of no more use. No other job reads them: they lie in this
        # job's own folder, whose lock is held.
        shutil.rmtree(directory, ignore_errors=True)
    return out_dir, report, speeds


def _speeds(
    job: Job, out_dir: Path, report: Report, directory: Path | None, show: OnProgress, log: OnLog
) -> Speeds | None:
    """Measured where that is asked for."""
    if not job.bench:
        return None
    return speed.attempt(report, out_dir, directory, on_progress=show, on_log=log, conditions=job.conditions)


def _owner(job: Job) -> str:
    """What the workspace's lock is for: one job at a time for each model."""
    if isinstance(job.source, HubModel):
        return f"{job.source.endpoint} {job.source.resolved.repo_id}"
    return str(job.source.directory.resolve())


def _waiting(show: OnProgress) -> Callable[[], None]:
    return lambda: show(Progress(stage="plan", message="another ptebot works on this model; waiting for it to end"))
