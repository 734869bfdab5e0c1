"""Reports as the exporter writes them, built by hand, and output directories with files to go with them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from bot.hashes import git_oid
from exporter import report as reports
from exporter.report import (
    Cell,
    Comparison,
    Delegation,
    Figure,
    Host,
    ModelInfo,
    Parity,
    Quality,
    Report,
    SourceFile,
    Status,
    TextUsed,
)
from exporter.spec import ExportSpec, ModelRef

TOOLCHAIN = {"executorch": "1.5.1", "torch": "2.13.0+cpu", "torchao": "0.18.0", "openvino": "2025.4.1"}
SHA = "1" * 40


def figure(name: str, value: float, bound: float | None, *, passed: bool = True) -> Figure:
    return Figure(name=name, value=value, bound=bound, relation="<=", passed=passed, reason="measured")


def parity(precision: str, *, passed: bool = True) -> Parity:
    value = 1.1e-5 if passed else 3.5
    comparisons = [Comparison(against="full precision", figures=[figure("max difference", value, 1e-3, passed=passed)])]
    if precision != "fp32":
        own = Comparison(against="quantized eager", figures=[figure("mean KL", 2e-4, 1e-2)])
        full = Comparison(against="full precision", figures=[figure("mean KL", 0.02, None)])
        comparisons = [own, full]
    texts = [TextUsed(name="prose", tokens=200, sha256="a" * 64)]
    return Parity(passed=passed, positions=612, texts=texts, schedules=["prefill", "decode"], comparisons=comparisons)


def quality(verdict: str = "faithful") -> Quality:
    words = {
        "faithful": "It answers like the original.",
        "degraded": "It answers worse than the original.",
        "damaged": "Quantization damaged this model: do not ship this file.",
    }[verdict]
    return Quality(
        perplexity=28.29, perplexity_full=18.29, top1_agreement=0.651, kl_mean=0.55, verdict=verdict, words=words
    )


def cell(
    backend: str = "xnnpack",
    precision: str = "fp32",
    *,
    content: bytes | None = None,
    verdict: str = "faithful",
    **fields: Any,
) -> Cell:
    """A cell that ran, with ``content`` as its file's bytes."""
    data = content if content is not None else f"{backend} {precision} program".encode()
    return replace(
        Cell(
            backend=backend,
            precision=precision,
            status=Status.RAN,
            title=f"{backend.upper()} (CPUs)",
            file=f"{backend}/tiny_{backend}_{precision}.pte",
            size_bytes=len(data),
            sha256=hashlib.sha256(data).hexdigest(),
            shape_policy="single" if backend == "openvino" else "dynamic",
            attention="custom" if backend == "xnnpack" else "stock",
            methods=["forward", "get_max_seq_len"],
            metadata={"get_max_seq_len": 128, "get_eos_ids": [2]},
            delegation=Delegation(
                delegates=0 if backend == "portable" else 14,
                delegate_ids=[] if backend == "portable" else [f"{backend.capitalize()}Backend"],
                delegated_ops={},
                leftover_ops={"llama::custom_sdpa.out": 2, "aten::add.out": 3} if backend == "xnnpack" else {},
            ),
            parity=parity(precision),
            quality=quality(verdict) if precision != "fp32" else None,
        ),
        **fields,
    )


def failed(backend: str = "openvino", precision: str = "fp32", **fields: Any) -> Cell:
    """A cell without a file."""
    base = Cell(
        backend=backend, precision=precision, status=Status.FAILED, failed_stage="lower", reason="the compiler gave up"
    )
    return replace(base, **fields)


def source(files: dict[str, bytes]) -> list[SourceFile]:
    """What a report says of these files."""
    return [
        SourceFile(path=name, size_bytes=len(data), sha256=hashlib.sha256(data).hexdigest(), git_oid=git_oid(data))
        for name, data in sorted(files.items())
    ]


MODEL_FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": b"\x08\0\0\0\0\0\0\0{}      weights",
    "tokenizer.json": b'{"version": "1.0"}',
}


def report(
    cells: list[Cell] | None = None,
    *,
    files: dict[str, bytes] | None = None,
    repo_id: str | None = "acme/tiny",
    revision: str | None = SHA,
    seconds: float = 1.5,
    **fields: Any,
) -> Report:
    """A report of a tiny model; ``seconds`` stands for all that differs between two equal exports."""
    base = Report(
        schema_version=reports.SCHEMA_VERSION,
        generator="ptebot 0.1.0",
        model=ModelInfo(
            name="tiny",
            repo_id=repo_id,
            revision=revision,
            architecture="LlamaForCausalLM",
            model_type="llama",
            parameters=1_000,
            dtype="bfloat16",
            max_position_embeddings=128,
            sliding_window=None,
            tied_embedding=True,
            files=source(MODEL_FILES if files is None else files),
        ),
        spec=ExportSpec(model=ModelRef(repo_id=repo_id, revision=revision)),
        max_seq_len=128,
        toolchain=dict(TOOLCHAIN),
        host=Host(system="Linux", machine="x86_64", cpu="a CPU", logical_cpus=2, memory_bytes=8 << 30),
        seconds={"total": seconds},
        peak_rss_bytes=int(seconds * 1e9),
        cells=[cell("portable"), cell("xnnpack"), cell("xnnpack", "8da4w")] if cells is None else cells,
    )
    return replace(base, **fields)


def write(one: Report, directory: Path, contents: dict[str, bytes] | None = None) -> Path:
    """An output directory for a report: report.json and each file, with the content that ``cell`` gives it."""
    directory.mkdir(parents=True, exist_ok=True)
    for made in one.good_cells:
        assert made.file is not None
        data = (contents or {}).get(made.file, f"{made.backend} {made.precision} program".encode())
        path = directory / made.file
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    (directory / "report.json").write_text(reports.dumps(one))
    return directory
