"""One cell: a traced program lowered for one backend, written, read back and run against the eager model.

Stages 3 and 4 of the way of one request. Whatever goes wrong here becomes this cell's ``failed`` with its
stage and reason; only a full disk ends the whole export.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from torch.export import ExportedProgram

from exporter import bisect, facts, lower, metadata, parity, pte, quality, quantize, runtime, staging
from exporter.backends import Backend
from exporter.bounds import Tightened
from exporter.checkpoint import Checkpoint
from exporter.errors import PtebotError, QualityBudgetNotMet
from exporter.guard import shown
from exporter.parity import Reference
from exporter.quality import QualityReference
from exporter.quantized_cache import CacheFormat
from exporter.report import Cell, Delegation, Parity, Quality, Quantization, Status
from exporter.schedule import Step
from exporter.static_cache import Attention, ExportableModule

_LOG = logging.getLogger(__name__)
OnStage = Callable[[str, float, str], None]
"""(stage, fraction of this cell, message)"""


@dataclass(frozen=True, kw_only=True)
class Job:
    """Everything that one cell is made from."""

    backend: Backend
    precision: str
    embedding: str
    attention: Attention
    cache: CacheFormat = "fp32"
    module: ExportableModule
    exported: ExportedProgram
    full: Reference
    quantized: Reference | None
    """None where nothing was rounded."""
    vocab_size: int
    bos_id: int | None
    eos_ids: list[int]
    notes: list[str]
    tightened: Tightened = field(default_factory=dict)
    """Bounds that the spec asks for instead of the table's."""
    judge: QualityReference | None = None
    """The texts that files are judged on; None: the verification texts must do."""
    detail: Quantization | None = None
    max_size: int | None = None
    """Bytes that the file must not exceed."""
    max_kl: float | None = None
    """Nats that the file must not exceed on the texts of ``judge``."""


class _Failure(Exception):
    """This cell fails at the current stage, with this reason."""


def make(job: Job, directory: Path, name: str, on_stage: OnStage) -> Cell:
    """Make one cell's file below ``directory``; a failed cell leaves no file.

    Args:
        directory: the staged output directory.
        name: the file's path below it.
    """
    clock, stage, path = facts.Clock(), "lower", directory / name
    known: dict[str, Any] = {}
    path.parent.mkdir(parents=True, exist_ok=True)
    with facts.peak_memory() as peak:
        try:
            on_stage("lower", 0.0, "lowering")
            wanted = metadata.constant_methods(
                max_seq_len=job.module.max_seq_len,
                vocab_size=job.vocab_size,
                bos_id=job.bos_id,
                eos_ids=job.eos_ids,
                shape_policy=job.backend.shape_policy,
                attention=job.attention,
            )
            with clock.stage("lower"):
                lowered = lower.lower(
                    job.exported, job.backend, precision=job.precision, embedding=job.embedding, metadata=wanted
                )
            stage = "write"
            on_stage("write", 0.6, "writing the file")
            with clock.stage("write"):
                pte.write(lowered.program, path)
            stage = "read back"
            with clock.stage("read back"):
                info = pte.read(path)
            delegation = Delegation(
                delegates=info.delegates,
                delegate_ids=info.delegate_ids,
                delegated_ops=lowered.delegated_ops,
                leftover_ops=info.leftover_ops,
            )
            known |= {"methods": info.methods, "metadata": info.metadata, "delegation": delegation}
            if info.metadata != wanted:
                raise _Failure(f"metadata in the file is {info.metadata}, wanted {wanted}")
            if (reason := job.backend.below_floor(delegation)) is not None:
                raise _Failure(f"delegation is below the backend's floor: {reason}")
            if job.max_size is not None and info.size_bytes > job.max_size:
                raise QualityBudgetNotMet(
                    f"The file takes {info.size_bytes:,} bytes where {job.max_size:,} are allowed; its weights were "
                    "chosen to fit by an estimate."
                )
            stage = "parity"
            step = runtime.load(path)
            with clock.stage("parity"):
                outcome = parity.run(
                    step,
                    job.backend.shape_policy,
                    job.full,
                    job.quantized,
                    lambda fraction, message: on_stage("parity", 0.65 + 0.2 * fraction, message),
                    tightened=job.tightened,
                )
            known |= {"parity": outcome.parity, "quality": outcome.quality}
            if not outcome.parity.passed:
                on_stage("bisect", 1.0, "looking for the first stage that differs")
                with clock.stage("bisect"):
                    where = _bisect(job, lowered, path)
                known["parity"] = replace(outcome.parity, first_difference=where)
                raise _Failure(f"{_missed(outcome.parity)}; the first stage that differs: {where}")
            if job.judge is not None:
                stage = "quality"
                with clock.stage("quality"):
                    known["quality"] = _judged(job, job.judge, step, on_stage)
            known |= {"status": job.backend.verified_as, "file": name}
            known |= {"size_bytes": info.size_bytes, "sha256": info.sha256}
        except Exception as error:  # whatever a backend raises is this cell's failure and no other's
            path.unlink(missing_ok=True)
            if staging.disk_is_full(error):
                raise
            known |= {"status": Status.FAILED, "failed_stage": stage, "reason": _reason(error)}
            if isinstance(error, PtebotError):
                known["exit_code"] = error.exit_code
    notes = [
        *job.notes,
        *job.backend.notes,
        *_tied_note(job, known.get("size_bytes")),
        *_left_out_note(known.get("parity")),
    ]
    return Cell(
        backend=job.backend.name,
        precision=job.precision,
        title=job.backend.title,
        shape_policy=job.backend.shape_policy,
        attention=job.attention,
        quantization=job.detail,
        cache=job.cache,
        seconds=clock.seconds,
        peak_rss_bytes=peak.rss_bytes,
        notes=notes,
        **known,
    )


