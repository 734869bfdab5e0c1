"""What a model writes itself: as it would alone, to its own ends, and no more than is asked for."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from exporter.texts import sampling
from tests.exporter.loaded import Loaded, load


@pytest.mark.parametrize("kind", ["gemma2", "gemma3", "mistral", "phi3", "gpt2", "qwen3", "mixtral", "qwen3_moe"])
def test_a_batch_writes_what_each_writes_alone(kind: str, _models: Callable[..., Path]) -> None:
    """Beginnings of different lengths, windows that slide, learned positions, experts: none feels its neighbours."""
    model = load(_models(kind)).model

    starts = [[5, 6, 7], [9] * 30, [11, 12, 13, 14, 15, 16, 17], [21] * 18]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "multinomial", lambda odds, *a, **k: odds.argmax(dim=1, keepdim=True))
        patch.setattr(sampling, "_useless", lambda *a: False)
        patch.setattr(sampling, "_batch_size", lambda *a: 4)

        def write(some: list[list[int]], longest: int) -> list[list[int]]:
            return sampling.samples(
                model, some, tokens=10_000, longest=longest, kept=longest, vocab_size=384, ends=[2], seed=0
            )

        together = write(starts, 48)
        assert together == [write([start], 48)[0] for start in starts]
        assert [ids[: len(start)] for ids, start in zip(together, starts, strict=True)] == starts
        whole = model(torch.tensor([together[1]])).logits[0]
        assert whole[29:-1].argmax(dim=1).tolist() == together[1][30:], "as without a cache"


def test_sequences_end_where_the_model_ends_them(sample: Loaded) -> None:
    starts = [sample.tokenizer(text)["input_ids"] for text in ("Return the", "The file", "class A", "Raises")]
    ends = [sample.tokenizer.eos_token_id, sample.tokenizer.convert_tokens_to_ids("<|end|>")]
    found = sampling.samples(
        sample.model, starts * 5, tokens=9_000, longest=60, kept=60, vocab_size=sample.vocab_size, ends=ends, seed=0
    )
    assert found
    for ids in found:
        assert len(ids) <= 60
        assert not set(ids[3:-1]) & set(ends)


def test_no_more_is_written_than_was_asked_for(sample: Loaded) -> None:
    starts = [[sample.tokenizer("Return the value")["input_ids"][-1]]] * 200
    found = sampling.samples(
        sample.model, starts, tokens=600, longest=100, kept=100, vocab_size=sample.vocab_size, ends=[], seed=0
    )
    # Eight rows, that have 75 tokens each where they end as early as is usual, are begun; none is begun after them.
    assert len(found) <= 8
    assert sum(map(len, found)) <= 800
