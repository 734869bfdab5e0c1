"""Calibration with the owner's text: its share, its names, and the part that it is judged on."""

from __future__ import annotations

from pathlib import Path

import pytest

from exporter import calibration, texts
from exporter.spec import ExportSpec
from tests.exporter.loaded import BUILT_IN, Loaded, all_of, naive_runs, paragraphs, sources
from tests.exporter.models import CONTEXT


def test_the_owners_text_is_up_to_half(tiny: Loaded) -> None:
    (tiny.directory / "long.txt").write_text(paragraphs(400))
    made = tiny.prepare("long.txt", tokens=4_000)
    assert sources(made) == {"long.txt", *BUILT_IN}
    assert 1_500 <= made.used.sources["long.txt"] <= 2_000
    words = " ".join(tiny.tokenizer.decode(ids) for ids in all_of(made))
    assert "Part 3 of" in words or "Part 5 of" in words
    assert any(f"Part {i} of the wheel" in words for i in range(250, 320)), "spread over the file"
    assert not any(f"Part {i} of the wheel" in words for i in range(325, 400)), "the last fifth is for evaluation"


def test_files_share_the_half_and_keep_their_names(tiny: Loaded) -> None:
    (tiny.directory / "sub").mkdir()
    (tiny.directory / "sub" / "a.md").write_text(paragraphs(100, "boat"))
    (tiny.directory / "docs").write_text(paragraphs(100, "kite"))
    made = tiny.prepare("sub/a.md", "docs", tokens=4_000)
    assert sources(made) == {"sub/a.md", "./docs", *BUILT_IN}
    assert 600 <= made.used.sources["sub/a.md"] <= 1_000


def test_what_the_owner_is_judged_on_is_not_calibrated_on(tiny: Loaded) -> None:
    (tiny.directory / "own.txt").write_text(paragraphs(200))
    spec = ExportSpec(calibration=("own.txt",))
    passages = calibration.own_evaluation(spec.calibration, tiny.directory)
    judged = texts.evaluation(tiny.tokenizer, CONTEXT, tiny.vocab_size, passages)
    assert [text.name for text in judged if text.kind == "own"] == ["own 1"]
    seen = set().union(*(naive_runs(ids, 40) for ids in all_of(tiny.prepare("own.txt", tokens=4_000))))
    assert not seen & naive_runs(judged[-1].ids[0].tolist(), 40)


def test_a_text_that_repeats_itself_calibrates_nothing(tiny: Loaded) -> None:
    (tiny.directory / "own.txt").write_text("The licence of this file is the same as that of all others.\n\n" * 60)
    made = tiny.prepare("own.txt", tokens=1_000)
    assert "own.txt" not in sources(made)
    assert any("own.txt: all of it is in the text that quality is judged on" in note for note in made.notes)


def test_passages_are_spread_over_files_and_over_a_long_one(tmp_path: Path) -> None:
    for name in "abcdef":
        (tmp_path / name).write_text(paragraphs(60, name * 3))
    found = calibration.own_evaluation(tuple("abcdef"), tmp_path)
    assert len(found) == 4
    assert all(f"the {name * 3}" in text for name, text in zip("abcd", found, strict=True))
    (tmp_path / "long").write_text(paragraphs(5_000))
    found = calibration.own_evaluation(("long",), tmp_path)
    assert len(found) == 4
    assert all(len(text) <= 16_000 for text in found)
    assert "Part 4900" in found[-1] or "Part 4800" in found[-1]
    assert calibration.own_evaluation((), tmp_path) == []


def test_a_file_of_the_largest_size_is_sampled(tiny: Loaded, monkeypatch: pytest.MonkeyPatch) -> None:
    (tiny.directory / "big.txt").write_text(paragraphs(30_000)[: 4 << 20])
    asked: list[int] = []
    real = texts.encode
    monkeypatch.setattr(texts, "encode", lambda t, text, *a, **k: (asked.append(len(text)), real(t, text, *a, **k))[1])
    made = tiny.prepare("big.txt", tokens=4_000)
    assert made.used.sources["big.txt"] > 1_500
    assert sum(asked) < 700_000
