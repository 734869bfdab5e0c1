"""Experts as linear layers: the same sums, each expert's own tokens, and one product for all of them when packed."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerAxis, PerGroup, quantize_
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel

from exporter.quantize import experts, linears
from exporter.quantize.experts import PackedExperts, UnfoldedExperts
from exporter.rehearsal import condition
from tests.exporter.quantize.conftest import apart, logits

INT4: torch.dtype = vars(torch)["int4"]
WIDTH, INNER, EXPERTS, CHOSEN, TOKENS = 64, 96, 4, 2, 30
_SIZES: dict[str, Any] = {
    **{"vocab_size": 384, "hidden_size": WIDTH, "intermediate_size": INNER, "moe_intermediate_size": INNER},
    **{"num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16},
    **{"num_experts": EXPERTS, "num_local_experts": EXPERTS, "num_experts_per_tok": CHOSEN, "pad_token_id": None},
    **{"max_position_embeddings": 128, "shared_expert_intermediate_size": 64, "tie_word_embeddings": False},
}
# gpt_oss: transposed, interleaved, with biases and a gate of its own. qwen2_moe: a shared expert beside the routed.
KINDS = ["mixtral", "qwen3_moe", "gpt_oss", "qwen2_moe"]


def _model(kind: str, **overrides: Any) -> PreTrainedModel:
    config = AutoConfig.for_model(kind, **{**_SIZES, **overrides})
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32).eval()
    condition(model, 0)
    generator = torch.Generator().manual_seed(1)
    for name, parameter in model.named_parameters():
        if name.endswith("_bias"):
            parameter.data.normal_(0, 0.1, generator=generator)
    return model


def _values(layer: nn.Linear) -> torch.Tensor:
    weight: Any = layer.weight
    out: torch.Tensor = weight.dequantize()
    return out


def _unfolded(model: nn.Module) -> dict[str, UnfoldedExperts]:
    return {name: module for name, module in model.named_modules() if isinstance(module, UnfoldedExperts)}


def _round(model: nn.Module, dtype: torch.dtype, granularity: Any, only: Callable[[str], bool]) -> None:
    config = Int8DynamicActivationIntxWeightConfig(weight_dtype=dtype, weight_granularity=granularity)
    quantize_(model, config, filter_fn=lambda module, name: isinstance(module, nn.Linear) and only(name))


def _is_expert(name: str) -> bool:
    return ".experts." in name


@contextmanager
def _seen(model: nn.Module) -> Iterator[dict[str, list[torch.Tensor]]]:
    """Inputs by name of the experts' linear layers."""
    inputs: dict[str, list[torch.Tensor]] = {}
    hooks = [
        module.register_forward_pre_hook(lambda _, args, name=name: inputs.setdefault(name, []).append(args[0]))
        for name, module in model.named_modules()
        if isinstance(module, nn.Linear) and _is_expert(name)
    ]
    yield inputs
    for hook in hooks:
        hook.remove()


@pytest.mark.parametrize("kind", KINDS)
def test_every_layout_gives_the_same_numbers(kind: str) -> None:
    model = _model(kind)
    full = logits(model)
    work, notes = linears.unfold(model)
    assert notes == []
    assert len(_unfolded(work)) == 2
    assert apart(full, logits(work)) < 5e-6
    with experts.calibrating(work):
        assert apart(full, logits(work)) < 5e-6
    experts.pack(work)
    assert not _unfolded(work)
    assert apart(full, logits(work)) < 5e-6
    assert apart(full, logits(linears.unfold(model, packed=True)[0])) < 5e-6


