"""What one export says of itself: the dataclasses are the JSON schema of ``report.json``.

Goes in: facts that the stages measured. Comes out: ``report.json`` (``dump``), read again by ``load``;
``docs/report.schema.json`` is generated from these classes (``make docs``) and a test holds the two alike.
Sizes are in bytes, times in seconds, KL divergences in nats. Figures that were not measured are null.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter

from exporter.errors import NoGoodCell
from exporter.spec import ExportSpec

SCHEMA_VERSION = 1
_STRICT = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class Status(str, Enum):
    """How far a cell was verified; only the first four offer a file."""

    RAN = "ran"
    """The written file ran on the ExecuTorch runtime here and met every bound."""
    SIMULATED = "simulated"
    """A vendor's or reference simulator ran the delegate and met every bound."""
    INTERPRETED = "interpreted"
    """An independent interpreter executed the graph and weights that are in the file."""
    INSPECTED = "inspected"
    """Only the file's structure was checked."""
    SKIPPED = "skipped"
    """Not made: the reason says why."""
    FAILED = "failed"
    """A stage failed or a bound was not met: the reason says which; no file is offered."""

    @property
    def good(self) -> bool:
        """Whether a file with this status may be offered."""
        return self not in (Status.SKIPPED, Status.FAILED)


@dataclass(frozen=True, kw_only=True)
class SourceFile:
    """One file of the model directory that the export depends on."""

    __pydantic_config__ = _STRICT
    path: str
    size_bytes: int
    sha256: str
    git_oid: str
    """The file's git blob id (SHA-1 of ``blob <size>\\0<bytes>``), comparable with a hub's tree."""


@dataclass(frozen=True, kw_only=True)
class ModelInfo:
    """The model that was exported."""

    __pydantic_config__ = _STRICT
    name: str
    repo_id: str | None
    revision: str | None
    architecture: str
    model_type: str
    parameters: int
    dtype: str
    """The checkpoint's own dtype; exports compute in float32."""
    max_position_embeddings: int | None
    sliding_window: int | None
    tied_embedding: bool
    files: list[SourceFile]


@dataclass(frozen=True, kw_only=True)
class Host:
    """The machine that exported and verified."""

    __pydantic_config__ = _STRICT
    system: str
    machine: str
    cpu: str
    logical_cpus: int
    memory_bytes: int


@dataclass(frozen=True, kw_only=True)
class Delegation:
    """What runs inside delegates and what is left to the portable kernels, counted in the written file."""

    __pydantic_config__ = _STRICT
    delegates: int
    """Delegate calls in ``forward``."""
    delegate_ids: list[str]
    delegated_ops: dict[str, int]
    """Operator name to count inside the delegates, counted when they were lowered."""
    leftover_ops: dict[str, int]
    """Kernel calls left in the written file, operator name to count."""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """One measured number beside its bound."""

    __pydantic_config__ = _STRICT
    name: str
    value: float
    bound: float | None
    relation: str
    """``<=`` or ``>=``: how value must stand to bound; a figure without a bound always passes."""
    passed: bool
    reason: str
    """Why the bound is what it is."""


@dataclass(frozen=True, kw_only=True)
class Comparison:
    """The written file against one reference, over every position of every text."""

    __pydantic_config__ = _STRICT
    against: str
    """``full precision`` or ``quantized eager``."""
    figures: list[Figure]

    @property
    def passed(self) -> bool:
        return all(figure.passed for figure in self.figures)


@dataclass(frozen=True, kw_only=True)
class TextUsed:
    """One text that parity ran over."""

    __pydantic_config__ = _STRICT
    name: str
    tokens: int
    sha256: str


@dataclass(frozen=True, kw_only=True)
class Parity:
    """The written file on the runtime against the eager model, teacher-forced."""

    __pydantic_config__ = _STRICT
    passed: bool
    positions: int
    texts: list[TextUsed]
    schedules: list[str]
    """How tokens were fed: prefill, chunks, decode, context end, replay."""
    comparisons: list[Comparison]
    left_out: list[str] = field(default_factory=list)
    """What was not fed, or not to its end, because this machine is too slow for it with this file."""
    first_difference: str | None = None
    """On failure, the first stage that differs: eager module, exported program, edge program or file."""


@dataclass(frozen=True, kw_only=True)
class TextQuality:
    """What quantization costs on text of one kind."""

    __pydantic_config__ = _STRICT
    name: str
    """``docs``, ``code``, ``chat``, or ``own``: text that the model's owner named."""
    positions: int
    perplexity: float
    perplexity_full: float
    top1_agreement: float
    kl_mean: float
    kl_p99: float
    """The 99th percentile of the positions' KL, in nats."""


@dataclass(frozen=True, kw_only=True)
class Answer:
    """One greedy answer of the file beside the original's."""

    __pydantic_config__ = _STRICT
    prompt: str
    original: str
    file: str
    same: bool
    repeats: bool
    """Whether the file's answer falls into repetition where the original's does not."""


