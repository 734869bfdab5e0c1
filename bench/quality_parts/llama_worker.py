"""llama.cpp, in the Python that has llama-cpp-python: quantize a GGUF file, and logits of token ids.

Started by ``bench.quality_parts.llama`` with one JSON line on stdin: ``base`` (the float32 GGUF), ``file`` (the
quantized one, made when absent), ``format`` (``F32``: the base as it is), ``ids`` (a .npz of int arrays), ``out`` (a
folder). Comes out: ``NAME.npy`` [T, vocab] float32 in the folder for every array. Imports nothing of this project.
"""

from __future__ import annotations

import ctypes
import json
import os
import sys
from pathlib import Path

import numpy as np


def quantize(base: Path, file: Path, wanted: str, threads: int) -> None:
    """As llama.cpp's llama-quantize without an importance matrix; in place whole or not at all."""
    import llama_cpp

    params = llama_cpp.llama_model_quantize_default_params()
    params.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{wanted}")
    params.nthread = threads
    partial = file.with_suffix(".partial")
    code = llama_cpp.llama_model_quantize(os.fsencode(base), os.fsencode(partial), ctypes.byref(params))
    if code != 0:
        raise SystemExit(f"llama_model_quantize gave {code}")
    partial.replace(file)


def logits(file: Path, ids: dict[str, np.ndarray], out: Path, threads: int) -> None:
    """Logits at every position of every sequence; the KV cache in float32, so that only weights are compared."""
    import llama_cpp

    longest = max(len(one) for one in ids.values())
    model = llama_cpp.Llama(
        str(file),
        n_ctx=longest,
        n_batch=longest,
        n_ubatch=longest,
        n_threads=threads,
        n_threads_batch=threads,
        logits_all=True,
        type_k=llama_cpp.GGML_TYPE_F32,
        type_v=llama_cpp.GGML_TYPE_F32,
        flash_attn=False,
        verbose=False,
    )
    for name, sequence in ids.items():
        model.reset()
        model.eval(sequence.tolist())
        np.save(out / f"{name}.npy", np.asarray(model.scores[: len(sequence)], dtype=np.float32))


def main() -> int:
    asked = json.load(sys.stdin)
    base, file = Path(asked["base"]), Path(asked["file"])
    # llama.cpp's threads wait for each other in a busy loop, which on a crowded machine takes all there is.
    threads = int(os.environ.get("OMP_NUM_THREADS") or os.cpu_count() or 1)
    if asked["format"] != "F32" and not file.exists():
        quantize(base, file, asked["format"], threads)
    if asked["ids"]:
        with np.load(asked["ids"]) as arrays:
            ids = {name: arrays[name] for name in arrays.files}
        logits(base if asked["format"] == "F32" else file, ids, Path(asked["out"]), threads)
    return 0


if __name__ == "__main__":
    sys.exit(main())
