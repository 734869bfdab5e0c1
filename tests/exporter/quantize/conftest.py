"""Models with calibration text and text to judge by, each made once."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest
import torch
from transformers import PreTrainedModel

from exporter import calibration, checkpoint, quality, texts
from exporter.quality import QualityReference
from exporter.quantize import Calibration, Request
from exporter.report import CalibrationUsed
from exporter.spec import ExportSpec, ModelRef
from tests.exporter.loaded import SAMPLE
from tests.exporter.models import VOCABULARY

IDS = torch.randint(VOCABULARY, (1, 30), generator=torch.Generator().manual_seed(3))
"""A text for models of made-up weights."""


@dataclass(frozen=True)
class Subject:
    """A model that speaks, and what recipes are given with it."""

    model: PreTrainedModel
    text: Calibration
    judge: QualityReference

    def request(self, **options: object) -> Request:
        fields: dict[str, object] = {"embedding": "8w", "calibration": lambda: self.text, "judge": self.judge}
        return Request(**{**fields, **options})  # type: ignore[arg-type]

    def cost(self, model: PreTrainedModel) -> float:
        """Mean KL on the text that files are judged on."""
        return quality.score(model, self.judge).kl_mean


@cache
def _sample() -> Subject:
    ckpt = checkpoint.inspect(SAMPLE, ModelRef())
    model, tokenizer = checkpoint.load_model(ckpt), checkpoint.load_tokenizer(ckpt)
    size = {"max_seq_len": 256, "vocab_size": ckpt.vocab_size}
    text = calibration.prepare(model, tokenizer, ExportSpec(), SAMPLE, **size, tokens=6_000)  # type: ignore[arg-type]
    passages = texts.evaluation(tokenizer, 256, ckpt.vocab_size, [])
    judge = quality.reference(model, tokenizer, passages, eos_ids=ckpt.eos_ids, questions=[], **size)  # type: ignore[arg-type]
    return Subject(model, text, judge)


@pytest.fixture
def sample() -> Subject:
    """The trained sample model: 1.8 M parameters, real text."""
    return _sample()


def random_text(count: int = 8, length: int = 24, seed: int = 0) -> Calibration:
    """Sequences of random tokens for models with made-up weights."""
    generator = torch.Generator().manual_seed(seed)
    sequences = [torch.randint(VOCABULARY, (1, length), generator=generator) for _ in range(count)]
    used = CalibrationUsed(tokens=count * length, sequences=count, sha256="0" * 64, sources={"docs": 1}, seed=seed)
    return Calibration(sequences=sequences, held_out=sequences[:2], used=used)


def logits(model: PreTrainedModel, ids: torch.Tensor = IDS) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(ids, use_cache=False).logits[0]
    return found


def apart(a: torch.Tensor, b: torch.Tensor) -> float:
    """The largest difference, in spreads of the first."""
    return float((a - b).abs().max() / a.std())


@pytest.fixture
def load(_models: Callable[..., Path]) -> Callable[..., PreTrainedModel]:
    """A tiny model of made-up weights by its kind."""

    def load(kind: str = "llama", **overrides: object) -> PreTrainedModel:
        return checkpoint.load_model(checkpoint.inspect(_models(kind, **overrides), ModelRef()))

    return load
