"""llama.cpp as a peer: the same weights in its formats, through llama-cpp-python in a virtual environment of its own.

Goes in: an eager model, its directory and a folder to keep files in. Comes out: a file for each format and a function
from token ids to its logits. The conversion proves itself first: the float32 file must give the original's logits.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence as Items
from pathlib import Path
from typing import Any

import numpy as np
import torch

from bench.quality_parts import gguf_file
from bench.quality_parts.score import ALL, Score, Sequence, compare

PACKAGES = ("llama-cpp-python==0.3.16", "numpy")
"""0.3.16 holds llama.cpp of August 2025; PyPI has its sources only, so that a C++ compiler and cmake are needed."""
FORMATS = ("Q4_0", "Q4_K_M", "Q8_0")
SAME = 1e-5
"""Mean KL in nats below which the float32 GGUF is the original: sums in another order cost some 1e-9 on SmolLM2."""
_WORKER = Path(__file__).with_name("llama_worker.py")
_SECONDS = 3600


class PeerUnavailable(Exception):
    """A peer cannot be measured here; the text says why, and is shown in the results."""


def python(cache: Path) -> Path:
    """The Python of a virtual environment below ``cache`` that has llama-cpp-python, made where there is none.

    Raises:
        PeerUnavailable: it cannot be installed; the text is pip's last line.
    """
    return environment(cache / "llama-cpp", PACKAGES, "llama_cpp")


def environment(folder: Path, packages: tuple[str, ...], module: str) -> Path:
    """The Python of the virtual environment ``folder`` with ``packages``, made where ``module`` is not in it."""
    found = folder / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
    if found.exists():
        tried = subprocess.run([found, "-c", f"import {module}"], check=False, capture_output=True)
        if tried.returncode == 0:
            return found
    print(f"installing {', '.join(packages)} into {folder}", file=sys.stderr)
    for command in ([sys.executable, "-m", "venv", str(folder)], [str(found), "-m", "pip", "install", *packages]):
        done = subprocess.run(command, check=False, capture_output=True, text=True)
        if done.returncode != 0:
            said = (done.stderr or done.stdout).strip().splitlines()
            raise PeerUnavailable(f"{', '.join(packages)} cannot be installed: {said[-1] if said else 'no word'}")
    return found


class Llama:
    """The peer with one model in its formats."""

    def __init__(self, interpreter: Path, model: Any, model_dir: Path, files: Path) -> None:
        """Writes the float32 GGUF below ``files`` unless it is there.

        Raises:
            PeerUnavailable: the model is not a Llama, or the package gguf is missing here.
        """
        self._python, self._files = interpreter, files
        files.mkdir(parents=True, exist_ok=True)
        self._base = files / "F32.gguf"
        self._weights_bytes = 4 * sum(tensor.numel() for tensor in model.parameters())
        if self._base.exists():
            return
        partial = self._base.with_suffix(".partial")
        try:
            gguf_file.write(model, model_dir, partial)
        except (gguf_file.NotLlama, ImportError) as error:
            raise PeerUnavailable(f"no GGUF of this model: {error}") from None
        partial.replace(self._base)

    def file(self, wanted: str) -> Path:
        """The file of a format, quantized at the first call."""
        path = self._base if wanted == "F32" else self._files / f"{wanted}.gguf"
        if not path.exists():
            self._work(wanted, None, self._files)
        return path

    @property
    def tables_bytes(self) -> int:
        """What of every format's file is no weights: the tokenizer's tables, which a .pte does not carry."""
        return self._base.stat().st_size - self._weights_bytes

    def score(self, wanted: str, sequences: Items[Sequence], full: Items[torch.Tensor]) -> dict[str, Score]:
        """Scores of a format; every logit passes through a folder that is removed afterwards."""
        with tempfile.TemporaryDirectory(prefix="ptebot-bench-llama-") as scratch:
            folder = Path(scratch)
            ids = folder / "ids.npz"
            arrays: dict[str, Any] = {f"s{i}": one.ids.numpy() for i, one in enumerate(sequences)}
            np.savez(ids, **arrays)
            self._work(wanted, ids, folder)
            saved = iter(range(len(sequences)))
            return compare(sequences, full, lambda _: torch.from_numpy(np.load(folder / f"s{next(saved)}.npy")))

    def prove(self, sequences: Items[Sequence], full: Items[torch.Tensor]) -> float:
        """Mean KL of the float32 GGUF from the original.

        Raises:
            PeerUnavailable: it is not the same model, so that nothing quantized from it could be compared.
        """
        found = self.score("F32", sequences, full)[ALL].kl_mean
        if found > SAME:
            raise PeerUnavailable(f"the float32 GGUF is not the original: mean KL {found:.2g}")
        return found

    def _work(self, wanted: str, ids: Path | None, out: Path) -> None:
        asked = {
            "base": str(self._base),
            "file": str(self._files / f"{wanted}.gguf"),
            "format": wanted,
            "ids": None if ids is None else str(ids),
            "out": str(out),
        }
        done = subprocess.run(
            [self._python, _WORKER],
            check=False,
            input=json.dumps(asked),
            capture_output=True,
            text=True,
            timeout=_SECONDS,
        )
        if done.returncode != 0:
            raise PeerUnavailable(f"llama.cpp, {wanted}: {done.stderr.strip()[-400:]}")
