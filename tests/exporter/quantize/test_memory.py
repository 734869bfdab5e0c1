"""A recipe that may change the model lets go of what it no longer needs, and gives the same as one that may not."""

from __future__ import annotations

import copy
import gc
from dataclasses import replace

import pytest
import torch
from transformers import PreTrainedModel

from exporter import checkpoint, quantize
from exporter.quantize import Quantized, memory
from exporter.quantize.linears import share_copy
from exporter.spec import ModelRef
from tests.exporter.loaded import SAMPLE
from tests.exporter.quantize.conftest import Subject, logits


def test_a_weight_is_let_go_of_everywhere() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(8, 4), torch.nn.Linear(4, 2))
    other = share_copy(model)  # type: ignore[arg-type]
    memory.let_go(model[0])
    memory.give_back()
    assert [parameter.numel() for parameter in other.parameters()] == [0, 4, 8, 2]


@pytest.mark.parametrize(("precision", "budget"), [("8da4w", {}), ("auto", {"max_size": 1_500_000})])
def test_a_model_that_may_be_changed_ends_as_it_was(sample: Subject, precision: str, budget: dict[str, int]) -> None:
    ckpt = checkpoint.inspect(SAMPLE, ModelRef())
    text = replace(sample.text, sequences=sample.text.sequences[:3])
    alive: list[int] = []

    def restore(model: PreTrainedModel) -> None:
        alive.append(_float_bytes() - sum(parameter.nbytes for parameter in model.parameters()))
        checkpoint.restore(changed, ckpt)

    def made(model: PreTrainedModel, **options: object) -> Quantized:
        request = sample.request(calibration=lambda: text, **budget, **options)
        with torch.no_grad():
            return quantize.get(precision).apply(model, request)

    expected = made(sample.model)
    changed = copy.deepcopy(sample.model)
    before = _float_bytes() - sum(parameter.nbytes for parameter in changed.parameters())
    found = made(changed, restore=restore)
    assert torch.equal(logits(found.model), logits(expected.model))
    assert torch.equal(logits(changed), logits(sample.model))
    assert found.detail == expected.detail
    # int4 and int8 weights' scales are float32, and 0.3 MB of norms and of text's tokens; the model is 7.2 MB.
    assert [left - before < 1_000_000 for left in alive] == [True]


def _float_bytes() -> int:
    """Of all float32 tensors that are reachable."""
    gc.collect()
    tensors = [o for o in gc.get_objects() if type(o) in (torch.Tensor, torch.nn.Parameter)]
    storages = {o.untyped_storage().data_ptr(): o.untyped_storage() for o in tensors if o.dtype == torch.float32}
    return sum(storage.nbytes() for storage in storages.values())
