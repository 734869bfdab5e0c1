"""``python -m exporter.validate FILE.pte MODEL_DIR [TEXT...]``: any file of this signature against its model.

Goes in: a ``.pte`` file, whoever made it, with ``forward(input_ids [1, S] int64, cache_position [S] int64) ->
logits``, the model directory that it was made from, and the names of the owner's texts in there. Comes out: a
``Validation``: parity against full precision with the same texts, schedules and bounds as an export, and whether the
runner metadata fit the model. A file that rounds (told by its ops and size) is graded by what quantization cost, for
there is no quantized model to hold it to: on text of every kind, with answers beside the original's, as an export's
files are (``exporter.quality``).

stdout carries progress lines as in ``python -m exporter``; the last line is ``{"stage": "result", "validation":
{...}}``, or the typed failure. The exit status is 0 when the file passed, 3 when it did not.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

from exporter import backends, calibration, checkpoint, parity, pte, quality, runtime, texts
from exporter.backends import ShapePolicy
from exporter.checkpoint import Checkpoint
from exporter.errors import InvalidPte, NoGoodCell
from exporter.guard import shown
from exporter.parity import Reference
from exporter.progress import OnProgress, Progress
from exporter.pte import PteInfo
from exporter.quality import QualityReference
from exporter.report import Figure, Parity, Quality
from exporter.schedule import Step
from exporter.spec import ModelRef
from exporter.wall import guarded_main

_INT64 = "int64"
"""The runtime's number for int64 (c10::ScalarType::Long)."""


@dataclass(frozen=True, kw_only=True)
class Validation:
    """What running one file against its model gave."""

    passed: bool
    kind: str
    """``exact`` (held to the float32 bounds) or ``quantized`` (graded by its cost)."""
    reason: str | None
    """Why it did not pass."""
    size_bytes: int
    sha256: str
    max_seq_len: int
    shape_policy: ShapePolicy
    metadata_problems: list[str] = field(default_factory=list)
    """Where the constant methods do not fit the model; ExecuTorch's runner would go wrong there."""
    parity: Parity | None = None
    quality: Quality | None = None


def validate(
    file: Path, model_dir: Path, progress: OnProgress = lambda step: None, own: Sequence[str] = ()
) -> Validation:
    """Run ``file`` against the eager model in ``model_dir``.

    Args:
        own: the owner's texts, as ``ExportSpec.calibration``; a file that rounds is judged on the parts of them that an
            export judges on.

    Raises:
        InvalidPte: not a program, or not of this signature.
        InvalidCalibration: one of ``own`` cannot be used.
        PtebotError: the model directory is refused.
    """
    progress(Progress(stage="check", fraction=0.0, message=f"reading {file.name}"))
    info = pte.read(file)
    shape_policy, limit = _signature(file, info)
    ckpt = checkpoint.inspect(model_dir, ModelRef())
    passages = calibration.own_evaluation(own, ckpt.directory)
    for name in backends.TABLE:
        backend = backends.get(name)
        if backend.availability().available:
            backend.prepare()
    max_seq_len = _context(info, ckpt, limit)
    tokenizer = checkpoint.load_tokenizer(ckpt)
    progress(Progress(stage="reference", fraction=0.1, message="running the eager model on the verification texts"))
    model = checkpoint.load_model(ckpt)
    short = texts.short_texts(tokenizer, max_seq_len, ckpt.vocab_size)
    full = parity.reference(model, short, texts.context_end_text(tokenizer, max_seq_len, ckpt.vocab_size))
    judge = _judge(model, tokenizer, ckpt, max_seq_len, passages, progress) if _rounds(info, ckpt) else None

    def on_pass(fraction: float, message: str) -> None:
        share = 0.7 if judge is None else 0.4
        progress(Progress(stage="parity", fraction=round(0.3 + share * fraction, 4), message=message))

    def on_text(fraction: float, message: str) -> None:
        progress(Progress(stage="quality", fraction=round(0.7 + 0.3 * fraction, 4), message=message))

    base: dict[str, Any] = {"size_bytes": info.size_bytes, "sha256": info.sha256}
    base |= {"max_seq_len": max_seq_len, "shape_policy": shape_policy}
    base |= {"metadata_problems": metadata_problems(info.metadata, ckpt)}
    found = None
    try:
        step = runtime.load(file)
        _check_output(file, step, shape_policy, full)
        outcome = parity.run(step, shape_policy, full, None, on_pass)
        if judge is not None:
            found = quality.measure(step, shape_policy, judge, progress=on_text)
    except runtime.RuntimeFailed as error:
        return Validation(passed=False, kind="exact", reason=f"the runtime failed: {shown(error)}", **base)
    reason = None
    if found is not None:
        if found.verdict == "damaged":
            reason = f"{found.words} (KL {found.kl_mean:.3g} nats)"
    elif not outcome.parity.passed:
        missed = [figure for comparison in outcome.parity.comparisons for figure in comparison.figures]
        reason = "parity bounds are not met: " + ", ".join(_miss(figure) for figure in missed if not figure.passed)
    return Validation(
        passed=reason is None,
        kind="exact" if found is None else "quantized",
        reason=reason,
        parity=outcome.parity,
        quality=found,
        **base,
    )


