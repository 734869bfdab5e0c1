"""Model directories for the exporter's tests: each kind is made once, each test gets a copy of its own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.exporter.models import tiny_model

ModelCopy = Callable[..., Path]


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