def failed(backend: str, precision: str, stage: str, error: Exception) -> Cell:
    """A cell of which nothing was made, for a stage before its own failed."""
    tried = error.tried if isinstance(error, QualityBudgetNotMet) else []
    return Cell(
        backend=backend,
        precision=precision,
        status=Status.FAILED,
        failed_stage=stage,
        reason=_reason(error),
        exit_code=error.exit_code if isinstance(error, PtebotError) else None,
        quantization=Quantization(algorithm=quantize.get(precision).title, parameters={}, layers=[], tried=tried)
        if tried
        else None,
    )


def _judged(job: Job, judge: QualityReference, step: Step, on_stage: OnStage) -> Quality:
    """What the written file costs; raises QualityBudgetNotMet where that is more than allowed."""

    def progress(fraction: float, message: str) -> None:
        on_stage("quality", 0.85 + 0.15 * fraction, message)

    found = quality.measure(step, job.backend.shape_policy, judge, progress=progress)
    if job.max_kl is not None and found.kl_mean > job.max_kl:
        raise QualityBudgetNotMet(
            f"The written file costs {found.kl_mean:.3g} nats where {job.max_kl:g} are allowed; its formats were "
            "chosen on the eager model."
        )
    return found


def _reason(error: Exception) -> str:
    if isinstance(error, _Failure | runtime.RuntimeFailed):
        return str(error)
    if isinstance(error, PtebotError):
        return error.what
    _LOG.error("a cell failed", exc_info=error)
    return f"{type(error).__name__}: {shown(error)}"


def _missed(found: Parity) -> str:
    missed = [
        f"{figure.name} is {figure.value:.3g} where {figure.relation} {figure.bound:.3g} is wanted "
        f"(against {comparison.against})"
        for comparison in found.comparisons
        for figure in comparison.figures
        if not figure.passed and figure.bound is not None
    ]
    return "parity bounds are not met: " + ", ".join(missed)


def _bisect(job: Job, lowered: lower.Lowered, path: Path) -> str:
    reference = job.full if job.quantized is None else job.quantized
    limit = bisect.limit_of(job.full, job.quantized, job.tightened)
    stages = bisect.stages_of(job.module, job.exported, lowered.edge, lambda: runtime.load(path))
    found = bisect.first_difference(stages, reference, job.backend.shape_policy, limit)
    job.module.reset()  # its caches are the traced program's, which other backends are lowered from
    return found


def _tied_note(job: Job, size_bytes: int | None) -> list[str]:
    model = job.module.model
    table = getattr(model.get_input_embeddings(), "weight", None)  # one in parts has none
    if size_bytes is None or table is None or job.detail is not None:
        return []
    output = getattr(model.get_output_embeddings(), "weight", None)
    once = sum(parameter.numel() * parameter.element_size() for parameter in model.parameters())
    table_bytes = table.nbytes
    if output is table and size_bytes >= once + 0.9 * table_bytes:
        return [
            f"the tied embedding is stored twice ({table_bytes / 1e6:,.1f} MB more): the delegate keeps its own copy "
            "for the output layer"
        ]
    return []


def _left_out_note(found: Parity | None) -> list[str]:
    if found is None or not found.left_out:
        return []
    names = ", ".join(item.partition(":")[0] for item in found.left_out)
    return [f"verified on a part of the texts, for this machine is slow with this file; left out: {names}"]


def file_name(ckpt: Checkpoint, backend: str, precision: str, cache: CacheFormat = "fp32") -> str:
    """``<backend>/<model>_<backend>_<precision>[_kv8].pte``."""
    suffix = "_kv8" if cache == "int8" else ""
    return f"{backend}/{ckpt.info.name}_{backend}_{precision}{suffix}.pte"
