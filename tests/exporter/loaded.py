"""Models that are loaded with their tokenizers, calibration text of theirs, and an owner's text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from exporter import calibration, checkpoint
from exporter.quantize import Calibration
from exporter.spec import ExportSpec, ModelRef
from tests.exporter.models import CONTEXT

SAMPLE = Path(__file__).parents[2] / "examples" / "sample-model"
BUILT_IN = {"docs", "code"}


@dataclass
class Loaded:
    """A model directory, read."""

    directory: Path
    model: Any
    tokenizer: Any
    vocab_size: int

    def prepare(self, *names: str, max_seq_len: int = CONTEXT, **options: Any) -> Calibration:
        spec = ExportSpec(calibration=names)
        return calibration.prepare(
            self.model,
            self.tokenizer,
            spec,
            self.directory,
            max_seq_len=max_seq_len,
            vocab_size=self.vocab_size,
            **options,
        )


def load(directory: Path) -> Loaded:
    found = checkpoint.inspect(directory, ModelRef())
    return Loaded(directory, checkpoint.load_model(found), checkpoint.load_tokenizer(found), found.vocab_size)


def all_of(made: Calibration) -> list[list[int]]:
    return [ids[0].tolist() for ids in (*made.sequences, *made.held_out)]


def sources(made: Calibration) -> set[str]:
    return set(made.used.sources)


def paragraphs(number: int, subject: str = "wheel") -> str:
    """Text that no paragraph of which is like another."""
    words = ["stone", "river", "copper", "window", "garden", "letter", "winter", "basket", "engine", "silver", "wood"]

    def word(number: int) -> str:
        return words[number % len(words)]

    return "\n\n".join(
        f"Part {i} of the {subject}: the {word(i)} of number {i * i} stood by the {word(i * 5 + i // 12)}, "
        f"and {i + 3} people said {word(i * 7 + 1)} before page {i * 11}."
        for i in range(number)
    )


def naive_runs(ids: list[int], size: int) -> set[str]:
    return {" ".join(map(str, ids[start : start + size])) for start in range(len(ids) - size + 1)}
