"""Memory and disk are checked before work starts, with figures a person can act on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from exporter import checkpoint, sizing
from exporter.errors import DiskFull, NotEnoughMemory
from exporter.spec import ModelRef


@pytest.fixture
def tiny(model_copy: Callable[..., Path]) -> checkpoint.Checkpoint:
    return checkpoint.inspect(model_copy(), ModelRef())


def test_what_fits_is_not_refused(tiny: checkpoint.Checkpoint, tmp_path: Path) -> None:
    sizing.check(tiny, 64, 6, tmp_path / "out")


def test_a_model_larger_than_the_memory_is_refused_with_both_figures(
    tiny: checkpoint.Checkpoint, tmp_path: Path
) -> None:
    giant = replace(tiny, info=replace(tiny.info, parameters=10**13))
    with pytest.raises(NotEnoughMemory, match=r"at least 120,000\.6 GB of memory; [\d.,]+ GB are available"):
        sizing.check(giant, 64, 1, tmp_path / "out")


def test_caches_count(tiny: checkpoint.Checkpoint) -> None:
    per_token = sum(2 * heads * head_dim * 4 for heads, head_dim in tiny.caches)
    assert sizing.memory_bytes(tiny, 164) - sizing.memory_bytes(tiny, 64) == 100 * per_token


def test_files_larger_than_the_disk_are_refused(
    tiny: checkpoint.Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "available_memory", lambda: 10**30)
    giant = replace(tiny, info=replace(tiny.info, parameters=10**13))
    with pytest.raises(DiskFull, match="MB below"):
        sizing.check(giant, 64, 1, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_control_groups_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("max", "2000000"), ("current", "1500000"), ("stat", "anon 1\ninactive_file 400000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(sizing, "_CGROUP", tmp_path)
    assert sizing.available_memory() == 900_000
    (tmp_path / "memory.max").write_text("max")
    assert sizing.available_memory() > 900_000
