"""Tokens per second of written files beside the eager model: one process, one thing after the other, in rounds.

    python bench/speed.py MODEL_DIR MAX_SEQ_LEN ROUNDS BACKEND=FILE.pte ...

Comes out, as the last line on stdout: a JSON list of ``{name, prefill, decode, prefill_ratio, decode_ratio}``,
medians over the rounds, eager float32 first. A file that takes one token a call reads its prompt that way.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from exporter import backends, checkpoint, pte, runtime
from exporter.spec import ModelRef

PREFILL, DECODE = 128, 64
"""Tokens; less where the context is shorter."""
Measure = Callable[[], tuple[float, float]]
"""Seconds of a prefill and of a decode."""


def eager(model: Any, ids: torch.Tensor, prefill: int, decode: int) -> Measure:
    """transformers' own forward with its dynamic cache."""

    def run() -> tuple[float, float]:
        with torch.no_grad():
            started = time.perf_counter()
            cache = model(ids[:, :prefill], use_cache=True, logits_to_keep=1).past_key_values
            between = time.perf_counter()
            for position in range(prefill, prefill + decode):
                cache = model(ids[:, position : position + 1], past_key_values=cache, use_cache=True).past_key_values
            return between - started, time.perf_counter() - between

    return run


def written(file: Path, ids: torch.Tensor, prefill: int, decode: int) -> Measure:
    """The file on the ExecuTorch runtime."""
    single = pte.read(file).inputs[0]["sizes"][1] == 1
    step = runtime.load(file)

    def one_by_one(first: int, last: int) -> None:
        for position in range(first, last):
            step(ids[:, position : position + 1], torch.tensor([position]))

    def run() -> tuple[float, float]:
        started = time.perf_counter()
        if single:
            one_by_one(0, prefill)
        else:
            step(ids[:, :prefill], torch.arange(prefill))
        between = time.perf_counter()
        one_by_one(prefill, prefill + decode)
        return between - started, time.perf_counter() - between

    return run


def main(args: list[str]) -> None:
    model_dir, max_seq_len, rounds = Path(args[0]), int(args[1]), int(args[2])
    files = [item.partition("=")[::2] for item in args[3:]]
    for name in {backend for backend, _ in files}:
        backends.get(name).prepare()
    model = checkpoint.load_model(checkpoint.inspect(model_dir, ModelRef()))
    prefill = min(PREFILL, max_seq_len // 2)
    decode = min(DECODE, max_seq_len - prefill)
    ids = torch.randint(model.config.vocab_size, (1, prefill + decode), generator=torch.Generator().manual_seed(0))
    measures = {"eager float32": eager(model, ids, prefill, decode)}
    measures |= {Path(file).stem: written(Path(file), ids, prefill, decode) for _, file in files}
    taken: dict[str, list[tuple[float, float]]] = {name: [] for name in measures}
    for turn in range(rounds + 1):
        for name, measure in measures.items():
            seconds = measure()
            if turn:  # the first round warms caches up and is not counted
                taken[name].append(seconds)
    found: list[dict[str, Any]] = []
    for name, pairs in taken.items():
        speeds = {
            "prefill": prefill / statistics.median(first for first, _ in pairs),
            "decode": decode / statistics.median(second for _, second in pairs),
        }
        base = found[0] if found else None
        ratios = {f"{key}_ratio": value / base[key] if base else None for key, value in speeds.items()}
        found.append({"name": name, **speeds, **ratios})
    print(json.dumps(found))


if __name__ == "__main__":
    main(sys.argv[1:])
