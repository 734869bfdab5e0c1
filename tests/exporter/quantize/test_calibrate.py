"""Calibration of whole models: nearer to the original than rounding, and honest where it could not be done."""

from __future__ import annotations

import gc
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn
from transformers import PreTrainedModel

from exporter import quantize
from exporter.quantize import Request, calibrate, compensated, equalize, formats
from exporter.quantize.calibrate import NOT_REACHED, Calibration
from exporter.quantize.experts import UnfoldedExperts, calibrating
from exporter.quantize.linears import unfold
from tests.exporter.models import KINDS
from tests.exporter.quantize.conftest import Subject, random_text


def _wanted(model: PreTrainedModel, fmt: str = "int4") -> dict[str, str]:
    work, _ = unfold(model)
    return {name: fmt for name, m in work.named_modules() if isinstance(m, nn.Linear)}


def test_it_costs_less_than_rounding_by_far(sample: Subject) -> None:
    """On text that it has not seen; the same bytes. Measured: 0.030 of 0.074 nats."""
    with torch.no_grad():
        plain = quantize.get("8da4w-rtn").apply(sample.model, Request(embedding="8w"))
        done = Calibration(sample.model, _wanted(sample.model), dynamic=True, progress=_silent).run(
            sample.text.sequences
        )
        formats.quantize_embedding(done.model, "8w")
        rounded, calibrated = sample.cost(plain.model), sample.cost(done.model)
    assert calibrated < 0.5 * rounded
    assert {layer.algorithm for layer in done.layers} == {"calibrated"}


