"""Workarounds: still needed, and without effect on the bytes.

A layer of a language model comes out the same, and so do the ops that it does not have and that a skipped pass
would have changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import torch
from executorch.backends.xnnpack import _passes
from executorch.backends.xnnpack.partition.graphs import bilinear_2d
from executorch.backends.xnnpack.partition.xnnpack_partitioner import (
    XnnpackDynamicallyQuantizedPartitioner,
    XnnpackPartitioner,
)
from executorch.exir import EdgeCompileConfig, to_edge_transform_and_lower
from torch import nn
from torch.export import ExportedProgram

from exporter import backends, checkpoint, lower, quantize, trace, workarounds
from exporter.spec import ModelRef
from exporter.static_cache import ExportableModule, use_attention

ALL_PASSES = [one.__name__ for one in _passes.XNNPACKPassManager(None).passes]


class _Of(nn.Module):
    def __init__(self, compute: Callable[..., torch.Tensor], *parts: nn.Module) -> None:
        super().__init__()
        self.compute, self.parts = compute, nn.ModuleList(parts)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.compute(x, *self.parts)


def _attention(x: torch.Tensor) -> torch.Tensor:
    return nn.functional.scaled_dot_product_attention(x, x, x, torch.zeros(4, 4), scale=0.3)


def _norm_and_relu(x: torch.Tensor, conv: nn.Module, norm: nn.Module) -> torch.Tensor:
    return nn.functional.relu(norm(conv(x)))


# One op or two that some pass rewrites: (module, input shape).
MODULES: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "linear": (nn.Linear(8, 8), (2, 8)),
    "linear, relu": (nn.Sequential(nn.Linear(8, 8), nn.ReLU()), (2, 8)),
    "conv, batch norm, relu": (_Of(_norm_and_relu, nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)), (1, 3, 8, 8)),
    "conv in one dimension": (nn.Conv1d(3, 4, 3), (1, 3, 16)),
    "attention": (_Of(_attention), (1, 2, 4, 8)),
    "six in a row": (_Of(lambda x: torch.cat([x, x + 1, x + 2, x + 3, x + 4, x + 5])), (2, 8)),
    "pool": (nn.MaxPool2d(2), (1, 3, 8, 8)),
    "largest of a row": (_Of(lambda x: x.max(dim=-1).values + 1), (2, 8)),
    "border": (_Of(lambda x: nn.functional.pad(x, (1, 1)) + 1), (1, 3, 8, 8)),
    "prelu": (nn.PReLU(3), (1, 3, 8, 8)),
    "copies": (_Of(lambda x: (x.clone() + 1).contiguous().clone() * 2), (2, 8)),
}


def _exported(name: str) -> ExportedProgram:
    torch.manual_seed(0)
    module, shape = MODULES[name]
    for parameter in module.parameters():
        nn.init.normal_(parameter)
    return torch.export.export(module.eval(), (torch.randn(shape),))


def _lowered(program: ExportedProgram, partitioners: list[Any] | None = None) -> bytes:
    config = EdgeCompileConfig(_check_ir_validity=False)
    edge = to_edge_transform_and_lower(
        program, partitioner=partitioners or [XnnpackPartitioner()], compile_config=config
    )
    return bytes(edge.to_executorch().buffer)


@pytest.fixture
def passes_run(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the passes that really go over a graph."""
    counts: Counter[str] = Counter()
    original = _passes._transform

    def counting(program: ExportedProgram, one: Any) -> ExportedProgram:
        counts[type(one).__name__] += 1
        return original(program, one)

    monkeypatch.setattr(_passes, "_transform", counting)
    # Its patterns are gathers by index tensors, which no module here has, and take 20 s to make.
    monkeypatch.setattr(bilinear_2d, "get_graphs_dict", dict)
    return counts


@pytest.mark.parametrize("name", MODULES)
def test_the_bytes_are_the_same_with_passes_skipped(name: str, passes_run: Counter[str]) -> None:
    program = _exported(name)
    whole = _lowered(program)
    everything = Counter(passes_run)
    passes_run.clear()
    with workarounds.only_passes_with_work():
        assert _lowered(program) == whole
    assert set(passes_run) <= set(everything)


