"""The scripts below examples/ are no package: they are loaded by their path, as `ptebot demo` does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

EXAMPLES = Path(__file__).resolve().parents[2] / "examples"
SAMPLE = EXAMPLES / "sample-model"


def load(relative: str) -> ModuleType:
    """The module of ``examples/<relative>``, loaded once a process; modules beside it can be imported by it."""
    path = EXAMPLES / relative
    name = f"ptebot_examples.{path.parent.name}.{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        sys.path.insert(0, str(path.parent))
        try:
            spec.loader.exec_module(module)
        finally:
            sys.path.remove(str(path.parent))
    return sys.modules[name]