def test_calibration_sees_each_expert_with_its_own_tokens_alone() -> None:
    """Statistics over tokens that an expert never gets would fit it to text that it is not for."""
    work, _ = linears.unfold(_model("mixtral"))
    routed: list[torch.Tensor] = []
    for module in _unfolded(work).values():
        module.register_forward_pre_hook(lambda _, args: routed.append(args[1]))
    with _seen(work) as everything:
        logits(work)
    assert {len(x) for inputs in everything.values() for x in inputs} == {TOKENS}
    routed.clear()
    with experts.calibrating(work), _seen(work) as seen:
        logits(work)
    for layer, index in enumerate(routed):
        tokens = Counter(index.flatten().tolist())
        assert sum(tokens.values()) == TOKENS * CHOSEN
        for number in range(EXPERTS):
            names = [f"model.layers.{layer}.mlp.experts.{number}.{part}" for part in ("up", "down")]
            assert [sum(len(x) for x in seen.get(name, [])) for name in names] == [tokens[number]] * 2


def test_an_expert_without_tokens_is_not_called() -> None:
    work, _ = linears.unfold(_model("mixtral"))
    module = next(iter(_unfolded(work).values()))
    hidden = torch.randn(5, WIDTH, generator=torch.Generator().manual_seed(0))
    index, weights = torch.tensor([[0, 2]] * 5), torch.full((5, 2), 0.5)
    called = []
    for i, expert in enumerate(module.each):
        expert.up.register_forward_pre_hook(lambda *_, i=i: called.append(i))
    with torch.no_grad():
        plain = module(hidden, index, weights)
        called.clear()
        with experts.calibrating(work):
            found = module(hidden, index, weights)
    assert called == [0, 2]
    assert torch.allclose(plain, found, atol=1e-6)


def test_calibrating_ends_also_after_a_failure() -> None:
    work, _ = linears.unfold(_model("mixtral"))
    with pytest.raises(KeyError), experts.calibrating(work):
        assert all(module.calibrating for module in _unfolded(work).values())
        raise KeyError
    assert not any(module.calibrating for module in _unfolded(work).values())


@pytest.mark.parametrize("kind", ["mixtral", "gpt_oss"])
def test_packing_keeps_every_int4_value_and_scale(kind: str) -> None:
    work, _ = linears.unfold(_model(kind))
    _round(work, INT4, PerGroup(32), _is_expert)
    unpacked = logits(work)
    each = {name: [(_values(e.up), _values(e.down)) for e in module.each] for name, module in _unfolded(work).items()}
    experts.pack(work)
    for name, weights in each.items():
        packed = work.get_submodule(name)
        assert isinstance(packed, PackedExperts)
        for part, dim, joined in (("up", 0, 0), ("down", 1, 1)):
            weight: Any = packed.get_submodule(part).weight
            assert weight.target_dtype == INT4
            assert torch.equal(weight.dequantize(), torch.cat([w[joined] for w in weights], dim))
    # Activations share one int8 scale for all of a token's experts now.
    assert apart(unpacked, logits(work)) < 0.2
    assert torch.nn.functional.cosine_similarity(unpacked, logits(work), dim=-1).mean() > 0.999


def test_int8_experts_get_one_scale_a_row() -> None:
    """What the runtime's int8 kernels take; each value moves by no more than one step of its new scale."""
    work, _ = linears.unfold(_model("mixtral"))
    _round(work, torch.int8, PerAxis(0), _is_expert)
    before = {n: torch.cat([_values(e.down) for e in m.each], 1) for n, m in _unfolded(work).items()}
    experts.pack(work)
    for name, old in before.items():
        weight: Any = work.get_submodule(f"{name}.down").weight
        assert weight.scale.shape == (WIDTH, 1)
        assert (weight.dequantize() - old).abs().le(0.501 * weight.scale).all()


def test_experts_in_two_formats_are_not_packed() -> None:
    work, _ = linears.unfold(_model("mixtral"))
    _round(work, INT4, PerGroup(32), lambda name: _is_expert(name) and ".0.up" in name)
    with pytest.raises(ValueError, match=r"the experts of model\.layers\.0\.mlp\.experts are in 2 formats"):
        experts.pack(work)


