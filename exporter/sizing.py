"""Memory and disk that an export needs, checked before anything starts.

Estimates, so that a large model is refused with figures instead of being killed without a word. They are meant
to be too low rather than too high: what fits is never refused for them.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import psutil

from exporter import quality, quantize, staging, texts
from exporter.backends import Backend, choose_cache
from exporter.checkpoint import Checkpoint
from exporter.errors import NotEnoughMemory
from exporter.quantized_cache import CacheFormat, layer_bytes
from exporter.spec import ExportSpec
from exporter.static_cache import Attention

BASE_BYTES = 600_000_000
"""The process with torch, transformers and executorch loaded: 0.58 to 0.65 GB measured."""
WEIGHTS_FACTOR = 3.0
"""Times the float32 weights: the model, the traced program's and the lowered program's copies. SmolLM2-135M
(0.54 GB of float32 weights) peaked at 2.7 GB above nothing, which is the base and 3.9 times the weights."""
_CGROUP = Path("/sys/fs/cgroup")
_FILE_FACTOR = 1.5
"""Times the float32 weights: a float32 file whose tied embedding is stored twice is the largest that is made."""


def cache_bytes(ckpt: Checkpoint, max_seq_len: int, cache_format: CacheFormat = "fp32") -> int:
    """Keys and values of a full context, all layers, in bytes; int8 with its scales and zero points."""
    return sum(layer_bytes(heads, head_dim, max_seq_len, cache_format) for heads, head_dim in ckpt.caches)


def memory_bytes(ckpt: Checkpoint, max_seq_len: int, cache_format: CacheFormat = "fp32") -> int:
    """The least memory that an export of this model takes, in bytes."""
    caches = cache_bytes(ckpt, max_seq_len, cache_format)
    return int(BASE_BYTES + WEIGHTS_FACTOR * 4 * ckpt.info.parameters + caches)


def disk_bytes(ckpt: Checkpoint, files: int) -> int:
    """The most that so many files take, in bytes."""
    return int(files * _FILE_FACTOR * 4 * ckpt.info.parameters)


def judge_bytes(ckpt: Checkpoint, max_seq_len: int, own: bool, free_bytes: int) -> int:
    """The most that the original's logits take on a disk with so much free, in bytes: where there is little room,
    ``quality.reference`` shortens the texts.

    Args:
        own: whether the owner names text.
    """
    passages = texts.BUILT_IN + texts.MOST_OWN * own
    rows = passages * min(quality.POSITIONS, max_seq_len)
    rows += len(texts.evaluation_prompts()) * min(quality.CHAT_TOKENS, max_seq_len)
    return min(4 * ckpt.vocab_size * rows, quality.LARGEST_BYTES, free_bytes // 4)


def cache_format(spec: ExportSpec, make: Sequence[tuple[Backend, str]]) -> CacheFormat:
    """The largest format of the KV cache that a wanted file is known to have, before attention is chosen."""
    attention: Attention = "stock" if spec.attention == "stock" else "custom"
    formats = {choose_cache(backend, attention, spec.cache)[0] for backend, _ in make}
    return "fp32" if "fp32" in formats else spec.cache


def check(
    spec: ExportSpec,
    ckpt: Checkpoint,
    max_seq_len: int,
    make: Sequence[tuple[Backend, str]],
    out_dir: Path,
    memory_limit_bytes: int | None = None,
) -> None:
    """Refuse what cannot fit.

    Args:
        make: the wanted files' backends and precisions.
        memory_limit_bytes: what this process may take in all; None: what the machine has.

    Raises:
        NotEnoughMemory, DiskFull: with what is needed and what is there.
    """
    needed, there = memory_bytes(ckpt, max_seq_len, cache_format(spec, make)), available_memory()
    what = (
        f"An export of {ckpt.info.parameters / 1e6:,.0f} M parameters takes at least {needed / 1e9:,.1f} GB of memory"
    )
    if memory_limit_bytes is not None and needed > memory_limit_bytes:
        raise NotEnoughMemory(
            f"{what}; its limit is {memory_limit_bytes / 1e9:,.1f} GB.",
            remedy="Raise the memory limit, or ask for a smaller context or a smaller model.",
        )
    if needed > there:
        raise NotEnoughMemory(f"{what}; {there / 1e9:,.1f} GB are available.")
    on_disk = disk_bytes(ckpt, len(make))
    if spec.cache != "fp32" or not all(quantize.get(precision).exact for _, precision in make):
        on_disk += judge_bytes(ckpt, max_seq_len, bool(spec.calibration), staging.free_bytes(out_dir))
    staging.check_space(out_dir, on_disk)


def available_memory() -> int:
    """Bytes that this process may still take: what the system has left, or its control group if that is less."""
    free = psutil.virtual_memory().available + psutil.swap_memory().free
    try:
        # Control groups v2 (Linux, Documentation/admin-guide/cgroup-v2.rst): "max" means no limit; file pages that
        # nobody uses count as used there, and go as soon as memory is wanted.
        limit = (_CGROUP / "memory.max").read_text(encoding="ascii").strip()
        used = int((_CGROUP / "memory.current").read_text(encoding="ascii"))
        stat = dict(line.split() for line in (_CGROUP / "memory.stat").read_text(encoding="ascii").splitlines())
        return min(free, int(limit) - used + int(stat.get("inactive_file", 0)))
    except (OSError, ValueError):
        return free
