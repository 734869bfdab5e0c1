"""Model directories and loaded models for the exporter's tests: each kind is made once, each test gets its own copy."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from exporter import report as reports
from exporter.report import Cell, Report
from tests.exporter.loaded import SAMPLE, Loaded, load
from tests.exporter.models import tiny_model

ModelCopy = Callable[..., Path]
ROOT = Path(__file__).parents[2]
CONTEXT = 64
"""Context of the session's export, in tokens."""


@dataclass(frozen=True, kw_only=True)
class Exported:
    """What one process ``python -m exporter`` read and left behind."""

    model: Path
    out: Path
    exit_code: int
    lines: list[str]
    """Of stdout."""
    log: str
    """stderr."""

    @property
    def report(self) -> Report:
        return reports.load(self.out / "report.json")

    def cell(self, backend: str, precision: str) -> Cell:
        return next(c for c in self.report.cells if (c.backend, c.precision) == (backend, precision))

    def file(self, backend: str, precision: str) -> Path:
        name = self.cell(backend, precision).file
        assert name is not None, f"there is no {backend} {precision} file"
        return self.out / name


def environment(**changes: str) -> dict[str, str]:
    """For a child: this process's, one thread, none of what an exporter sets for itself."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ONEDNN_", "TOKENIZERS_"))}
    return {**kept, "OMP_NUM_THREADS": "1", **changes}


def run_exporter(spec: dict[str, Any], model: Path, out: Path, **changes: str) -> Exported:
    """One export in a process of its own."""
    path = out.parent / f"{out.name}.spec.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(spec), encoding="utf-8")
    command = [sys.executable, "-m", "exporter", str(path), str(model), str(out)]
    done = subprocess.run(
        command, cwd=ROOT, env=environment(**changes), capture_output=True, text=True, timeout=1100, check=False
    )
    return Exported(model=model, out=out, exit_code=done.returncode, lines=done.stdout.splitlines(), log=done.stderr)


@pytest.fixture(scope="session")
def exported(_models: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Exported:
    """The tiny Llama exported for every backend in every precision; read only."""
    model = _models("llama")
    return run_exporter(
        {"model": {"name": "tiny"}, "max_seq_len": CONTEXT}, model, tmp_path_factory.mktemp("x") / "out"
    )


@pytest.fixture(scope="session")
def _models(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    root, made = tmp_path_factory.mktemp("models"), dict[str, Path]()

    def make(kind: str, **overrides: Any) -> Path:
        key = repr((kind, sorted(overrides.items())))
        if key not in made:
            made[key] = tiny_model(kind, root / str(len(made)), **overrides)
        return made[key]

    return make


@pytest.fixture
def model_copy(_models: Callable[..., Path], tmp_path: Path) -> ModelCopy:
    """``model_copy(kind, **overrides)``: a directory with such a tiny model, free to be damaged."""

    def copy(kind: str = "llama", **overrides: Any) -> Path:
        target = tmp_path / "model"
        shutil.copytree(_models(kind, **overrides), target, copy_function=shutil.copyfile)
        return target

    return copy


@pytest.fixture(scope="session")
def sample() -> Loaded:
    """The trained sample model: 1.8 M parameters, real text."""
    return load(SAMPLE)


@pytest.fixture
def tiny(model_copy: ModelCopy) -> Loaded:
    """A Llama of made-up weights, free to be damaged."""
    return load(model_copy())
