"""One export from end to end: a spec and a model directory in, a directory of proven files and a report out.

The stages, in order; what is listed once is done once:
1. check the spec against the tables, the model directory and the output directory; nothing is written yet
2. choose the kind of attention on a small model of the same architecture, and rehearse the whole chain on it
3. load the model once and compute the references
4. quantize once per precision, where the recipe wants it on calibration text that is made once
5. trace once per precision, shape policy and kind of attention
6. lower, write, read back, verify and judge once per cell
7. write ``report.json`` and move everything into place at once
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from exporter import (
    __version__,
    calibration,
    cell,
    checkpoint,
    facts,
    parity,
    quantize,
    rehearse,
    report,
    sizing,
    staging,
    texts,
    trace,
)
from exporter.backends import Backend, ShapePolicy
from exporter.checkpoint import Checkpoint
from exporter.errors import PtebotError
from exporter.guard import shown
from exporter.material import Material
from exporter.parity import Reference
from exporter.plan import plan
from exporter.report import Cell, Report, Status
from exporter.spec import ExportSpec
from exporter.static_cache import Attention, ExportableModule, use_attention

_LOG = logging.getLogger(__name__)
REPORT = "report.json"


@dataclass(frozen=True, kw_only=True)
class Progress:
    """One step of an export."""

    stage: str
    backend: str | None = None
    precision: str | None = None
    fraction: float | None = None
    """Of the whole job, 0 to 1."""
    message: str = ""


OnProgress = Callable[[Progress], None]

# Shares of a job's time, measured on SmolLM2-135M: lowering and verifying a cell outweigh all that is shared.
_SHARE_BEFORE, _SHARE_CELL = 2.0, 5.0
_SHARE_CALIBRATED = 3.0
"""For each precision that calibrates."""


def export(
    spec: ExportSpec,
    model_dir: Path,
    out_dir: Path,
    progress: OnProgress = lambda step: None,
    *,
    memory_limit_bytes: int | None = None,
) -> Report:
    """Export ``model_dir`` into ``out_dir`` (absent or empty), which appears whole or not at all.

    Returns the report also when no cell is good; ``report.good_cells`` tells.

    Args:
        memory_limit_bytes: what this process will be ended for; a model that cannot do with it is refused at once.

    Raises:
        PtebotError: a refusal (see exporter/errors.py) or a full disk; nothing is written then.
    """
    started = time.perf_counter()
    staging.check_empty(out_dir)
    todo = plan(spec)
    progress(Progress(stage="check", fraction=0.0, message=f"reading {model_dir.name}"))
    with facts.peak_memory() as peak:
        ckpt = checkpoint.inspect(model_dir, spec.model, spec.calibration)
        calibration.check(spec, model_dir)
        max_seq_len = checkpoint.context_length(ckpt, spec.max_seq_len)
        tokenizer = checkpoint.load_tokenizer(ckpt)
        sizing.check(ckpt, max_seq_len, len(todo.make), out_dir, memory_limit_bytes)
        with staging.staged(out_dir) as directory:
            work = _Work(spec, ckpt, max_seq_len, tokenizer, directory, progress, len(todo.make))
            cells = {(made.backend, made.precision): made for made in (*work.make(todo.make), *todo.skipped)}
            ordered = [cells[backend, precision] for backend in spec.backends for precision in spec.precisions]
            work.clock.seconds["total"] = round(time.perf_counter() - started, 3)
            peak_bytes = max(peak.rss_bytes, *(made.peak_rss_bytes or 0 for made in ordered))
            result = Report(
                schema_version=report.SCHEMA_VERSION,
                generator=f"ptebot {__version__}",
                model=ckpt.info,
                spec=spec,
                max_seq_len=max_seq_len,
                toolchain=facts.toolchain(),
                host=facts.host(),
                seconds=work.clock.seconds,
                peak_rss_bytes=peak_bytes,
                cells=ordered,
            )
            for empty in [path for path in directory.iterdir() if path.is_dir() and not any(path.iterdir())]:
                empty.rmdir()
            (directory / REPORT).write_text(report.dumps(result), encoding="utf-8")
    progress(Progress(stage="done", fraction=1.0, message=f"{len(result.good_cells)} of {len(ordered)} files are good"))
    return result


class _Work:
    """The state of one export: the model, its references, the clock and the progress."""

    def __init__(
        self,
        spec: ExportSpec,
        ckpt: Checkpoint,
        max_seq_len: int,
        tokenizer: Any,
        directory: Path,
        progress: OnProgress,
        cells: int,
    ) -> None:
        self.spec, self.ckpt, self.max_seq_len, self.directory = spec, ckpt, max_seq_len, directory
        self.tokenizer = tokenizer
        self.clock = facts.Clock()
        self._progress = progress
        calibrated = sum(quantize.get(name).calibrates for name in spec.precisions)
        self._done, self._whole = 0.0, _SHARE_BEFORE + _SHARE_CALIBRATED * calibrated + _SHARE_CELL * max(cells, 1)

    def make(self, wanted: list[tuple[Backend, str]]) -> list[Cell]:
        """Every wanted cell, made or failed."""
        if not wanted:
            return []
        self._say("rehearse", message="choosing attention on a small model of the same architecture")
        with self.clock.stage("rehearse"):
            chosen = rehearse.choose_attention(self.ckpt, [backend for backend, _ in wanted], self.spec.attention)
            failed = self._rehearse(wanted, chosen)
        remaining = [(backend, name) for backend, name in wanted if (backend.name, name) not in failed]
        if not remaining:
            return list(failed.values())
        self._say("load", message=f"loading {self.ckpt.info.parameters / 1e6:,.1f} M parameters")
        with self.clock.stage("load"):
            model = checkpoint.load_model(self.ckpt)
        short = texts.short_texts(self.tokenizer, self.max_seq_len, self.ckpt.vocab_size)
        end = texts.context_end_text(self.tokenizer, self.max_seq_len, self.ckpt.vocab_size)
        self._say("reference", message="running the eager model on the verification texts")
        with self.clock.stage("reference"):
            full = parity.reference(model, short, end)
        self._done = _SHARE_BEFORE
        material = self._material(model)
        made = []
        for precision in dict.fromkeys(name for _, name in remaining):
            here = [backend for backend, name in remaining if name == precision]
            made += self._precision(model, precision, here, chosen, full, material)
        return [*failed.values(), *made]

    def _rehearse(self, wanted: list[tuple[Backend, str]], chosen: dict[str, Attention]) -> dict[tuple[str, str], Cell]:
        if not self.spec.rehearse or not rehearse.worth_it(self.ckpt):
            return {}
        failed = {}
        for backend, precision in wanted:
            self._say("rehearse", backend=backend.name, precision=precision, message="the whole chain on one layer")
            reason = rehearse.chain(self.ckpt, backend, precision, self.spec.embedding, chosen[backend.name])
            if reason is not None:
                failed[backend.name, precision] = Cell(
                    backend=backend.name,
                    precision=precision,
                    status=Status.FAILED,
                    failed_stage="rehearse",
                    reason=reason,
                )
        return failed

    def _material(self, model: Any) -> Material:
        return Material(
            model=model,
            tokenizer=self.tokenizer,
            ckpt=self.ckpt,
            spec=self.spec,
            max_seq_len=self.max_seq_len,
            scratch=self.directory,
            clock=self.clock,
            progress=lambda stage, fraction, message: self._say(stage, message=f"{message} ({fraction:.0%})"),
        )

    def _precision(
        self,
        model: Any,
        precision: str,
        here: list[Backend],
        chosen: dict[str, Attention],
        full: Reference,
        material: Material,
    ) -> list[Cell]:
        recipe = quantize.get(precision)
        self._say("quantize", precision=precision, message=recipe.title)
        try:
            judge = None if recipe.exact else material.judge()
            if recipe.calibrates:
                material.calibration()
            with self.clock.stage(f"quantize {precision}"), torch.no_grad():
                quantized = recipe.apply(model, self._request(precision, material))
            if recipe.calibrates:
                self._done += _SHARE_CALIBRATED
            own_reference = None
            if not recipe.exact:
                self._say("reference", precision=precision, message="running the quantized eager model")
                use_attention(quantized.model, "stock", self.ckpt.attention)
                with self.clock.stage(f"reference {precision}"):
                    own_reference = parity.reference(quantized.model, full.texts, full.end)
        except Exception as error:  # a recipe that fails takes its cells with it, not the others
            if staging.disk_is_full(error):
                raise
            return self._all_failed(here, precision, "quantize", error)
        made = []
        groups: dict[tuple[Attention, ShapePolicy, str], list[Backend]] = {}
        for backend in here:
            kind = chosen[backend.name]
            # A trace with the runtime's attention serves one lowering only; see lower.lower.
            alone = backend.name if kind == "custom" else ""
            groups.setdefault((kind, backend.shape_policy, alone), []).append(backend)
        for (kind, policy, _), group in groups.items():
            self._say("trace", precision=precision, message=f"{policy} shapes, {kind} attention")
            try:
                with self.clock.stage(f"trace {precision} {policy} {kind}"):
                    use_attention(quantized.model, kind, self.ckpt.attention)
                    module = ExportableModule(quantized.model, self.max_seq_len, kind, self.ckpt.caches)
                    exported = trace.trace(module, policy)
            except Exception as error:  # a program that cannot be traced takes its backends with it, no others
                made += self._all_failed(group, precision, "trace", error)
                continue
            for backend in group:
                job = cell.Job(
                    backend=backend,
                    precision=precision,
                    embedding=quantized.embedding,
                    attention=kind,
                    module=module,
                    exported=exported,
                    full=full,
                    quantized=own_reference,
                    vocab_size=self.ckpt.vocab_size,
                    bos_id=self.ckpt.bos_id,
                    eos_ids=list(self.ckpt.eos_ids),
                    notes=list(quantized.notes),
                    tightened=self.spec.bounds,
                    judge=judge,
                    detail=quantized.detail,
                    max_size=self.spec.max_size if precision == "auto" else None,
                )
                made.append(self._cell(job))
        return made

    def _cell(self, job: cell.Job) -> Cell:
        name, precision = job.backend.name, job.precision

        def on_stage(stage: str, fraction: float, message: str) -> None:
            self._say(stage, backend=name, precision=precision, message=message, within=fraction * _SHARE_CELL)

        job.backend.prepare()
        made = cell.make(job, self.directory, cell.file_name(self.ckpt, name, precision), on_stage)
        self._done += _SHARE_CELL
        self._say("cell", backend=name, precision=precision, message=made.reason or made.status.value)
        return made

    def _request(self, precision: str, material: Material) -> quantize.Request:
        return quantize.Request(
            embedding=self.spec.embedding,
            calibration=material.calibration,
            judge=material.judge() if precision == "auto" else None,
            max_kl=self.spec.max_kl,
            max_size=self.spec.max_size,
            progress=lambda fraction, message: self._say(
                "quantize", precision=precision, message=message, within=fraction * _SHARE_CALIBRATED
            ),
        )

    def _all_failed(self, group: list[Backend], precision: str, stage: str, error: Exception) -> list[Cell]:
        if not isinstance(error, PtebotError):
            _LOG.exception("%s failed", stage)
        self._done += _SHARE_CELL * len(group)
        return [
            Cell(
                backend=backend.name,
                precision=precision,
                status=Status.FAILED,
                failed_stage=stage,
                reason=error.what if isinstance(error, PtebotError) else f"{type(error).__name__}: {shown(error)}",
                exit_code=error.exit_code if isinstance(error, PtebotError) else None,
            )
            for backend in group
        ]

    def _say(
        self,
        stage: str,
        *,
        backend: str | None = None,
        precision: str | None = None,
        message: str = "",
        within: float = 0.0,
    ) -> None:
        fraction = round(min((self._done + within) / self._whole, 1.0), 4)
        self._progress(Progress(stage=stage, backend=backend, precision=precision, fraction=fraction, message=message))