@dataclass(frozen=True, kw_only=True)
class Quality:
    """What quantization costs: the written file against full precision on held-out text."""

    __pydantic_config__ = _STRICT
    perplexity: float
    perplexity_full: float
    top1_agreement: float
    kl_mean: float
    verdict: str
    """``faithful``, ``degraded`` or ``damaged``: thresholds in exporter/bounds.py."""
    words: str
    """The verdict in plain words for a card."""
    kl_p99: float | None = None
    """The 99th percentile of the positions' KL over all kinds of text, in nats."""
    texts: list[TextQuality] = field(default_factory=list)
    """Figures for each kind of text; where there are some, those above are over all of their positions."""
    answers: list[Answer] = field(default_factory=list)
    """A few of those that were compared, the worst first."""
    answers_total: int = 0
    """Questions that both answered, greedily."""
    answers_same: int = 0
    """Answers of the file that are the original's, token by token."""
    answers_repeating: int = 0
    """Answers of the file that fall into repetition where the original's do not."""
    left_out: list[str] = field(default_factory=list)
    """What was not measured, or not to its end, and why."""


@dataclass(frozen=True, kw_only=True)
class LayerFormat:
    """How the weights of one layer are kept."""

    __pydantic_config__ = _STRICT
    name: str
    format: str
    """``int4`` (groups of 32), ``int8`` (one scale a row) or ``fp32``."""
    algorithm: str
    """``calibrated``, ``rounded`` (to nearest) or ``kept``."""
    reason: str | None = None
    """Why it is not calibrated."""


@dataclass(frozen=True, kw_only=True)
class CalibrationUsed:
    """The text that calibration saw."""

    __pydantic_config__ = _STRICT
    tokens: int
    sequences: int
    sha256: str
    """Of the token ids of all sequences in order: 8 bytes each, little endian, a -1 after every sequence."""
    sources: dict[str, int]
    """Where it came from (``generated``, ``docs``, ``code``, or a file that the owner named) to tokens."""
    seed: int


@dataclass(frozen=True, kw_only=True)
class Tried:
    """One assignment of formats that was measured."""

    __pydantic_config__ = _STRICT
    what: str
    size_bytes: int
    """Estimate of the file's size."""
    kl_mean: float
    """From the original to the quantized eager model, in nats."""
    within: bool
    """Whether it is within the budget, with a little to spare for what lowering adds."""
    chosen: bool = False


@dataclass(frozen=True, kw_only=True)
class Quantization:
    """How the weights were made smaller."""

    __pydantic_config__ = _STRICT
    algorithm: str
    """In words for a card."""
    parameters: dict[str, int]
    """Parameters by format of their weights."""
    layers: list[LayerFormat]
    calibration: CalibrationUsed | None = None
    tried: list[Tried] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Cell:
    """One backend at one precision."""

    __pydantic_config__ = _STRICT
    backend: str
    precision: str
    status: Status
    title: str | None = None
    """The backend and where its files run, in words for a card: its ``title``."""
    reason: str | None = None
    failed_stage: str | None = None
    file: str | None = None
    """Path below the output directory, with forward slashes."""
    size_bytes: int | None = None
    sha256: str | None = None
    shape_policy: str | None = None
    """``dynamic`` (prefill of any length) or ``single`` (one token a call)."""
    attention: str | None = None
    """``custom`` (the runtime's SDPA and cache ops) or ``stock`` (core ops)."""
    methods: list[str] = field(default_factory=list)
    metadata: dict[str, Any] = field(default_factory=dict)
    """Constant methods, read back from the written file."""
    delegation: Delegation | None = None
    parity: Parity | None = None
    quality: Quality | None = None
    quantization: Quantization | None = None
    """Null for an exact file; where nothing was within a budget, only what was tried."""
    cache: str = "fp32"
    """Values of the KV cache: ``fp32`` or ``int8``."""
    seconds: dict[str, float] = field(default_factory=dict)
    peak_rss_bytes: int | None = None
    exit_code: int | None = None
    """The exit status of its failure where that has one of its own (docs/exit-codes.md)."""
    notes: list[str] = field(default_factory=list)
    """What a person should know, e.g. that a tied embedding is stored twice."""


@dataclass(frozen=True, kw_only=True)
class Report:
    """``report.json``; published as ``executorch/manifest.json``."""

    __pydantic_config__ = _STRICT
    schema_version: int
    generator: str
    model: ModelInfo
    spec: ExportSpec
    max_seq_len: int
    """The context length that the files were made for, in tokens."""
    toolchain: dict[str, str]
    """Package name to version, of everything that shapes the files."""
    host: Host
    seconds: dict[str, float]
    """Stages shared by cells (load, quantize, trace, reference), and ``total``."""
    peak_rss_bytes: int
    cells: list[Cell]

    @property
    def good_cells(self) -> list[Cell]:
        return [cell for cell in self.cells if cell.status.good]

    @property
    def exit_code(self) -> int:
        """The exit status of the export: 0 with a good cell; else the code that all failed cells share, or 3."""
        if self.good_cells:
            return 0
        codes = {cell.exit_code for cell in self.cells if cell.status is Status.FAILED}
        return next(iter(codes)) or NoGoodCell.exit_code if len(codes) == 1 else NoGoodCell.exit_code


_ADAPTER = TypeAdapter(Report)


def dumps(report: Report) -> str:
    """The report as JSON text with a closing newline (UTF-8, two-space indent, fields in class order)."""
    return json.dumps(_ADAPTER.dump_python(report, mode="json"), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def loads(text: str | bytes) -> Report:
    """Parse ``report.json``.

    Raises:
        pydantic.ValidationError: the text is not a report of this schema.
    """
    return _ADAPTER.validate_json(text)


def load(path: Path) -> Report:
    """Read a report from a file; see ``loads``."""
    return loads(path.read_bytes())


def json_schema() -> dict[str, Any]:
    """The JSON Schema of ``report.json`` (draft 2020-12)."""
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **_ADAPTER.json_schema()}
