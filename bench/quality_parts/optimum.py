"""optimum-executorch as a peer: the file that its users get of the same weights.

Goes in: a model directory. Comes out: its .pte, made by ``optimum-cli`` in a virtual environment of its own (it pins an
old release candidate of transformers), about 18 minutes of CPU for SmolLM2-135M.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from importlib.metadata import version
from pathlib import Path

from bench.quality_parts.llama import PeerUnavailable, environment

NAME = "optimum-executorch 8da4w + 8w embedding"
CONTEXT = 256
_OPTIONS = (
    "--task text-generation --recipe xnnpack --use_custom_sdpa --use_custom_kv_cache --qlinear 8da4w --qembedding 8w "
    f"--max_seq_len {CONTEXT}"
)
_SECONDS = 4 * 3600


def python(cache: Path) -> Path:
    """The Python of a virtual environment with optimum-executorch 1.1.0 beside this one's executorch, whose runtime
    runs its files; made where there is none. Raises PeerUnavailable."""
    same = tuple(f"{name}=={version(name)}" for name in ("executorch", "torch", "torchao", "pytorch_tokenizers"))
    return environment(cache / "optimum", ("optimum-executorch==1.1.0", *same), "optimum.executorch")


def export(interpreter: Path, model_dir: Path, file: Path) -> Path:
    """``file``, made unless it is there; raises PeerUnavailable with the last words of optimum-cli."""
    if file.exists():
        return file
    file.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="ptebot-bench-optimum-") as scratch:
        program = interpreter.with_name("optimum-cli")
        command = [str(program), "export", "executorch", "-m", str(model_dir), *_OPTIONS.split()]
        # coremltools, which executorch brings along, and tokenizers must not print or fork their own way.
        surroundings = {**os.environ, "TOKENIZERS_PARALLELISM": "false"}
        done = subprocess.run(
            [*command, "--output_dir", scratch],
            check=False,
            capture_output=True,
            text=True,
            timeout=_SECONDS,
            env=surroundings,
        )
        made = Path(scratch, "model.pte")
        if not made.exists():
            raise PeerUnavailable(f"optimum-executorch ended with {done.returncode}: {done.stderr.strip()[-400:]}")
        partial = file.with_suffix(".partial")
        shutil.copyfile(made, partial)
        partial.replace(file)
    return file
