"""The exportable module held to transformers' own, to its promises about state, and to strict tracing."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.export import ExportedProgram
from transformers import PreTrainedModel
from transformers.integrations.executorch import convert_and_export_with_cache

from exporter import backends, checkpoint, lower, pte, runtime, schedule, trace
from exporter.checkpoint import Checkpoint
from exporter.spec import ModelRef
from exporter.static_cache import Attention, ExportableModule, use_attention
from tests.exporter.models import VOCABULARY, WINDOW

CONTEXT = 24
IDS = torch.randint(VOCABULARY, (1, CONTEXT), generator=torch.Generator().manual_seed(5))
OTHER_IDS = torch.randint(VOCABULARY, (1, CONTEXT), generator=torch.Generator().manual_seed(6))


@pytest.fixture
def one_layer(_models: Callable[..., Path]) -> Checkpoint:
    return checkpoint.inspect(_models("llama", num_hidden_layers=1), ModelRef())


def _stock_program(model: PreTrainedModel) -> ExportedProgram:
    """What transformers' own exporter makes: one token a call."""
    model = copy.deepcopy(model)
    model.generation_config.use_cache = True
    model.generation_config.cache_implementation = "static"
    model.generation_config.cache_config = {"batch_size": 1, "max_cache_len": CONTEXT}
    return convert_and_export_with_cache(model)


def _our_program(ckpt: Checkpoint, model: PreTrainedModel, kind: Attention) -> ExportedProgram:
    use_attention(model, kind, ckpt.attention)
    return trace.trace(ExportableModule(model, CONTEXT, kind, ckpt.caches), "single")


def _written(program: ExportedProgram, backend: str, path: Path) -> schedule.Step:
    """The program lowered as an export does it, written, and loaded on the runtime."""
    to = backends.get(backend)
    to.prepare()
    lowered = lower.lower(program, to, precision="fp32", embedding="fp32", metadata={})
    pte.write(lowered.program, path)
    return runtime.load(path)


def _decode(step: schedule.Step, ids: torch.Tensor) -> torch.Tensor:
    return schedule.feed(step, ids, [1] * ids.shape[1])


@pytest.mark.parametrize(("backend", "kind"), [("portable", "stock"), ("xnnpack", "custom")])
def test_it_gives_what_transformers_own_module_gives(
    backend: str, kind: Attention, one_layer: Checkpoint, tmp_path: Path
) -> None:
    """The same logits from both written files, token by token, on a second sequence too."""
    model = checkpoint.load_model(one_layer)
    stock = _written(_stock_program(model), backend, tmp_path / "stock.pte")
    ours = _written(_our_program(one_layer, model, kind), backend, tmp_path / "ours.pte")
    for ids in (IDS, OTHER_IDS):
        wanted, got = _decode(stock, ids), _decode(ours, ids)
        assert (got - wanted).abs().max() < 1e-5 * wanted.std()


def test_openvino_runs_it_and_does_not_run_transformers_own(one_layer: Checkpoint, tmp_path: Path) -> None:
    """Why the subclass exists. transformers' module counts its calls in a buffer of its own."""
    if not (here := backends.get("openvino").availability()).available:
        pytest.skip(f"OpenVINO is {here.reason}")
    model = checkpoint.load_model(one_layer)
    ours = _written(_our_program(one_layer, model, "stock"), "openvino", tmp_path / "ours.pte")
    with torch.no_grad():
        expected = model(IDS, use_cache=False).logits[0]
    assert (_decode(ours, IDS) - expected).abs().max() < 1e-3 * expected.std()
    stock = _written(_stock_program(model), "openvino", tmp_path / "stock.pte")
    try:
        _decode(stock, IDS)
    except runtime.RuntimeFailed as error:
        assert "0x1" in str(error)
    else:
        pytest.fail("transformers' own module runs on OpenVINO now: exporter/static_cache.py can lose its subclass")


@pytest.mark.parametrize("kind", ["stock", "custom"])
def test_nothing_but_keys_and_values_is_mutated(kind: Attention, _models: Callable[..., Path]) -> None:
    ckpt = checkpoint.inspect(_models("gemma3"), ModelRef())
    program = _our_program(ckpt, checkpoint.load_model(ckpt), kind).run_decompositions({})
    layers = range(len(ckpt.layers))
    caches = {f"{name}_cache_{i}" for i in layers for name in ("key", "value")}
    assert set(program.graph_signature.buffers_to_mutate.values()) == caches
    assert not program.graph_signature.user_inputs_to_mutate
    assert not program.graph_signature.parameters_to_mutate


