"""Runs the exporter as a child process and trusts none of what comes back: a spec in, a Report out.

Stage 3 of the way of one request. ``python -m exporter SPEC.json MODEL_DIR OUT_DIR`` has read a hostile
model, so its progress lines are parsed defensively, its typed failures are raised again by class name,
and its report is believed only about files that lie in OUT_DIR with the size and hash that it states.
"""

from __future__ import annotations

import hashlib
import json
import signal
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from pydantic import ValidationError

from bot import child
from bot.errors import (
    ExporterFailed,
    ExportTimedOut,
    MemoryLimitReached,
    OutputNotTrusted,
    OutputTooLarge,
    RemoteJobFailed,
    Stopped,
)
from bot.sandbox.call import UNBOUND, Argument, Conditions, Reads, Writes
from exporter import report as reports
from exporter import spec as specs
from exporter.errors import (
    InvalidCalibration,
    NoGoodCell,
    NotEnoughMemory,
    OutputNotEmpty,
    OutputNotWritable,
    PtebotError,
    QualityBudgetNotMet,
    all_errors,
)
from exporter.report import Report, Status
from exporter.spec import ExportSpec

_ENDS: tuple[type[PtebotError], ...] = (NoGoodCell, QualityBudgetNotMet, InvalidCalibration)
"""Failures that an export ends with whose report is written: each is all of its failed cells'."""
REPORT_NAME = "report.json"
MAX_REPORT_BYTES = 64 * 1024 * 1024


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One line of the exporter's progress."""

    stage: str
    backend: str | None = None
    precision: str | None = None
    fraction: float | None = None
    """Of the whole job, 0 to 1."""
    message: str = ""

    @property
    def where(self) -> str:
        """The stage, backend and precision in words."""
        return " ".join(part for part in (self.stage, self.backend, self.precision) if part)


OnProgress = Callable[[Progress], None]
OnLog = Callable[[str], None]


def _silent(_: Any) -> None:
    return None


def run_export(
    spec: ExportSpec,
    model_dir: Path,
    out_dir: Path,
    *,
    on_progress: OnProgress = _silent,
    on_log: OnLog = _silent,
    conditions: Conditions = UNBOUND,
) -> Report:
    """Export ``model_dir`` into ``out_dir`` (absent or empty) in a child process.

    Returns the report also when no cell is good: ask ``report.good_cells``. However the child ends, nothing
    but a whole output that bears its report out appears in ``out_dir`` or stays beside it.

    Raises:
        OutputNotEmpty, OutputNotWritable: ``out_dir`` cannot take the output.
        PtebotError: the class that the exporter raised, with its text and remedy.
        NotEnoughMemory: the model cannot do with the limit, or the system killed the child.
        MemoryLimitReached: the child took more than ``conditions.limits.memory_bytes``, and was ended.
        ExportTimedOut, OutputTooLarge: it passed another limit of ``conditions``, and was ended.
        Stopped: ``conditions.stop`` was set.
        SandboxUnavailable: the child was to run as another user, and cannot.
        ExporterFailed: the child ended without a report or a typed error.
        OutputNotTrusted: the report and the files beside it do not agree.
    """
    most = conditions.limits.memory_bytes
    limit = [] if most is None else ["--memory-limit", str(most)]
    of = spec.model if spec.model.repo_id and spec.model.revision else None
    with _spec_file(spec) as path, _staged(out_dir) as made:
        run_stages(
            "exporter",
            [path, Reads(model_dir, of, spec.calibration), Writes(made), *limit],
            on_progress=on_progress,
            on_log=on_log,
            good_exits=tuple({cls.exit_code for cls in _ENDS}),
            conditions=conditions,
        )
        report = load_output(made)
        _check_about(report, spec)
        return report


def nothing_good(report: Report, what: str) -> PtebotError:
    """Why an export has no good cell, as the failure whose exit code its failed cells share.

    Args:
        what: what is said where they share none, as NoGoodCell.
    """
    cls = next((one for one in _ENDS if one.exit_code == report.exit_code), NoGoodCell)
    if cls is NoGoodCell:
        return NoGoodCell(what)
    reasons = dict.fromkeys((cell.reason or "").rstrip(".") for cell in report.cells if cell.status is Status.FAILED)
    return cls(f"{'; '.join(reason for reason in reasons if reason) or cls.title}.")


