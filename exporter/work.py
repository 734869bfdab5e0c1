"""The work of one export: from a checked model to cells, each thing that cells share made once.

Stages 3 and 4 of the way of one request. Goes in: the spec, the checkpoint, the plan's cells and a staged directory.
Comes out: every cell, made or failed; ``exporter.run`` writes the report.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from exporter import backend_quantize, cell, checkpoint, facts, parity, quantize, rehearse, staging, texts, trace
from exporter.backends import Backend, ShapePolicy, choose_cache
from exporter.checkpoint import Checkpoint
from exporter.errors import DiskFull
from exporter.material import Material
from exporter.parity import Reference
from exporter.progress import OnProgress, Progress
from exporter.quality import QualityReference
from exporter.quantize import Quantized
from exporter.quantized_cache import CacheFormat
from exporter.report import Cell, Status
from exporter.spec import ExportSpec
from exporter.static_cache import Attention, ExportableModule, as_loaded, use_attention

# Shares of a job's time, measured on SmolLM2-135M: lowering and verifying a cell outweigh all that is shared.
_SHARE_BEFORE, _SHARE_CELL = 2.0, 5.0
_SHARE_CALIBRATED = 3.0
"""For each precision that calibrates."""


@dataclass(frozen=True, kw_only=True)
class _Trace:
    """What the cells of one trace share."""

    attention: Attention
    policy: ShapePolicy
    cache: CacheFormat
    alone: str
    """The one backend that it serves, or an empty string."""


@dataclass(frozen=True, kw_only=True)
class _Made:
    """What the cells of one precision share."""

    precision: str
    exact: bool
    quantized: Quantized
    full: Reference
    own: Reference | None
    """Of the quantized eager model with float32 caches; None where nothing was rounded, or no file is held to it."""
    judge: QualityReference | None


class Work:
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
            reason = rehearse.chain(
                self.ckpt, backend, precision, self.spec.embedding, chosen[backend.name], self.spec.cache
            )
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
        recipe, groups = quantize.get(precision), self._groups(here, chosen)
        done = self._done + _SHARE_CALIBRATED * recipe.calibrates
        self._say("quantize", precision=precision, message=recipe.title)
        try:
            as_loaded(model, self.ckpt.attention)
            quantized = self._quantized(model, precision, recipe, material)
            self._done = done
            own = None
            plain = [backend for how, group in groups.items() if how.cache == "fp32" for backend in group]
            if not recipe.exact and any(not backend_quantize.takes(backend, precision) for backend in plain):
                use_attention(quantized.model, "stock", self.ckpt.attention)
                with self._referring(precision):
                    own = parity.reference(quantized.model, full.texts, full.end)
            judge = None if recipe.exact and self.spec.cache == "fp32" else material.judge()
        except Exception as error:  # a recipe that fails takes its cells with it, not the others
            _raise_a_full_disk(error)
            return self._all_failed(here, precision, "quantize", error)
        finally:
            self._done = done
        shared = _Made(precision=precision, exact=recipe.exact, quantized=quantized, full=full, own=own, judge=judge)
        return [made for how, group in groups.items() for made in self._traced(how, group, shared, material)]

    def _groups(self, here: list[Backend], chosen: dict[str, Attention]) -> dict[_Trace, list[Backend]]:
        """Backends by the trace that they are lowered from."""
        groups: dict[_Trace, list[Backend]] = {}
        for backend in here:
            kind = chosen[backend.name]
            # A trace with the runtime's attention serves one lowering only; see lower.lower.
            alone = backend.name if kind == "custom" else ""
            cache, _ = choose_cache(backend, kind, self.spec.cache)
            how = _Trace(attention=kind, policy=backend.shape_policy, cache=cache, alone=alone)
            groups.setdefault(how, []).append(backend)
        return groups

    @contextmanager
    def _referring(self, precision: str) -> Iterator[None]:
        self._say("reference", precision=precision, message="running the quantized eager model")
        with self.clock.stage(f"reference {precision}"):
            yield

    def _quantized(self, model: Any, precision: str, recipe: quantize.Recipe, material: Material) -> Quantized:
        notes = material.calibration().notes if recipe.calibrates else []
        with self.clock.stage(f"quantize {precision}"), torch.no_grad():
            quantized = recipe.apply(model, self._request(precision, material))
        return replace(quantized, notes=[*quantized.notes, *notes])

    def _traced(self, how: _Trace, group: list[Backend], shared: _Made, material: Material) -> list[Cell]:
        precision = shared.precision
        self._say("trace", precision=precision, message=f"{how.policy} shapes, {how.attention} attention")
        try:
            with self.clock.stage(f"trace {precision} {how.policy} {how.attention}"):
                use_attention(shared.quantized.model, how.attention, self.ckpt.attention)
                module = ExportableModule(
                    shared.quantized.model, self.max_seq_len, how.attention, self.ckpt.caches, how.cache
                )
                exported = trace.trace(module, how.policy)
            if how.cache != "fp32":
                with self._referring(precision):
                    own = parity.reference_through_caches(module, shared.full.texts, shared.full.end)
                shared = replace(shared, own=own)
        except Exception as error:  # a program that cannot be traced takes its backends with it, no others
            _raise_a_full_disk(error)
            return self._all_failed(group, precision, "trace", error)
        made = []
        for backend in group:
            try:
                job = self._job(backend, how, shared, module, exported, material)
            except Exception as error:  # a toolchain of its own may raise whatever it likes
                _raise_a_full_disk(error)
                made += self._all_failed([backend], precision, "quantize", error)
                continue
            made.append(self._cell(job))
        return made

    def _job(
        self,
        backend: Backend,
        how: _Trace,
        shared: _Made,
        module: ExportableModule,
        exported: ExportedProgram,
        material: Material,
    ) -> cell.Job:
        _, cache_notes = choose_cache(backend, how.attention, self.spec.cache)
        job = cell.Job(
            backend=backend,
            precision=shared.precision,
            embedding=shared.quantized.embedding,
            attention=how.attention,
            cache=how.cache,
            module=module,
            exported=exported,
            full=shared.full,
            quantized=shared.own,
            vocab_size=self.ckpt.vocab_size,
            bos_id=self.ckpt.bos_id,
            eos_ids=list(self.ckpt.eos_ids),
            notes=[*shared.quantized.notes, *cache_notes],
            tightened=self.spec.bounds,
            judge=None if shared.exact and how.cache == "fp32" else shared.judge,
            detail=shared.quantized.detail,
            max_size=self.spec.max_size if shared.precision == "auto" else None,
            max_kl=self.spec.max_kl if shared.precision == "auto" else None,
        )
        if not backend_quantize.takes(backend, shared.precision):
            return job

        def told(fraction: float, message: str) -> None:
            message = f"{message} ({fraction:.0%})"
            self._say("quantize", backend=backend.name, precision=shared.precision, message=message)

        with self.clock.stage(f"quantize {shared.precision} by {backend.name}"):
            return backend_quantize.by_itself(job, material.calibration(), told)

    def _cell(self, job: cell.Job) -> Cell:
        name, precision = job.backend.name, job.precision

        def on_stage(stage: str, fraction: float, message: str) -> None:
            self._say(stage, backend=name, precision=precision, message=message, within=fraction * _SHARE_CELL)

        job.backend.prepare()
        made = cell.make(job, self.directory, cell.file_name(self.ckpt, name, precision, job.cache), on_stage)
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
            restore=lambda model: checkpoint.restore(model, self.ckpt),
            progress=lambda fraction, message: self._say(
                "quantize", precision=precision, message=message, within=fraction * _SHARE_CALIBRATED
            ),
        )

    def _all_failed(self, group: list[Backend], precision: str, stage: str, error: Exception) -> list[Cell]:
        self._done += _SHARE_CELL * len(group)
        failed = cell.failed(group[0].name, precision, stage, error)
        return [replace(failed, backend=backend.name) for backend in group]

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


def _raise_a_full_disk(error: Exception) -> None:
    if isinstance(error, DiskFull) or staging.disk_is_full(error):
        raise error