def test_transformers_own_module_mutates_its_counters(one_layer: Checkpoint) -> None:
    """The mutation that ours does without; were it gone, the subclass could go."""
    program = _stock_program(checkpoint.load_model(one_layer)).run_decompositions({})
    mutated = set(program.graph_signature.buffers_to_mutate.values())
    assert mutated == {"key_cache_0", "value_cache_0", "cumulative_length_0"}


def test_strict_tracing_gives_the_same_graph(_models: Callable[..., Path]) -> None:
    """Non-strict tracing skips dynamo and its soundness checks; here is what it could have got wrong."""
    ckpt = checkpoint.inspect(_models("gemma3"), ModelRef())
    model = checkpoint.load_model(ckpt)
    graphs = []
    for strict in (False, True):
        module = ExportableModule(model, 2 * WINDOW, "stock", ckpt.caches)
        program = trace.trace(module, "dynamic", strict=strict).run_decompositions({})
        graphs.append([(str(node.target), _shape(node)) for node in program.graph.nodes if node.op == "call_function"])
    assert graphs[0] == graphs[1]


def _shape(node: torch.fx.Node) -> Any:
    """Sizes of a node's value; a length that is not known yet as a mark, for its name differs."""
    value = node.meta.get("val")
    if not isinstance(value, torch.Tensor):
        return type(value).__name__
    return [size if isinstance(size, int) else "S" for size in value.shape]


@pytest.mark.parametrize("kind", ["stock", "custom"])
def test_a_trace_leaves_module_and_model_as_they_were(kind: Attention, one_layer: Checkpoint) -> None:
    model = checkpoint.load_model(one_layer)
    settings = model.generation_config.to_dict()
    use_attention(model, kind, one_layer.attention)
    module = ExportableModule(model, CONTEXT, kind, one_layer.caches)
    with torch.no_grad():
        before = module(IDS[:, :5], torch.arange(5))
        caches = {name: buffer.clone() for name, buffer in module.named_buffers()}
        trace.trace(module, "dynamic")
        for name, buffer in module.named_buffers():
            assert torch.equal(buffer, caches[name]), name
        assert torch.equal(module(IDS[:, :5], torch.arange(5)), before), "it still runs in eager mode"
    assert model.generation_config.to_dict() == settings


def test_reset_empties_every_cache_and_nothing_else(one_layer: Checkpoint) -> None:
    model = checkpoint.load_model(one_layer)
    module = ExportableModule(model, CONTEXT, "stock", one_layer.caches)
    others = {name: b.clone() for name, b in module.named_buffers() if "_cache_" not in name}
    with torch.no_grad():
        module(IDS[:, :5], torch.arange(5))
    assert all(layer.keys.abs().sum() and layer.values.abs().sum() for layer in module.layers)
    module.reset()
    assert not any(layer.keys.any() or layer.values.any() for layer in module.layers)
    assert all(torch.equal(buffer, others[name]) for name, buffer in module.named_buffers() if name in others)


def test_caches_are_as_large_as_the_layers_say(_models: Callable[..., Path]) -> None:
    """Sliding-window layers too: a full-length cache with a mask is right beyond the window."""
    ckpt = checkpoint.inspect(_models("gemma3"), ModelRef())
    model = checkpoint.load_model(ckpt)
    heads, dim = ckpt.caches[0]
    for kind, shape in (("stock", (1, heads, 40, dim)), ("custom", (1, 40, heads, dim))):
        module = ExportableModule(model, 40, kind, ckpt.caches)  # type: ignore[arg-type]
        assert {tuple(b.shape) for name, b in module.named_buffers() if "_cache_" in name} == {shape}
        assert not [name for name, _ in module.named_buffers() if "cumulative_length" in name]


@pytest.mark.parametrize("kind", ["stock", "custom"])
@pytest.mark.parametrize("context", [2, 3])
def test_the_smallest_contexts_can_be_traced(kind: Attention, context: int, one_layer: Checkpoint) -> None:
    model = checkpoint.load_model(one_layer)
    use_attention(model, kind, one_layer.attention)
    program = trace.trace(ExportableModule(model, context, kind, one_layer.caches), "dynamic")
    with torch.no_grad():
        expected = model.eval()(IDS[:, :context], use_cache=False).logits[0] if kind == "stock" else None
        got = schedule.feed(lambda ids, at: program.module(check_guards=False)(ids, at)[0], IDS[:, :context], [context])
    assert got.shape == (context, VOCABULARY)
    if expected is not None:
        assert torch.allclose(got, expected, atol=1e-4)