def test_weights_moved_towards_the_original_help(sample: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    def cost() -> float:
        done = Calibration(sample.model, _wanted(sample.model), dynamic=True, progress=_silent).run(
            sample.text.sequences
        )
        return sample.cost(done.model)

    half = cost()
    monkeypatch.setattr(calibrate, "SHARE", 0.0)
    assert half < cost()


@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("fmt", ["int4", "int8"])
def test_every_architecture_keeps_what_it_computes(kind: str, fmt: str, load: Callable[..., PreTrainedModel]) -> None:
    """A factor, a norm or an order that is wrong anywhere would leave nothing of the logits."""
    model, text = load(kind), random_text()
    kept = {name: p.data_ptr() for name, p in model.named_parameters()}
    ids = random_text(1, seed=5).sequences[0]
    with torch.no_grad():
        before = model(ids, use_cache=False).logits
        done = Calibration(model, _wanted(model, fmt), dynamic=True, progress=_silent).run(text.sequences)
        after = done.model(ids, use_cache=False).logits
        assert torch.equal(model(ids, use_cache=False).logits, before), "the original is left as it was"
    assert {name: p.data_ptr() for name, p in model.named_parameters()} == kept
    cosine = torch.nn.functional.cosine_similarity(before.flatten(), after.flatten(), dim=0)
    # Made-up weights hold nothing that rounding spares: 0.90 (qwen3) to 0.99; a wrong factor leaves less than half.
    assert cosine > (0.998 if fmt == "int8" else 0.88)
    names = {layer.name for layer in done.layers}
    assert names == set(_wanted(model))


def test_the_same_text_gives_the_same_values(load: Callable[..., PreTrainedModel]) -> None:
    def values() -> list[torch.Tensor]:
        model = load("qwen3")
        done = Calibration(model, _wanted(model), dynamic=True, progress=_silent).run(random_text().sequences)
        return [p.qdata for p in done.model.parameters() if hasattr(p, "qdata")]

    first, second = values(), values()
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


def test_activations_that_overflow_cost_their_layer_its_calibration(load: Callable[..., PreTrainedModel]) -> None:
    model = load("llama-untied")
    up, down = (model.get_submodule(f"model.layers.1.mlp.{name}") for name in ("up_proj", "down_proj"))
    with torch.no_grad():
        up.weight.mul_(1e30)  # type: ignore[operator]
        model.get_submodule("model.layers.1.mlp.gate_proj").weight.mul_(1e10)  # type: ignore[operator]
        down.weight.mul_(1e-38)  # type: ignore[operator]
        done = Calibration(model, _wanted(model), dynamic=True, progress=_silent).run(random_text().sequences)
    by_name = {layer.name: layer for layer in done.layers}
    fallen = by_name["model.layers.1.mlp.down_proj"]
    assert (fallen.algorithm, fallen.reason) == ("rounded", "its inputs are not finite")
    assert by_name["model.layers.0.mlp.down_proj"].algorithm == "calibrated"


def test_a_layer_that_is_fed_zeros_is_rounded(load: Callable[..., PreTrainedModel]) -> None:
    model = load("llama-untied")
    with torch.no_grad():
        model.get_submodule("model.layers.0.mlp.up_proj").weight.zero_()  # type: ignore[operator]
        done = Calibration(model, _wanted(model), dynamic=True, progress=_silent).run(random_text().sequences)
    fallen = next(layer for layer in done.layers if layer.name == "model.layers.0.mlp.down_proj")
    assert (fallen.algorithm, fallen.reason) == ("rounded", "its inputs are all zero")


def test_experts_that_no_token_reached_are_rounded_and_named(load: Callable[..., PreTrainedModel]) -> None:
    model = load("mixtral")
    one = [random_text(1, 2).sequences[0]]
    work, _ = unfold(model)
    reached: set[str] = set()
    with torch.no_grad(), calibrating(work):
        for name, module in work.named_modules():
            if isinstance(module, UnfoldedExperts):
                for number, expert in enumerate(module.each):
                    expert.up.register_forward_hook(lambda *_, at=f"{name}.{number}.up": reached.add(at))
        work(one[0], use_cache=False)
        done = Calibration(model, _wanted(model), dynamic=True, progress=_silent).run(one)
    ups = {layer.name: layer for layer in done.layers if layer.name.endswith(".up")}
    assert reached, "two tokens reach some"
    assert {name for name, layer in ups.items() if layer.reason == NOT_REACHED} == set(ups) - reached
    found = quantize.get("4w").apply(model, Request(embedding="8w", calibration=lambda: random_text(1, 2)))
    assert any(NOT_REACHED in note for note in found.notes)


def test_memory_does_not_grow_with_layers(load: Callable[..., PreTrainedModel]) -> None:
    """Activations and copies of one decoder layer at a time."""

    def alive(count: int) -> int:
        model = load("llama-untied", num_hidden_layers=count)
        most = 0

        def progress(fraction: float, message: str) -> None:
            nonlocal most
            gc.collect()
            known: set[int] = {p.untyped_storage().data_ptr() for p in model.parameters()}
            found = [o for o in gc.get_objects() if type(o) is torch.Tensor and o.dtype == torch.float32]
            sizes = {o.untyped_storage().data_ptr(): o.untyped_storage().nbytes() for o in found}
            most = max(most, sum(size for at, size in sizes.items() if at not in known))

        with torch.no_grad():
            Calibration(model, _wanted(model), dynamic=True, progress=progress).run(random_text(4, 200).sequences)
        return most

    two, eight = alive(2), alive(8)
    # int4 scales of a tiny layer are a few kilobytes; its activations would be some hundreds.
    assert eight < two + 6 * 60_000


def test_factors_merge_into_norms_and_projections(load: Callable[..., PreTrainedModel]) -> None:
    """With int8 weights there are factors on every path of a Llama layer, and they cut what activations lose."""
    seen: list[equalize.Factors] = []
    plan = equalize.plan

    def watched(*args: object, **options: object) -> equalize.Factors:
        seen.append(plan(*args, **options))  # type: ignore[arg-type]
        return seen[-1]

    model = load("llama")
    with torch.no_grad(), pytest.MonkeyPatch.context() as patch:
        patch.setattr(equalize, "plan", watched)
        Calibration(model, _wanted(model, "int8"), dynamic=True, progress=_silent).run(random_text().sequences)
    assert set(seen[0].norms) == {"input_layernorm", "post_attention_layernorm"}
    assert set(seen[0].outputs) == {"self_attn.v_proj", "mlp.up_proj"}
    assert len(seen[0].inputs) == 7


def test_factors_that_would_change_the_layer_are_left_out(
    load: Callable[..., PreTrainedModel], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(equalize, "_PAIRS", (("gate_proj", "down_proj"), ("q_proj", "o_proj")))
    found: list[equalize.Factors] = []
    plan = equalize.plan

    def watched(*args: Any, **options: Any) -> equalize.Factors:
        found.append(plan(*args, **options))
        return found[-1]

    monkeypatch.setattr(equalize, "plan", watched)
    model = load("llama")
    with torch.no_grad():
        Calibration(model, _wanted(model, "int8"), dynamic=True, progress=_silent).run(random_text().sequences)
    assert found, "they were looked for"
    assert all(not factors.inputs and not factors.norms for factors in found)


def test_outliers_of_activations_are_what_factors_are_for(sample: Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    with torch.no_grad():
        with_them = sample.cost(quantize.get("8da8w").apply(sample.model, sample.request()).model)
        monkeypatch.setattr(equalize, "plan", lambda *args, **options: equalize.Factors())
        without = sample.cost(quantize.get("8da8w").apply(sample.model, sample.request()).model)
    assert with_them < without


def test_scales_in_a_file_are_those_that_were_calibrated(sample: Subject) -> None:
    """XNNPACK keeps bfloat16: rounding scales once more would undo what was compensated."""
    with torch.no_grad():
        made = quantize.get("8da4w").apply(sample.model, sample.request()).model
    weights: list[Any] = [m.weight for m in made.modules() if isinstance(m, nn.Linear)]
    scales = [weight.scale for weight in weights if weight.scale.shape[1] > 1]
    assert scales
    assert all(torch.equal(s, compensated.bfloat16_exact(s)) for s in scales)


def _silent(fraction: float, message: str) -> None:
    pass
