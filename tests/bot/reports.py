"""Reports as the exporter writes them, built by hand, and output directories with files to go with them."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from bot.hashes import git_oid
from exporter import report as reports
from exporter.report import (
    Answer,
    CalibrationUsed,
    Cell,
    Comparison,
    Delegation,
    Figure,
    Host,
    LayerFormat,
    ModelInfo,
    Parity,
    Quality,
    Quantization,
    Report,
    SourceFile,
    Status,
    TextQuality,
    TextUsed,
    Tried,
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
    }.get(verdict, "It was never seen before.")
    return Quality(
        perplexity=28.29, perplexity_full=18.29, top1_agreement=0.651, kl_mean=0.55, verdict=verdict, words=words
    )


KINDS = {"docs": 1.0, "code": 0.6, "chat": 0.8, "own": 1.3}
"""Kinds of text to how hard they are here, beside all of them together."""
QUESTIONS = (
    ("What is the capital of France?", "The capital of France is Paris."),
    ("Name three colours of the rainbow.", "Three colours of the rainbow are red, orange and yellow."),
    ("How many legs does a spider have?", "A spider has eight legs."),
)


def measured(kl_mean: float, verdict: str, *, full: float = 18.29, repeats: int = 0) -> Quality:
    """Quality with every figure there can be: perplexity rises by the KL, and the first answers repeat themselves."""
    agreement = max(0.98 - kl_mean, 0.0)
    texts = [
        TextQuality(
            name=kind,
            positions=512,
            perplexity=full * factor * (1 + kl_mean),
            perplexity_full=full * factor,
            top1_agreement=agreement,
            kl_mean=kl_mean * factor,
            kl_p99=9 * kl_mean * factor,
        )
        for kind, factor in KINDS.items()
    ]
    answers = [
        Answer(
            prompt=prompt,
            original=original,
            file=original if number >= repeats else f"{original} " + "fashion, " * 20,
            same=number >= repeats,
            repeats=number < repeats,
        )
        for number, (prompt, original) in enumerate(QUESTIONS)
    ]
    return replace(
        quality(verdict),
        perplexity=full * (1 + kl_mean),
        perplexity_full=full,
        top1_agreement=agreement,
        kl_mean=kl_mean,
        kl_p99=9 * kl_mean,
        texts=texts,
        answers=answers,
        answers_total=12,
        answers_same=12 - 2 * repeats,
        answers_repeating=repeats,
    )


def quantization(*, calibrated: bool = True, tried: list[Tried] | None = None) -> Quantization:
    """Layers of four bits, some that calibration did not reach, and an embedding of eight bits."""
    left = [
        LayerFormat(
            name=f"model.layers.{layer}.mlp.experts.5.up_proj",
            format="int4",
            algorithm="rounded",
            reason="calibration text never reached it",
        )
        for layer in range(6)
    ]
    return Quantization(
        algorithm="error-compensated rounding" if calibrated else "rounding to nearest",
        parameters={"int4": 106_000_000, "int8": 28_300_000, "fp32": 35_000},
        layers=[
            LayerFormat(name="model.layers.0.self_attn.q_proj", format="int4", algorithm="calibrated"),
            *(left if calibrated else []),
            LayerFormat(name="model.embed_tokens", format="int8", algorithm="rounded"),
        ],
        calibration=CalibrationUsed(
            tokens=10_240, sequences=40, sha256="c" * 64, sources={"generated": 6_000, "docs": 4_240}, seed=0
        )
        if calibrated
        else None,
        tried=tried or [],
    )


TRIED = [
    Tried(what="every layer at 4 bits", size_bytes=94_000_000, kl_mean=0.11, within=False),
    Tried(what="down_proj at 8 bits", size_bytes=108_000_000, kl_mean=0.063, within=False),
    Tried(what="down_proj and v_proj at 8 bits", size_bytes=113_000_000, kl_mean=0.047, within=True, chosen=True),
    Tried(what="every layer at 8 bits", size_bytes=139_000_000, kl_mean=0.018, within=True),
]


def speaking() -> Report:
    """A report of a model of 135 million parameters with every figure, as its files would be offered."""
    rows: tuple[tuple[str, str, int, float, str, int], ...] = (
        ("xnnpack", "8da8w", 139_400_000, 0.018, "faithful", 0),
        ("xnnpack", "auto", 113_600_000, 0.047, "faithful", 0),
        ("xnnpack", "8da4w", 94_600_000, 0.108, "degraded", 0),
        ("xnnpack", "8da4w-rtn", 94_500_000, 0.52, "damaged", 2),
        ("portable", "8da4w", 95_700_000, 0.109, "degraded", 0),
    )
    cells = [cell("xnnpack", size_bytes=538_900_000), cell("portable", size_bytes=538_700_000)]
    for backend, precision, size_bytes, kl_mean, verdict, repeats in rows:
        cells.append(
            cell(
                backend,
                precision,
                size_bytes=size_bytes,
                quality=measured(kl_mean, verdict, repeats=repeats),
                quantization=quantization(
                    calibrated=precision != "8da4w-rtn", tried=TRIED if precision == "auto" else None
                ),
            )
        )
    base = report(cells, max_seq_len=2048)
    weights = replace(base.model.files[1], size_bytes=269_060_552)
    model = replace(base.model, name="SmolLM2-135M-Instruct", files=[base.model.files[0], weights])
    return replace(base, model=model, spec=replace(base.spec, precisions=("fp32", "auto"), max_kl=0.05))


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
