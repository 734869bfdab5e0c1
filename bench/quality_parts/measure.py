"""One model, every method, the same text: what bench/quality.py reports of it.

Goes in: a model directory, the wanted parts, and where peers are found. Comes out: methods with bytes and scores,
answers, cost, and the figures that the bars judge. What fails is told in its figures' place and ends nothing else.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from bench.quality_parts import cost, llama, optimum, ours, talk, texts
from bench.quality_parts.bars import Open
from bench.quality_parts.plot import Point
from bench.quality_parts.score import ALL, Score, Sequence
from bot.errors import RunnerFailed
from exporter import bounds
from exporter.report import Report

RTN, CALIBRATED, AUTO = "8da4w-rtn", "8da4w", "auto"
MAX_KL = 0.05
CONTEXT = 256
"""Of every file, ours and the peer's."""
JUDGED_PARAMETERS = 50_000_000
"""Below, libraries outweigh the weights in memory, and calibration's fixed work its layers."""
_NEEDED = {
    "rounding": (RTN, CALIBRATED),
    "optimum": (RTN, CALIBRATED),
    "llama": (),
    "runner": (RTN, CALIBRATED),
    "auto": (CALIBRATED, AUTO),
    "cost": (),
    "parity": (RTN, CALIBRATED, "8da8w", "4w", AUTO),
}
_AT_SIZE_OF = ("Q4_0", "Q4_K_M")


@dataclass(frozen=True, kw_only=True)
class Peers:
    """Where peers are found; all None: none is measured."""

    llama_python: Path | None = None
    optimum_python: Path | None = None
    optimum_file: Path | None = None
    files: Path | None = None
    """Folder for the peers' files of this model."""


@dataclass(frozen=True, kw_only=True)
class Method:
    """One file, measured."""

    name: str
    family: str
    """``ours`` or ``peer``"""
    size_bytes: int
    weights_bytes: int
    """Without the tokenizer's tables that a GGUF file carries."""
    scores: dict[str, Score]


@dataclass
class Measured:
    """Everything about one model."""

    methods: dict[str, Method] = field(default_factory=dict)
    figures: dict[str, float | Open] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    """Figure name to what a reader must know of it."""
    problems: list[str] = field(default_factory=list)
    answers: dict[str, list[talk.Said]] = field(default_factory=dict)
    cost: cost.Cost | None = None
    texts: list[Sequence] = field(default_factory=list)
    reports: dict[str, Report] = field(default_factory=dict)

    @property
    def points(self) -> list[Point]:
        return [
            Point(name=m.name, family=m.family, size_bytes=m.size_bytes, kl_mean=m.scores[ALL].kl_mean)
            for m in self.methods.values()
        ]