def test_many_experts_for_each_one_chosen_are_told() -> None:
    """By the ratio that was measured: at 32 nothing is said, above it once for all layers."""
    for number, told in ((32, []), (33, ["all 33 experts of a layer are computed for every token, 1 chosen"])):
        _, notes = linears.unfold(
            _model("qwen3_moe", num_experts=number, num_local_experts=number, num_experts_per_tok=1)
        )
        assert [note[: len(words)] for note, words in zip(notes, told, strict=True)] == told


def test_a_unit_is_what_must_have_one_format() -> None:
    work, _ = linears.unfold(_model("mixtral"))
    found = experts.units(work)
    assert found.keys() == {n for n, m in work.named_modules() if isinstance(m, nn.Linear) and _is_expert(n)}
    assert Counter(found.values()) == {
        f"model.layers.{layer}.mlp.experts.{part}": EXPERTS for layer in range(2) for part in ("up", "down")
    }
    name = "model.layers.0.mlp.experts.down"
    _round(work, INT4, PerGroup(32), lambda at: found.get(at) == name)
    experts.pack(work)
    assert not _unfolded(work), "packed: within each unit there is one format"


@pytest.mark.parametrize(
    ("kind", "wanted"),
    [("mixtral", set()), ("qwen2_moe", {f"model.layers.{i}.mlp.shared_expert_gate" for i in range(2)})],
)
def test_routers(kind: str, wanted: set[str]) -> None:
    """Those of most architectures are no linear layers and stay so."""
    model = _model(kind)
    assert experts.routers(model) == wanted
    for packed in (False, True):
        work, _ = linears.unfold(model, packed=packed)
        assert experts.routers(work) == wanted
        gates = [n for n, m in work.named_modules() if n.endswith(".gate") and not isinstance(m, nn.Linear)]
        assert len(gates) == 2


class _Layer(nn.Module):
    def __init__(self, packed: nn.Module) -> None:
        super().__init__()
        self.router = nn.Parameter(torch.randn(EXPERTS, WIDTH, generator=torch.Generator().manual_seed(2)))
        self.experts = packed

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        weights, index = torch.topk((hidden @ self.router.t()).softmax(-1), CHOSEN)
        out: torch.Tensor = self.experts(hidden, index, weights)
        return out


def test_a_file_holds_int4_experts_and_runs_with_any_number_of_tokens(tmp_path: Path) -> None:
    """Traced without data-dependent sizes, both products inside XNNPACK, an eighth of the bytes."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
        XnnpackDynamicallyQuantizedPartitioner,
        XnnpackPartitioner,
    )
    from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
    from executorch.runtime import Runtime

    work, _ = linears.unfold(_model("mixtral"))
    _round(work, INT4, PerGroup(32), _is_expert)
    experts.pack(work)
    layer = _Layer(next(m for m in work.modules() if isinstance(m, PackedExperts)))
    tokens = torch.export.Dim("tokens", min=1, max=64)
    with torch.no_grad():
        exported = torch.export.export(layer, (torch.randn(3, WIDTH),), dynamic_shapes=({0: tokens},))
        program = to_edge_transform_and_lower(
            exported,
            partitioner=[XnnpackDynamicallyQuantizedPartitioner(), XnnpackPartitioner()],
            compile_config=EdgeCompileConfig(_check_ir_validity=False),
        ).to_executorch()
    path = tmp_path / "experts.pte"
    program.save(str(path))
    full = 4 * EXPERTS * 3 * WIDTH * INNER
    assert path.stat().st_size < 0.16 * full + 30_000
    method = Runtime.get().load_program(path).load_method("forward")
    assert method is not None
    for count in (1, 7, 64):
        hidden = torch.randn(count, WIDTH, generator=torch.Generator().manual_seed(count))
        with torch.no_grad():
            wanted = layer(hidden)
        found = method.execute([hidden])[0]
        assert torch.nn.functional.cosine_similarity(wanted, found, dim=-1).min() > 0.9999