def _judge(
    model: Any, tokenizer: Any, ckpt: Checkpoint, max_seq_len: int, own: Sequence[str], progress: OnProgress
) -> QualityReference:
    def on_text(fraction: float, message: str) -> None:
        progress(Progress(stage="reference", fraction=round(0.1 + 0.2 * fraction, 4), message=message))

    passages = texts.evaluation(tokenizer, max_seq_len, ckpt.vocab_size, own)
    return quality.reference(
        model,
        tokenizer,
        passages,
        max_seq_len=max_seq_len,
        vocab_size=ckpt.vocab_size,
        eos_ids=ckpt.eos_ids,
        progress=on_text,
    )


def _miss(figure: Figure) -> str:
    return f"{figure.name} is {figure.value:.3g} where {figure.relation} {figure.bound} is wanted"


def _signature(file: Path, info: PteInfo) -> tuple[ShapePolicy, int]:
    """The shape policy and the largest S of ``forward``."""
    found = ", ".join(f"{item['sizes']} of {item['dtype']}" for item in info.inputs) or "none"
    wanted = "input_ids [1, S] int64 and cache_position [S] int64"
    if len(info.inputs) != 2 or any(item["dtype"] != _INT64 for item in info.inputs):
        raise InvalidPte(f"{file}: forward takes {found}; {wanted} are needed.")
    ids, position = (item["sizes"] for item in info.inputs)
    if len(ids) != 2 or ids[0] != 1 or position != [ids[1]]:
        raise InvalidPte(f"{file}: forward takes {found}; {wanted} are needed.")
    return ("single" if ids[1] == 1 else "dynamic"), ids[1]


def _check_output(file: Path, step: Step, shape_policy: ShapePolicy, full: Reference) -> None:
    """Run a token or two and refuse what is no row of logits for each of them."""
    tokens = 1 if shape_policy == "single" else 2
    given = list(step(torch.zeros(1, tokens, dtype=torch.long), torch.arange(tokens)).shape)
    width = next(iter(full.logits.values())).shape[-1]
    if given != [tokens, width]:
        raise InvalidPte(
            f"{file}: forward gives {[1, *given]} for {tokens} tokens; "
            f"logits [1, S, {width}] of every token are needed."
        )


def _context(info: PteInfo, ckpt: Checkpoint, limit: int) -> int:
    stated = info.metadata.get("get_max_seq_len")
    if isinstance(stated, int) and stated >= 1:
        return checkpoint.context_length(ckpt, stated)
    return limit if limit > 1 else checkpoint.context_length(ckpt, None)


def _rounds(info: PteInfo, ckpt: Checkpoint) -> bool:
    """Whether the file stores its weights in fewer bits: by its ops, or by being smaller than float32 allows."""
    quantized_ops = any(word in op for op in info.leftover_ops for word in ("quantize", "embedding_byte", "4bit"))
    return quantized_ops or info.size_bytes < 0.9 * 4 * ckpt.info.parameters


def metadata_problems(metadata: dict[str, Any], ckpt: Checkpoint) -> list[str]:
    """Where the constant methods do not fit the model, in words."""
    problems = []
    if "get_max_seq_len" not in metadata:
        problems.append("get_max_seq_len is missing: ExecuTorch's runner refuses the file")
    if "get_eos_ids" not in metadata and ckpt.eos_ids:
        problems.append(f"get_eos_ids is missing: a runner does not know that {list(ckpt.eos_ids)} end an answer")
    wanted = {"get_vocab_size": ckpt.vocab_size, "get_eos_ids": list(ckpt.eos_ids), "get_bos_id": ckpt.bos_id}
    for name, value in wanted.items():
        if name in metadata and value not in (None, []) and metadata[name] != value:
            problems.append(f"{name} is {metadata[name]}; the model's is {value}")
    return problems


def main(args: list[str]) -> int:
    """Validate one file; gives the exit status."""
    if len(args) < 2:
        print("usage: python -m exporter.validate FILE.pte MODEL_DIR [TEXT...]", file=sys.stderr)
        return 2

    def body(say: Callable[[dict[str, Any]], None]) -> int:
        result = validate(Path(args[0]), Path(args[1]), lambda step: say(asdict(step)), args[2:])
        say({"stage": "result", "validation": asdict(result)})
        return 0 if result.passed else NoGoodCell.exit_code

    return guarded_main(body)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
