"""Memory and disk are checked before work starts, with figures a person can act on."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from exporter import backends, checkpoint, quality, sizing, staging, texts
from exporter.errors import DiskFull, NotEnoughMemory
from exporter.spec import ExportSpec, ModelRef

FILES = [(backends.get(name), precision) for name in ("xnnpack", "portable") for precision in ("fp32", "8da4w")]


@pytest.fixture
def tiny(model_copy: Callable[..., Path]) -> checkpoint.Checkpoint:
    return checkpoint.inspect(model_copy(), ModelRef())


def test_what_fits_is_not_refused(tiny: checkpoint.Checkpoint, tmp_path: Path) -> None:
    sizing.check(ExportSpec(), tiny, 64, FILES, tmp_path / "out")


def test_a_model_larger_than_the_memory_is_refused_with_both_figures(
    tiny: checkpoint.Checkpoint, tmp_path: Path
) -> None:
    giant = replace(tiny, info=replace(tiny.info, parameters=10**13))
    with pytest.raises(NotEnoughMemory, match=r"at least 120,000\.6 GB of memory; [\d.,]+ GB are available"):
        sizing.check(ExportSpec(), giant, 64, FILES[:1], tmp_path / "out")


def test_caches_count(tiny: checkpoint.Checkpoint) -> None:
    per_token = sum(2 * heads * head_dim * 4 for heads, head_dim in tiny.caches)
    assert sizing.memory_bytes(tiny, 164) - sizing.memory_bytes(tiny, 64) == 100 * per_token


def test_files_larger_than_the_disk_are_refused(
    tiny: checkpoint.Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sizing, "available_memory", lambda: 10**30)
    giant = replace(tiny, info=replace(tiny.info, parameters=10**13))
    with pytest.raises(DiskFull, match="MB below"):
        sizing.check(ExportSpec(), giant, 64, FILES[:1], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_int8_caches_count_where_no_file_has_others(tiny: checkpoint.Checkpoint, tmp_path: Path) -> None:
    """A context whose caches are a hundred thousand times the memory as float32, and a quarter of that as int8."""
    xnnpack, portable = (backends.get(name) for name in ("xnnpack", "portable"))
    for asked, attention, make, expected in (
        ("fp32", "auto", [xnnpack], "fp32"),
        ("int8", "auto", [xnnpack], "int8"),
        ("int8", "stock", [xnnpack], "fp32"),
        ("int8", "auto", [xnnpack, portable], "fp32"),
    ):
        spec = ExportSpec(cache=asked, attention=attention)
        wanted = [(backend, "fp32") for backend in make]
        assert sizing.cache_format(spec, wanted) == expected
        needed = sizing.memory_bytes(tiny, 10**12, expected)
        with pytest.raises(NotEnoughMemory, match=rf"at least {needed / 1e9:,.1f} GB"):
            sizing.check(spec, tiny, 10**12, wanted, tmp_path / "out")


def test_logits_that_files_are_judged_by_count(
    tiny: checkpoint.Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = quality.reference(
        checkpoint.load_model(tiny),
        tokenizer := checkpoint.load_tokenizer(tiny),
        texts.evaluation(tokenizer, 64, tiny.vocab_size),
        max_seq_len=64,
        vocab_size=tiny.vocab_size,
        eos_ids=tiny.eos_ids,
        scratch=tmp_path,
    )
    taken = sum(passage.positions for passage in made.passages) * 4 * tiny.vocab_size
    most = sizing.judge_bytes(tiny, 64, False, 10**12)
    assert 0.3 * most < taken <= most, "of a context so short, not every prompt leaves room for an answer"
    assert most < sizing.judge_bytes(tiny, 64, True, 10**12)
    assert sizing.judge_bytes(tiny, 64, False, 4000) == 1000, "and never over a quarter of what is free"
    assert sizing.judge_bytes(replace(tiny, vocab_size=10**9), 64, False, 10**12) == quality.LARGEST_BYTES
    file_bytes = sizing.disk_bytes(tiny, 1)
    monkeypatch.setattr(staging, "free_bytes", lambda path: file_bytes + file_bytes // 8)
    sizing.check(ExportSpec(), tiny, 64, [(backends.get("xnnpack"), "fp32")], tmp_path / "out")
    with pytest.raises(DiskFull, match="MB below"):
        sizing.check(ExportSpec(), tiny, 64, [(backends.get("xnnpack"), "8da4w")], tmp_path / "out")


def test_a_control_groups_limit_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, text in (("max", "2000000"), ("current", "1500000"), ("stat", "anon 1\ninactive_file 400000\n")):
        (tmp_path / f"memory.{name}").write_text(text)
    monkeypatch.setattr(sizing, "_CGROUP", tmp_path)
    assert sizing.available_memory() == 900_000
    (tmp_path / "memory.max").write_text("max")
    assert sizing.available_memory() > 900_000
