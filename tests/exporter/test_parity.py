"""Parity catches what went wrong silently elsewhere: every fault below gives finite, plausible logits.

The files here are stood in for by the eager module with its cache, which is right (and shown to be); each test
breaks it as a backend once did.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import bounds, checkpoint, parity, quantize, texts
from exporter.parity import Reference
from exporter.schedule import Step
from exporter.spec import ModelRef
from exporter.static_cache import ExportableModule
from exporter.tally import Tally
from tests.exporter.models import WINDOW

CONTEXT = 48


@dataclass
class Subject:
    """A model, its references, and a module in place of a written file."""

    model: Any
    module: ExportableModule
    full: Reference
    quantized: Reference | None

    def step(self, ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            return self.module(ids, position)[0]

    def run(self, step: Step | None = None, **options: Any) -> parity.Outcome:
        return parity.run(step or self.step, "dynamic", self.full, self.quantized, **options)

    def missed(self, step: Step | None = None) -> set[str]:
        """Names of the bounds that a file does not meet."""
        found = self.run(step).parity
        missed = {f.name for c in found.comparisons for f in c.figures if not f.passed}
        assert found.passed is (not missed)
        return missed


@pytest.fixture(scope="module")
def make(_models: Callable[..., Path]) -> Callable[..., Subject]:
    def subject(kind: str = "llama", precision: str = "fp32", context: int = CONTEXT) -> Subject:
        ckpt = checkpoint.inspect(_models(kind), ModelRef())
        model = checkpoint.load_model(ckpt)
        tokenizer = checkpoint.load_tokenizer(ckpt)
        short, end = texts.short_texts(tokenizer, context), texts.context_end_text(tokenizer, context)
        full = parity.reference(model, short, end)
        own = None
        if precision != "fp32":
            model = quantize.get(precision).apply(model, quantize.Request(embedding="8w")).model
            own = parity.reference(model, short, end)
        return Subject(model, ExportableModule(model, context, "stock", ckpt.caches), full, own)

    return subject


@pytest.fixture(scope="module")
def rounded(make: Callable[..., Subject]) -> Subject:
    return make(precision="8da4w-rtn")


@pytest.mark.parametrize("precision", ["fp32", "8da4w-rtn"])
def test_a_right_file_passes(precision: str, make: Callable[..., Subject]) -> None:
    subject = make(precision=precision)
    outcome = subject.run()
    assert outcome.parity.passed
    assert outcome.parity.left_out == []
    assert outcome.parity.schedules == ["prefill", "chunks", "decode", "context end", "replay"]
    assert (outcome.quality is None) is (precision == "fp32")


def test_a_file_of_one_token_a_call_passes(make: Callable[..., Subject]) -> None:
    """A length of more than one never reaches it."""
    subject = make()

    def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        assert ids.shape == (1, 1)
        assert position.shape == (1,)
        return subject.step(ids, position)

    found = parity.run(step, "single", subject.full, subject.quantized).parity
    assert found.passed
    assert found.schedules == ["decode", "context end", "replay"]


def _lost_cache(subject: Subject) -> Step:
    """Every call starts from empty caches: right in a prefill, wrong in whatever follows it."""

    def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        subject.module.reset()
        return subject.step(ids, position)

    return step


def _frozen_cache(subject: Subject) -> Step:
    """Caches that became constants: what the first text left there is read for ever, and nothing is written."""
    subject.module.reset()
    first = subject.full.texts[0].ids
    subject.step(first, torch.arange(first.shape[1]))
    kept = {name: buffer.clone() for name, buffer in subject.module.named_buffers() if "_cache_" in name}

    def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        out = subject.step(ids, position)
        for name, buffer in subject.module.named_buffers():
            if name in kept:
                buffer.copy_(kept[name])
        return out

    return step


def _caches_of_one_layer_lost(subject: Subject) -> Step:
    def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        subject.module.key_cache_1.zero_()  # type: ignore[union-attr, operator]
        return subject.step(ids, position)

    return step


def _off_by_one(subject: Subject) -> Step:
    """Positions shifted by one in decoding: rotary embeddings are relative, so a prefill alone looks right."""

    def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        shift = 1 if len(position) == 1 and 0 < position[0] < CONTEXT - 1 else 0
        return subject.step(ids, position + shift)

    return step


def _keeps_the_prompt_before(subject: Subject) -> Step:
    """A state of its own that a new prompt does not reset: the second text sees the end of the first."""
    seen = {"tokens": 0}

    def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        start = int(position[0])
        if start == 0 and seen["tokens"]:
            subject.step(ids[:, :1], torch.tensor([0]))
            position = torch.cat([position[:1], position[1:]]) + min(2, CONTEXT - len(position))
        seen["tokens"] += len(position)
        return subject.step(ids, position)

    return step


def _nan_at_one_position(subject: Subject) -> Step:
    def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        out = subject.step(ids, position)
        out[position == 11] = torch.nan
        return out

    return step


def _infinite_at_the_end(subject: Subject) -> Step:
    def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        out = subject.step(ids, position)
        out[position == CONTEXT - 1, 7] = torch.inf
        return out

    return step


def _last_position_overwrites_the_first(subject: Subject) -> Step:
    """The end of the context wraps round."""

    def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        if position[-1] >= CONTEXT - 8:
            for name, buffer in subject.module.named_buffers():
                if "_cache_" in name:
                    buffer[:, :, 0] = 0
        return subject.step(ids, position)

    return step


def _answers_with_the_token_before(subject: Subject) -> Step:
    def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        return subject.step(ids, position).roll(1, dims=0) if len(position) > 1 else subject.step(ids, position)

    return step


FAULTS = [
    _lost_cache,
    _frozen_cache,
    _caches_of_one_layer_lost,
    _off_by_one,
    _keeps_the_prompt_before,
    _nan_at_one_position,
    _infinite_at_the_end,
    _answers_with_the_token_before,
]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.__name__.strip("_"))
def test_a_fault_is_caught(fault: Callable[[Subject], Step], make: Callable[..., Subject]) -> None:
    subject = make()
    assert subject.missed(fault(subject))


@pytest.mark.parametrize("fault", FAULTS[:2], ids=lambda fault: fault.__name__.strip("_"))
def test_a_fault_of_a_quantized_file_is_caught(fault: Callable[[Subject], Step], rounded: Subject) -> None:
    assert {"kl_over_cost", "kl_over_quantized_eager"} <= rounded.missed(fault(rounded))


def test_a_wrap_at_the_end_of_the_context_is_caught(make: Callable[..., Subject]) -> None:
    subject = make()
    assert subject.missed(_last_position_overwrites_the_first(subject))


@pytest.mark.parametrize("factor", [0.5, 0.99, 1.01, 1.1])
def test_a_wrong_scale_is_caught(factor: float, make: Callable[..., Subject]) -> None:
    subject = make()
    subject.model.model.layers[0].self_attn.scaling *= factor
    assert "max_difference_over_std" in subject.missed()


def test_a_forgotten_sliding_window_is_caught(make: Callable[..., Subject]) -> None:
    """Texts shorter than the window would never tell."""
    subject = make("mistral")
    assert subject.missed() == set()
    subject.model.config.sliding_window = 4 * CONTEXT
    for layer in subject.model.model.layers:
        layer.self_attn.sliding_window = 4 * CONTEXT
    assert all(text.ids.shape[1] > WINDOW for text in subject.full.texts)
    assert "max_difference_over_std" in subject.missed()


def test_weights_of_another_quantization_are_caught(rounded: Subject, make: Callable[..., Subject]) -> None:
    """Right in structure and of the right kind, and not what the recipe gave."""
    other = make(precision="8da4w-rtn")
    layer = other.model.model.layers[1].mlp.down_proj
    layer.weight = torch.nn.Parameter(layer.weight.dequantize() * 1.5, requires_grad=False)
    assert "kl_over_cost" in rounded.missed(other.step)


def test_a_quantized_file_is_held_to_full_precision_too(rounded: Subject) -> None:
    """A reference that broke together with its file would let it pass; full precision does not."""
    outcome = rounded.run()
    against = {c.against: {f.name: f.value for f in c.figures} for c in outcome.parity.comparisons}
    assert set(against) == {bounds.QUANTIZED, bounds.FULL}
    assert against[bounds.FULL]["kl_mean"] > 10 * against[bounds.QUANTIZED]["kl_mean"]
    assert outcome.quality is not None
    assert outcome.quality.kl_mean == against[bounds.FULL]["kl_mean"]
    assert outcome.quality.perplexity_full == pytest.approx(against[bounds.FULL]["perplexity_reference"])


def test_infinite_figures_can_be_written_as_json(make: Callable[..., Subject]) -> None:
    subject = make()
    found = subject.run(_nan_at_one_position(subject)).parity
    values = [f.value for c in found.comparisons for f in c.figures]
    assert all(math.isfinite(value) for value in values)
    assert not found.passed


def test_figures_are_what_their_names_say(make: Callable[..., Subject]) -> None:
    """Against torch's own KL divergence and cross entropy, over the same rows."""
    generator = torch.Generator().manual_seed(0)
    out, ref = (torch.randn(70, 50, generator=generator) * 3 for _ in range(2))
    targets = torch.randint(50, (69,), generator=generator)
    tally = Tally()
    tally.add(out[:33], ref[:33], targets[:33])
    tally.add(out[33:], ref[33:], targets[33:])
    functional = torch.nn.functional
    kl = functional.kl_div(out.log_softmax(-1), ref.log_softmax(-1), reduction="batchmean", log_target=True)
    assert tally.kl_mean == pytest.approx(kl.item(), rel=1e-5)
    assert tally.positions == 70
    assert tally.max_difference == pytest.approx((out - ref).abs().max().item())
    assert tally.agreement == pytest.approx((out.argmax(-1) == ref.argmax(-1)).float().mean().item())
    assert tally.std == pytest.approx(ref.std(correction=0).item(), rel=1e-5)
    assert tally.perplexity == pytest.approx(functional.cross_entropy(out[:69], targets).exp().item(), rel=1e-4)
    assert tally.perplexity_reference == pytest.approx(
        functional.cross_entropy(ref[:69], targets).exp().item(), rel=1e-4
    )