def _check_about(report: Report, spec: ExportSpec) -> None:
    """Its words become titles and commits, so they are those that were asked for; raises OutputNotTrusted."""
    asked = {(backend, precision) for backend in spec.backends for precision in spec.precisions}
    told = [(cell.backend, cell.precision) for cell in report.cells]
    if specs.to_dict(report.spec) != specs.to_dict(spec) or not {*told} <= asked or len({*told}) != len(told):
        raise OutputNotTrusted("The report is about another export than the one that was asked for.")
    if (report.model.repo_id, report.model.revision) != (spec.model.repo_id, spec.model.revision):
        raise OutputNotTrusted("The report is about another model than the one that was given.")


@contextmanager
def _staged(out_dir: Path) -> Iterator[Path]:
    """A place beside ``out_dir`` that moves there when the block ends well, and goes when it does not.

    The exporter stages its output too; but a child that the system killed for its memory cleans nothing up.
    """
    out_dir = out_dir.absolute()
    existing = next(path for path in out_dir.parents if path.is_dir())
    try:
        if out_dir.is_symlink() or (out_dir.exists() and (not out_dir.is_dir() or any(out_dir.iterdir()))):
            raise OutputNotEmpty(f"{out_dir} exists and is not an empty directory.")
        scratch = tempfile.TemporaryDirectory(
            prefix=f".{out_dir.name}.", suffix=".partial", dir=existing, ignore_cleanup_errors=True
        )
    except OSError as error:
        raise OutputNotWritable(f"{existing} cannot be written to: {error.strerror}.") from None
    with scratch:
        made = Path(scratch.name, out_dir.name)
        yield made
        out_dir.parent.mkdir(parents=True, exist_ok=True)
        try:
            made.replace(out_dir)
        except OSError as error:
            raise OutputNotEmpty(f"{out_dir} cannot take the output any more: {error.strerror}.") from None


def check_spec(spec: ExportSpec, *, on_log: OnLog = _silent, conditions: Conditions = UNBOUND) -> None:
    """Refuse what the exporter would refuse of a spec alone, before anything is downloaded.

    Raises:
        UnknownBackend, UnknownPrecision, UnsupportedCombination: as ``exporter.plan`` says.
    """
    with _spec_file(spec) as path:
        run_stages("exporter.available", [path], on_log=on_log, conditions=conditions)


@contextmanager
def _spec_file(spec: ExportSpec) -> Iterator[Reads]:
    with tempfile.TemporaryDirectory(prefix="ptebot-spec-") as scratch:
        path = Path(scratch, "spec.json")
        path.write_text(json.dumps(specs.to_dict(spec)), encoding="utf-8")
        yield Reads(path)


def run_stages(
    module: str,
    args: Sequence[Argument],
    *,
    on_progress: OnProgress = _silent,
    on_log: OnLog = _silent,
    good_exits: tuple[int, ...] = (),
    conditions: Conditions = UNBOUND,
) -> dict[str, Any] | None:
    """Run an exporter module that speaks JSON lines; the last line without a stage or with stage ``result``.

    Args:
        good_exits: exit statuses besides 0 that are no failure where the module tells none.

    Raises: as ``run_export``, except OutputNotTrusted.
    """
    failure: PtebotError | None = None
    last: dict[str, Any] | None = None
    at = Progress(stage="start")

    def use(line: bytes) -> None:
        nonlocal failure, last, at
        data = _parse_line(line)
        if data is None:
            return
        if data.get("stage") == "error":
            failure = _typed_error(data)
        elif data.get("stage", "result") != "result":
            at = _progress(data)
            on_progress(at)
        else:
            last = data

    ended = child.run_module(module, args, on_line=use, on_log=on_log, conditions=conditions)
    if ended.too_much_memory:
        raise MemoryLimitReached(
            f"The exporter held {(ended.peak_bytes or 0) / 1e9:,.2f} GB of memory at the stage {at.where!r}; "
            f"its limit is {(conditions.limits.memory_bytes or 0) / 1e9:,.2f} GB. It was ended."
        )
    if ended.stopped and not (conditions.stop and conditions.stop.is_set()):
        raise RemoteJobFailed(f"{module} was ended from outside, at the stage {at.where!r}.")
    if ended.stopped:
        raise Stopped(f"{module} was stopped.")
    if ended.too_long:
        raise ExportTimedOut(
            f"{module} was ended after {conditions.limits.seconds or 0:,.0f} s, at the stage {at.where!r}."
        )
    if ended.too_much_output:
        raise OutputTooLarge(
            f"The exporter wrote more than {conditions.limits.output_bytes or 0:,} bytes; it was ended."
        )
    if ended.too_many_processes:
        raise ExporterFailed(
            f"The exporter started more than {conditions.limits.processes:,} processes and threads; it was ended."
        )
    whole = failure is not None and failure.exit_code == ended.code  # else it was one cell's, told as progress
    if ended.code == 0 or (ended.code in good_exits and not whole):
        return last
    if failure is not None:
        raise failure
    if ended.code == -signal.SIGKILL:
        raise NotEnoughMemory("The system killed the exporter, as it does when memory runs out.")
    raise ExporterFailed(f"{_how_it_ended(ended.code)} The end of its log:\n{ended.log_tail or '(it is empty)'}")


