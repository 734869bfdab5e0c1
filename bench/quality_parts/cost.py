"""What calibration costs: seconds, memory above the loaded model, and how both grow with the layers.

Goes in: a model directory. Comes out: ``Cost``, measured in a process of its own (``python -m
bench.quality_parts.cost``), with the model loaded before the baseline is taken.
"""

from __future__ import annotations

import argparse
import copy
import ctypes
import gc
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import psutil

PRECISION = "8da4w"
_SAMPLE_SECONDS = 0.01
_ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True, kw_only=True)
class Cost:
    """One measurement of calibration."""

    text_seconds: float
    """Making the calibration text, most of it by the model itself."""
    quantize_seconds: float
    cpu_seconds: float
    """User and system time of both together."""
    baseline_bytes: int
    """Resident size with the float32 model and the libraries loaded."""
    peak_bytes: int
    """The largest resident size of both together."""
    bf16_bytes: int
    """Two a parameter."""
    parameters: int
    tokens: int
    layers: dict[int, float]
    """Number of layers to CPU seconds of quantizing, with the same text."""

    @property
    def seconds(self) -> float:
        return self.text_seconds + self.quantize_seconds

    @property
    def memory_ratio(self) -> float:
        """Peak above the baseline over the bf16 weights."""
        return (self.peak_bytes - self.baseline_bytes) / self.bf16_bytes

    @property
    def linearity(self) -> float:
        """CPU seconds that the last third of the layers adds over those that the middle third adds; 1 is linear."""
        (few, first), (some, second), (every, third) = sorted(self.layers.items())
        return (third - second) / (every - some) / ((second - first) / (some - few))


def measure(model_dir: Path, max_seq_len: int) -> Cost:
    """Run the measurement in a new process; raises RuntimeError with its last words."""
    command = [sys.executable, "-m", "bench.quality_parts.cost", str(model_dir), str(max_seq_len)]
    done = subprocess.run(command, check=False, cwd=_ROOT, capture_output=True, text=True)
    if done.returncode != 0:
        raise RuntimeError(f"calibration could not be measured: {done.stderr.strip()[-600:]}")
    found = json.loads(done.stdout.strip().splitlines()[-1])
    return Cost(**{**found, "layers": {int(number): value for number, value in found["layers"].items()}})


@contextmanager
def _sampled() -> Iterator[Callable[[], int]]:
    """The largest resident size of this process within the block, in bytes, looked at every 10 ms."""
    process, done = psutil.Process(), threading.Event()
    largest = [process.memory_info().rss]

    def look() -> None:
        while not done.wait(_SAMPLE_SECONDS):
            largest[0] = max(largest[0], process.memory_info().rss)

    thread = threading.Thread(target=look, daemon=True)
    thread.start()
    try:
        yield lambda: max(largest[0], process.memory_info().rss)
    finally:
        done.set()
        thread.join()


def _resident() -> int:
    """Resident bytes after what was freed was given back, so that no hidden reserve flatters what follows."""
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc only
        ctypes.CDLL(None).malloc_trim(0)
    return psutil.Process().memory_info().rss


def _shortened(model: Any, layers: int) -> Any:
    """The model with its first layers only, sharing their tensors."""
    import torch

    memo = {id(tensor): tensor for tensor in (*model.parameters(), *model.buffers())}
    short = copy.deepcopy(model, memo)
    short.model.layers = torch.nn.ModuleList(list(short.model.layers)[:layers])
    short.config.num_hidden_layers = layers
    return short


def _work(model_dir: Path, max_seq_len: int) -> Cost:
    import torch

    from exporter import calibration, checkpoint, quantize
    from exporter import spec as specs

    spec = specs.parse({"backends": ["xnnpack"], "precisions": [PRECISION], "max_seq_len": max_seq_len})
    ckpt = checkpoint.inspect(model_dir, spec.model, spec.calibration)
    tokenizer, model = checkpoint.load_tokenizer(ckpt), checkpoint.load_model(ckpt)
    recipe = quantize.get(PRECISION)
    parameters = sum(tensor.numel() for tensor in model.parameters())

    def quantized(one: Any, text: quantize.Calibration, restore: Any = None) -> None:
        with torch.no_grad():
            recipe.apply(one, quantize.Request(embedding="8w", calibration=lambda: text, restore=restore))

    baseline = _resident()
    with _sampled() as peak:
        started, cpu = time.perf_counter(), time.process_time()
        text = calibration.prepare(
            model, tokenizer, spec, model_dir, max_seq_len=max_seq_len, vocab_size=ckpt.vocab_size
        )
        made = time.perf_counter()
        quantized(model, text, lambda model: checkpoint.restore(model, ckpt))
        ended, cpu_ended = time.perf_counter(), time.process_time()
        largest = peak()
    every = model.config.num_hidden_layers
    layers = {}
    for number in sorted({max(every * third // 3, third) for third in (1, 2, 3)}):
        short = _shortened(model, number)
        before = time.process_time()
        quantized(short, text)
        layers[number] = time.process_time() - before
    return Cost(
        text_seconds=made - started,
        quantize_seconds=ended - made,
        cpu_seconds=cpu_ended - cpu,
        baseline_bytes=baseline,
        peak_bytes=largest,
        bf16_bytes=2 * parameters,
        parameters=parameters,
        tokens=text.used.tokens,
        layers=layers,
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("max_seq_len", type=int)
    asked = parser.parse_args()
    print(json.dumps(asdict(_work(asked.model_dir, asked.max_seq_len))))