def test_the_perplexity_of_the_report_is_of_the_text(make: Callable[..., Subject]) -> None:
    """Each logit is scored by the token that follows it."""
    subject = make()
    nll = count = 0.0
    for item in subject.full.texts:
        logits = subject.full.logits[item.name]
        nll += torch.nn.functional.cross_entropy(logits[:-1], item.ids[0, 1:], reduction="sum").item()
        count += item.ids.shape[1] - 1
    tally = Tally()
    for item in subject.full.texts:
        logits = subject.full.logits[item.name]
        tally.add(logits, logits, item.ids[0, 1:])
    assert tally.perplexity == pytest.approx(torch.tensor(nll / count).exp().item(), rel=1e-5)
    assert (tally.kl_mean, tally.agreement, tally.max_difference) == (0.0, 1.0, 0.0)


def test_a_slow_file_is_cut_and_says_so(make: Callable[..., Subject]) -> None:
    subject = make()

    def slow(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return subject.step(ids, position)

    found = subject.run(slow, budget=0.3).parity
    assert found.passed
    assert found.left_out
    assert all("it needs about" in line for line in found.left_out)
    assert {"prefill", "chunks", "decode", "replay"} <= set(found.schedules), "what is needed is never left out"
    whole = subject.run().parity
    assert found.positions < whole.positions


def test_a_slow_file_with_a_lost_cache_is_caught_all_the_same(make: Callable[..., Subject]) -> None:
    subject = make()
    lost = _lost_cache(subject)

    def slow(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        time.sleep(0.02)
        return lost(ids, position)

    assert not subject.run(slow, budget=0.0).parity.passed


def test_a_file_that_fails_while_it_runs_is_no_result(make: Callable[..., Subject]) -> None:
    def broken(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
        raise RuntimeError("0x12")

    with pytest.raises(RuntimeError, match="0x12"):
        make().run(broken)