def load_output(out_dir: Path) -> Report:
    """The report in ``out_dir``, believed only where its files bear it out.

    Raises:
        OutputNotTrusted: no readable report; a file that is missing, outside the directory, a link, or of
            another size or SHA-256 than stated.
    """
    path = out_dir / REPORT_NAME
    try:
        if path.is_symlink() or path.stat().st_size > MAX_REPORT_BYTES:
            raise OutputNotTrusted(f"{path} is a link or larger than {MAX_REPORT_BYTES:,} bytes.")
        report = reports.load(path)
    except OSError as error:
        raise OutputNotTrusted(f"The exporter left no readable report: {path}: {error.strerror}.") from None
    except ValidationError as error:
        raise OutputNotTrusted(f"{path} does not follow the schema: {error.error_count()} problems.") from None
    for cell in report.cells:
        if cell.file is not None:
            _check_file(out_dir, cell.file, cell.size_bytes, cell.sha256)
    return report


def _check_file(out_dir: Path, name: str, size: int | None, sha256: str | None) -> None:
    parts = PurePosixPath(name).parts
    path = out_dir.joinpath(*parts)
    if not parts or PurePosixPath(name).is_absolute() or ".." in parts or "\\" in name:
        raise OutputNotTrusted(f"The report names a file outside its directory: {name!r}.")
    chain = [out_dir.joinpath(*parts[: index + 1]) for index in range(len(parts))]
    if any(step.is_symlink() for step in chain) or not path.is_file():
        raise OutputNotTrusted(f"The report names {name!r}, which is not a regular file of the output.")
    if path.stat().st_size != size:
        raise OutputNotTrusted(f"{name} has {path.stat().st_size:,} bytes where the report says {size}.")
    with path.open("rb") as stream:
        found = hashlib.file_digest(stream, "sha256").hexdigest()
    if found != sha256:
        raise OutputNotTrusted(f"{name} has SHA-256 {found} where the report says {sha256}.")


def _parse_line(line: bytes) -> dict[str, Any] | None:
    """A JSON object, or None for anything else: libraries print to stdout too."""
    if not line.startswith(b"{"):
        return None
    try:
        data = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _progress(data: dict[str, Any]) -> Progress:
    fraction = data.get("fraction")
    return Progress(
        stage=_text(data.get("stage")) or "?",
        backend=_text(data.get("backend")),
        precision=_text(data.get("precision")),
        fraction=float(fraction) if isinstance(fraction, int | float) and 0 <= fraction <= 1 else None,
        message=_text(data.get("message")) or "",
    )


def _typed_error(data: dict[str, Any]) -> PtebotError:
    classes = {cls.__name__: cls for cls in all_errors()}
    name, message, remedy = (_text(data.get(key)) for key in ("error", "message", "remedy"))
    cls = classes.get(name or "", ExporterFailed)
    what = message or "The exporter gave no reason."
    return cls(what if name in classes else f"{name}: {what}", remedy=remedy or None)


def _text(value: object) -> str | None:
    """Of JSON, which may hold halves of surrogate pairs: no encoding takes those."""
    return value.encode("utf-8", "replace").decode() if isinstance(value, str) else None


def _how_it_ended(code: int) -> str:
    if code >= 0:
        return f"The exporter ended with exit code {code} and no reason."
    try:
        name = signal.Signals(-code).name
    except ValueError:
        name = f"signal {-code}"
    return f"The exporter was ended by {name}."