@pytest.mark.parametrize("precision", ["fp32", "8da4w-rtn"])
def test_a_language_model_has_the_same_bytes_without_any_workaround(
    precision: str, _models: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    ckpt = checkpoint.inspect(_models("llama", num_hidden_layers=1), ModelRef())
    backend = backends.get("xnnpack")
    backend.prepare()
    monkeypatch.setattr(bilinear_2d, "get_graphs_dict", dict)

    def made() -> bytes:
        with torch.no_grad():
            model = quantize.get(precision).apply(checkpoint.load_model(ckpt), quantize.Request(embedding="8w")).model
        use_attention(model, "custom")
        # Traced anew: a trace with the runtime's attention serves one lowering only.
        exported = trace.trace(ExportableModule(model, 32, "custom", ckpt.caches), "dynamic")
        lowered = lower.lower(exported, backend, precision=precision, embedding="8w", metadata={"n": 32})
        return bytes(lowered.program.buffer)

    def plainly(exported: ExportedProgram, partitioners: list[Any], **settings: Any) -> Any:
        return to_edge_transform_and_lower(exported, partitioner=partitioners, **settings)

    with_them = made()
    monkeypatch.setattr(workarounds, "only_passes_with_work", nullcontext)
    monkeypatch.setattr(workarounds, "to_edge_and_lower", plainly)
    assert made() == with_them


def test_passes_without_work_are_really_skipped(passes_run: Counter[str]) -> None:
    """Of 17 passes over a linear layer, a few are left."""
    program = _exported("linear")
    _lowered(program)
    partitions = passes_run["ConvertToLinearPass"]
    assert passes_run == Counter(dict.fromkeys(ALL_PASSES, partitions)), (
        "executorch no longer runs every pass over every partition: workarounds can lose only_passes_with_work"
    )
    passes_run.clear()
    with workarounds.only_passes_with_work():
        _lowered(program)
    assert passes_run["ConvertToUpsampleBilinear2d"] == 0
    assert 0 < sum(passes_run.values()) <= 4 * partitions


def test_every_pass_that_is_looked_at_is_one_of_executorchs() -> None:
    """A renamed pass would run always, or be skipped for the ops of another."""
    assert set(workarounds._TRIGGERS) | {"PropagateCustomMetaPass", "ConstPropPass"} <= set(ALL_PASSES)
    unknown = set(ALL_PASSES) - set(workarounds._TRIGGERS) - {"PropagateCustomMetaPass", "ConstPropPass"}
    assert unknown == {"ChannelsLastTaggedReshapePass"}, "it puts in what it looks for itself: it always runs"


@pytest.mark.parametrize(
    ("name", "function"),
    [
        ("ConvertToUpsampleBilinear2d", lambda x: x[torch.tensor([0, 1])]),
        ("ConvertToLinearPass", lambda x: torch.ops.aten.mm.default(x, x)),
        ("ConvertToSDPAPass", lambda x: x.softmax(-1)),
        ("FuseActivationPass", lambda x: x.relu()),
        ("DecomposeConcatenate", lambda x: torch.cat([x, x])),
        ("RemoveRedundantCopyPass", lambda x: torch.ops.aten._to_copy.default(x, dtype=torch.float64)),
        ("ConstPropPass", lambda x: x + torch.ones(4, 4)),
    ],
)
def test_a_pass_runs_where_its_op_is(name: str, function: Callable[[torch.Tensor], torch.Tensor]) -> None:
    x = torch.rand(4, 4)
    assert not workarounds.cannot_change(name, torch.export.export(_Of(function), (x,)).graph)
    assert workarounds.cannot_change(name, torch.export.export(_Of(lambda x: x * x), (x,)).graph)


@pytest.mark.parametrize("bilinear", [True, False])
def test_resizing_still_meets_its_pass(bilinear: bool) -> None:
    """Bilinear resizing comes decomposed, as gathers by index tensors, or whole."""
    mode: dict[str, Any] = {"mode": "bilinear", "align_corners": True} if bilinear else {"mode": "nearest"}
    module = _Of(lambda x: nn.functional.interpolate(x, scale_factor=2, **mode) + 1)
    program = torch.export.export(module, (torch.randn(1, 3, 8, 8),))
    edge = to_edge_transform_and_lower(program, compile_config=EdgeCompileConfig(_check_ir_validity=False))
    graph = edge.exported_program().graph
    assert any("index.Tensor" in str(node.target) or "upsample" in str(node.target) for node in graph.nodes)
    if bilinear:
        assert not workarounds.cannot_change("ConvertToUpsampleBilinear2d", graph)


def test_a_pass_that_is_not_listed_always_runs() -> None:
    graph = torch.fx.Graph()
    graph.output(graph.placeholder("x"))
    assert not workarounds.cannot_change("SomePassOfTomorrow", graph)
    assert workarounds.cannot_change("FuseActivationPass", graph)


def test_metadata_that_travels_is_looked_at() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    graph.output(x)
    assert workarounds.cannot_change("PropagateCustomMetaPass", graph)
    x.meta["custom"] = {"a": 1}
    assert not workarounds.cannot_change("PropagateCustomMetaPass", graph)


def test_constants_that_can_be_folded_are_looked_at() -> None:
    graph = torch.fx.Graph()
    x = graph.placeholder("x")
    total = graph.call_function(torch.ops.aten.add.Tensor, (x, x))
    graph.output(total)
    assert workarounds.cannot_change("ConstPropPass", graph)
    with graph.inserting_before(total):
        graph.call_function(torch.ops.aten.full.default, ([2], 1.0))
    assert not workarounds.cannot_change("ConstPropPass", graph)


def test_executorch_is_left_as_it_was() -> None:
    before = _passes.XNNPACKPassManager.transform
    with workarounds.only_passes_with_work(), workarounds.only_passes_with_work():
        assert _passes.XNNPACKPassManager.transform is not before
    assert _passes.XNNPACKPassManager.transform is before
    with pytest.raises(ValueError, match="x"), workarounds.only_passes_with_work():
        raise ValueError("x")
    assert _passes.XNNPACKPassManager.transform is before


class _Decompositions:
    """Counts ``run_decompositions``."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.count = 0
        original = ExportedProgram.run_decompositions

        def counting(program: ExportedProgram, *args: Any, **kwargs: Any) -> ExportedProgram:
            self.count += 1
            return original(program, *args, **kwargs)

        monkeypatch.setattr(ExportedProgram, "run_decompositions", counting)


def _quantized() -> ExportedProgram:
    from torchao.quantization import Int8DynamicActivationIntxWeightConfig, PerGroup, quantize_

    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 64), nn.Softmax(-1), nn.Linear(64, 32)).eval()
    config = Int8DynamicActivationIntxWeightConfig(weight_dtype=vars(torch)["int4"], weight_granularity=PerGroup(32))
    quantize_(model, config)
    return torch.export.export(model, (torch.randn(2, 64),))


def test_decomposing_once_gives_the_same_bytes_with_less_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bilinear_2d, "get_graphs_dict", dict)
    program, partitioners = _quantized(), [XnnpackDynamicallyQuantizedPartitioner(), XnnpackPartitioner()]
    settings = {"constant_methods": {"n": 3}, "compile_config": EdgeCompileConfig(_check_ir_validity=False)}
    counted = _Decompositions(monkeypatch)
    plain = to_edge_transform_and_lower(program, partitioner=partitioners, **settings)
    needed, counted.count = counted.count, 0
    ours = workarounds.to_edge_and_lower(program, partitioners, **settings)
    assert counted.count < needed, "executorch decomposes once by itself: workarounds can lose to_edge_and_lower"
    assert bytes(ours.to_executorch().buffer) == bytes(plain.to_executorch().buffer)


@pytest.mark.parametrize("partitioners", [[], [XnnpackPartitioner()]], ids=["none", "one"])
def test_with_one_partitioner_or_none_nothing_is_done_otherwise(
    partitioners: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(bilinear_2d, "get_graphs_dict", dict)
    settings = {"constant_methods": {"n": 3}, "compile_config": EdgeCompileConfig(_check_ir_validity=False)}
    plain = to_edge_transform_and_lower(_exported("linear"), partitioner=partitioners, **settings)
    ours = workarounds.to_edge_and_lower(_exported("linear"), partitioners, **settings)
    assert bytes(ours.to_executorch().buffer) == bytes(plain.to_executorch().buffer)