class Bench:
    """Measures one model."""

    def __init__(self, model_dir: Path, files: Path, wanted: tuple[str, ...], peers: Peers, *, speaks: bool) -> None:
        self._dir, self._files, self._wanted, self._peers, self._speaks = model_dir, files, wanted, peers, speaks
        self._missing: dict[str, Open] = {}
        self.found = Measured()

    def run(self) -> Measured:
        if set(self._wanted) - {"cost"}:
            self._load()
            tables = self._llama() if "llama" in self._wanted else 0
            self._ours()
            if "optimum" in self._wanted:
                self._optimum()
            if "llama" in self._wanted:
                self._at_sizes(tables)
        for part in self._wanted:
            getattr(self, f"_judge_{part}")()
        return self.found

    def _load(self) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        _say(f"{self._dir.name}: texts and the original's logits")
        self._model = AutoModelForCausalLM.from_pretrained(self._dir, dtype=torch.float32, use_safetensors=True).eval()
        self._parameters = sum(tensor.numel() for tensor in self._model.parameters())
        self.found.texts = texts.sequences(self._model, AutoTokenizer.from_pretrained(self._dir))
        self._full = texts.original(self._model, self.found.texts)

    def _llama(self) -> int:
        """Every format of llama.cpp; gives the bytes of a GGUF file that are no weights."""
        if self._peers.llama_python is None or self._peers.files is None:
            self._miss(llama.FORMATS, Open(why="llama.cpp was not asked for (--peers, --llama-python)"))
            return 0
        try:
            peer = llama.Llama(self._peers.llama_python, self._model, self._dir, self._peers.files)
            self.found.problems.append(
                f"the float32 GGUF against the original: mean KL {peer.prove(self.found.texts, self._full):.1e}"
            )
            for wanted in llama.FORMATS:
                _say(f"llama.cpp {wanted}")
                scores = peer.score(wanted, self.found.texts, self._full)
                size = peer.file(wanted).stat().st_size
                self._add(f"llama.cpp {wanted}", "peer", size, size - peer.tables_bytes, scores, key=wanted)
        except llama.PeerUnavailable as problem:
            self._miss(llama.FORMATS, Open(why=str(problem), failed=True))
            return 0
        return peer.tables_bytes

    def _optimum(self) -> None:
        peers, file = self._peers, self._peers.optimum_file
        try:
            if file is None and peers.optimum_python is not None and peers.files is not None:
                _say("optimum-executorch exports; this takes a quarter of an hour for 135 M parameters")
                file = optimum.export(peers.optimum_python, self._dir, peers.files / "optimum.pte")
            if file is not None:
                size = file.stat().st_size
                self._add(optimum.NAME, "peer", size, size, ours.score(file, self.found.texts, self._full))
        except (llama.PeerUnavailable, OSError) as problem:
            self._miss((optimum.NAME,), Open(why=str(problem), failed=True))

    def _ours(self) -> None:
        needed = {name for part in self._wanted for name in _NEEDED[part]}
        precisions = [name for name in (RTN, CALIBRATED, "8da8w", "4w", AUTO) if name in needed and ours.takes(name)]
        self._miss(needed - set(precisions), Open(why=f"{ours.BACKEND} does not take it"))
        if precisions:
            budget = {"max_kl": MAX_KL} if AUTO in precisions else {}
            # A folder for each set, so that a later run with other parts does not meet another export.
            folder = self._files / "-".join(precisions)
            self._export(folder, precisions, {name: name for name in precisions}, **budget)

    def _at_sizes(self, tables: int) -> None:
        """``auto`` with the size of each peer's weights as its budget."""
        for wanted in _AT_SIZE_OF:
            name = f"{AUTO} at {wanted}'s size"
            if (peer := self.found.methods.get(wanted)) is None:
                self._miss((name,), self._missing.get(wanted, Open(why=f"{wanted} is missing")))
                continue
            budget = peer.size_bytes - tables
            self._export(self._files / f"auto-{budget}", [AUTO], {AUTO: name}, max_size=budget)

    def _export(self, folder: Path, precisions: list[str], names: dict[str, str], **budget: Any) -> None:
        _say(f"exporting {', '.join(precisions)} {budget or ''} into {folder}")
        try:
            report = ours.export(self._dir, folder, precisions, CONTEXT, **budget)
        except ours.ExportFailed as problem:
            self._miss(names.values(), Open(why=str(problem), failed=True))
            return
        self.found.reports[folder.name] = report
        for precision, name in names.items():
            try:
                made = ours.cell(report, precision)
                file = folder / str(made.file)
                _say(f"{name}: {file.name}")
                scores = ours.score(file, self.found.texts, self._full)
                self._add(name, "ours", file.stat().st_size, file.stat().st_size, scores)
            except (ours.ExportFailed, ValueError) as problem:
                self._miss((name,), Open(why=str(problem), failed=True))

    def _add(self, name: str, family: str, size: int, weights: int, scores: dict[str, Score], key: str = "") -> None:
        self.found.methods[key or name] = Method(
            name=name, family=family, size_bytes=size, weights_bytes=weights, scores=scores
        )

    def _miss(self, names: Any, why: Open) -> None:
        for name in names:
            self._missing[name] = why
            if why.failed:
                self.found.problems.append(f"{name}: {why.why}")

    def _ratio(self, figure: str, part: str, whole: str, of: str) -> None:
        """``figure``: bytes, KL or rise of perplexity of one method over another's."""
        pair = []
        for name in (part, whole):
            if (method := self.found.methods.get(name)) is None:
                self.found.figures[figure] = self._missing.get(name, Open(why=f"{name} was not made", failed=True))
                return
            score = method.scores[ALL]
            rise = score.perplexity - score.perplexity_full
            pair.append({"bytes": method.weights_bytes, "kl": score.kl_mean, "perplexity": rise}[of])
        # A rise below zero is none.
        self.found.figures[figure] = max(pair[0], 0.0) / pair[1] if pair[1] > 0 else float("inf")

    def _judge_rounding(self) -> None:
        for of in ("bytes", "kl", "perplexity"):
            self._ratio(f"rounding.{of}", CALIBRATED, RTN, of)

    def _judge_optimum(self) -> None:
        whole = optimum.NAME
        if whole not in self.found.methods and whole not in self._missing:
            whole = RTN
            # Not the same scales: optimum-executorch 1.1.0 lets torchao choose them by HQQ ("hqq_scale_only").
            stand_in = f"beside {RTN} with an 8w embedding, the same formats, in place of the peer's file"
            self.found.notes |= {f"optimum.{of}": stand_in for of in ("bytes", "kl")}
        for of in ("bytes", "kl"):
            self._ratio(f"optimum.{of}", CALIBRATED, whole, of)

    def _judge_llama(self) -> None:
        for of in ("bytes", "kl"):
            self._ratio(f"llama.{of}", f"{AUTO} at Q4_K_M's size", "Q4_K_M", of)

    def _judge_auto(self) -> None:
        self._ratio("auto.bytes", AUTO, CALIBRATED, "bytes")

    def _judge_runner(self) -> None:
        if not self._speaks:
            why = Open(why="this model does not answer questions")
            self.found.figures |= {"runner.repeats": why, "runner.france": why}
            return
        asked = talk.questions()
        try:
            if not self.found.reports:
                raise ours.ExportFailed("nothing was exported")
            folder, report = next(iter(self.found.reports.items()))  # the first one has the precisions by name
            _say("twelve questions to the original")
            original = talk.originals(self._dir, asked)
            for precision in (CALIBRATED, RTN):
                _say(f"twelve questions to {precision}")
                file = self._files / folder / str(ours.cell(report, precision).file)
                self.found.answers[precision] = talk.answers(file, self._dir, asked, original)
        except (ours.ExportFailed, RunnerFailed) as problem:
            self.found.problems.append(f"the LLM runner: {problem}")
        if said := self.found.answers.get(CALIBRATED):
            looped = sum(one.file_repeats and not one.original_repeats for one in said)
            self.found.figures |= {"runner.repeats": float(looped), "runner.france": float(said[0].same)}

    def _judge_cost(self) -> None:
        _say("calibration, by itself")
        try:
            self.found.cost = found = cost.measure(self._dir, CONTEXT)
        except RuntimeError as problem:
            self.found.problems.append(str(problem))
            return
        if found.parameters < JUDGED_PARAMETERS:
            why = Open(why=f"{found.parameters / 1e6:.1f} M parameters are too few: see docs/quality.md")
            self.found.figures |= {"cost.linearity": why, "cost.memory": why}
        else:
            self.found.figures |= {"cost.linearity": found.linearity, "cost.memory": found.memory_ratio}
        self.found.figures["cost.seconds"] = found.seconds

    def _judge_parity(self) -> None:
        values = [
            figure.value
            for report in self.found.reports.values()
            for cell in report.cells
            for comparison in (cell.parity.comparisons if cell.parity else ())
            for figure in comparison.figures
            if comparison.against == bounds.QUANTIZED and figure.name == "kl_over_cost"
        ]
        if values:
            self.found.figures["parity.kl_over_cost"] = max(values)


def _say(words: str) -> None:
    print(words, file=sys.stderr, flush=True)
