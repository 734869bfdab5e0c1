"""Precisions that a backend's own toolchain rounds: the text reaches it, the caches live, and the file is judged
against the rounded program run eagerly."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.fx import GraphModule

from exporter import backend_quantize, backends, bisect, checkpoint, lower, parity, pte, quantize, runtime, trace
from exporter.backend_quantize import CachesFrozen, Compressed, Inputs, Rounded
from exporter.backends import openvino
from exporter.cell import Job
from exporter.parity import Reference
from exporter.quantize import Calibration
from exporter.report import CalibrationUsed
from exporter.schedule import feed
from exporter.spec import ModelRef
from exporter.static_cache import ExportableModule, use_attention
from exporter.texts import Text
from tests.exporter.models import tiny_model

CONTEXT = 32
BACKEND: Any = openvino.BACKEND


class _Traced:
    def __init__(self, directory: Path) -> None:
        ckpt = checkpoint.inspect(tiny_model("llama", directory, num_hidden_layers=1), ModelRef())
        self.model = checkpoint.load_model(ckpt)
        use_attention(self.model, "stock", ckpt.attention)
        self.module = ExportableModule(self.model, CONTEXT, "stock", ckpt.caches)
        self.exported = trace.trace(self.module, "single")
        ids = torch.randint(384, (1, 12), generator=torch.Generator().manual_seed(1))
        self.text = Text(name="one", ids=ids, sha256="")
        self.end = Text(name="end", ids=ids[:, 3:9], sha256="")

    def full(self) -> Reference:
        return parity.reference(self.model, [self.text], self.end)


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> _Traced:
    return _Traced(tmp_path_factory.mktemp("model") / "model")


def _calibration(seed: int, length: int = 16, sequences: int = 2, upto: int = 384) -> Calibration:
    generator = torch.Generator().manual_seed(seed)
    found = [torch.randint(upto, (1, length), generator=generator) for _ in range(sequences)]
    used = CalibrationUsed(tokens=length * sequences, sequences=sequences, sha256="", sources={}, seed=seed)
    return Calibration(sequences=found, held_out=[], used=used)


class _Fake:
    """Doubles one weight's error, or breaks what it is told to break."""

    name = "fake"
    own_precisions: tuple[str, ...] = ("4w-fake",)
    calibration_tokens = 10

    def __init__(self, breaks: str = "") -> None:
        self.breaks, self.seen = breaks, list[Inputs]()

    def compress(self, graph: GraphModule, inputs: Sequence[Inputs], precision: str) -> Rounded:
        self.seen = list(inputs)
        for ids, position in inputs:
            graph(ids, position)
        if self.breaks:
            for node in list(graph.graph.find_nodes(op="call_function", target=torch.ops.aten.index_copy_.default)):
                if self.breaks == "write":
                    node.replace_all_uses_with(node.args[0])
                    graph.graph.erase_node(node)
                elif self.breaks == "read":
                    # What attention reads is a constant, while the caches are still written.
                    with graph.graph.inserting_before(node):
                        seen = graph.graph.call_function(torch.ops.aten.zeros_like.default, (node.args[0],))
                        other = graph.graph.call_function(torch.ops.aten.index_copy.default, (seen, *node.args[1:]))
                    node.replace_all_uses_with(other)
                else:
                    name = str(node.args[0].target)
                    if name in dict(graph.named_buffers()):
                        graph.register_buffer("frozen_" + name, graph.get_buffer(name).clone())
                        node.args[0].target = "frozen_" + name
                        delattr(graph, name)
            graph.recompile()
        return Rounded(graph=graph, algorithm="none", formats={"model.model.norm.weight": "int8"})


def test_the_recipe_leaves_the_model_as_it_is(traced: _Traced) -> None:
    recipe = quantize.get("4w-nncf")
    assert (recipe.exact, recipe.calibrates) == (False, True)
    assert recipe.apply(traced.model, quantize.Request(embedding="8w")).model is traced.model
    assert backend_quantize.takes(BACKEND, "4w-nncf")
    assert not backend_quantize.takes(BACKEND, "4w")
    assert not backend_quantize.takes(backends.get("xnnpack"), "4w-nncf")


def test_text_comes_one_token_a_call_and_every_sequence_gives_its_part(traced: _Traced) -> None:
    fake, calibration = _Fake(), _calibration(0)
    done = backend_quantize.compress(traced.module, traced.exported, fake, "4w-fake", calibration)
    assert [int(position) for _, position in fake.seen] == [0, 1, 2, 3, 4, 0, 1, 2, 3, 4]
    fed = torch.cat([ids for ids, _ in fake.seen], dim=1)
    assert fed.tolist() == torch.cat([s[:, :5] for s in calibration.sequences], dim=1).tolist()
    assert done.notes == ["the backend's quantizer looked at 10 of the 32 tokens of calibration text"]
    assert done.detail.calibration == calibration.used
    assert done.detail.parameters["int8"] == 64
    # No text is longer than the context.
    long = list(backend_quantize.steps([torch.zeros(1, 50, dtype=torch.long)], CONTEXT, 1000))
    assert [int(position) for _, position in long] == list(range(CONTEXT))


def test_calibration_leaves_no_trace(traced: _Traced) -> None:
    before = {name: value.clone() for name, value in traced.model.state_dict().items()}
    fake = _Fake()
    done = backend_quantize.compress(traced.module, traced.exported, fake, "4w-fake", _calibration(0))
    for of in (done.program, traced.exported):
        runnable = of.module(check_guards=False)
        assert not any(bool(b.any()) for name, b in runnable.named_buffers() if "_cache_" in name)
    assert all(torch.equal(before[name], value) for name, value in traced.model.state_dict().items())
    own = backend_quantize.reference(done, traced.full())
    for name, logits in traced.full().logits.items():
        assert own.logits[name].shape == logits.shape
        assert (own.logits[name] - logits).abs().max() < 1e-5  # it rounded nothing


@pytest.mark.parametrize(
    ("breaks", "words"),
    [("write", "does not write its caches"), ("read", "does not read its caches"), ("take", "took the caches")],
)
def test_frozen_caches_are_found(traced: _Traced, breaks: str, words: str) -> None:
    with pytest.raises(CachesFrozen, match=words):
        backend_quantize.compress(traced.module, traced.exported, _Fake(breaks), "4w-fake", _calibration(0))


def _nncf(traced: _Traced, calibration: Calibration | None) -> Compressed:
    return backend_quantize.compress(traced.module, traced.exported, BACKEND, "4w-nncf", calibration)


def _scales(done: Compressed) -> torch.Tensor:
    # nncf's decompressors keep float16 scales of groups as [out, groups, 1].
    found = [b for _, b in done.module.graph.named_buffers() if b.dtype == torch.float16 and b.ndim == 3]
    assert found
    return torch.cat([scale.flatten() for scale in found])


def test_nncf_writes_a_file_that_is_its_own_reference(traced: _Traced, tmp_path: Path) -> None:
    done = _nncf(traced, _calibration(0))
    assert done.detail.parameters["int4"] > done.detail.parameters["int8"] > 0
    assert {layer.format for layer in done.detail.layers} == {"int4", "int8"}
    full = traced.full()
    own = backend_quantize.reference(done, full)
    BACKEND.prepare()
    lowered = lower.lower(done.program, BACKEND, precision="4w-nncf", embedding="8w", metadata={"get_max_seq_len": 32})
    pte.write(lowered.program, tmp_path / "nncf.pte")
    step = runtime.load(tmp_path / "nncf.pte")
    for text in (traced.text, traced.end):  # the second meets the caches that the first left behind
        rounding = (own.logits[text.name] - full.logits[text.name]).abs().max()
        output = feed(step, text.ids, [1] * text.ids.shape[1])
        assert rounding > 0.05
        # nncf's eager graph rounds products of scales to half precision, the device does not.
        assert (output - own.logits[text.name]).abs().max() < 0.05 * rounding


def test_nncf_looks_at_the_text(traced: _Traced) -> None:
    told: list[float] = []
    text = _calibration(0, length=6)
    watched = backend_quantize.compress(
        traced.module, traced.exported, BACKEND, "4w-nncf", text, lambda fraction, message: told.append(fraction)
    )
    assert told == [number / 12 for number in range(12)], "one pass over it, which is told"
    one, same = _scales(watched), _scales(_nncf(traced, text))
    other = _scales(_nncf(traced, _calibration(7, length=6, upto=20)))
    assert torch.equal(one, same)
    assert not torch.equal(one, other)


def test_a_rehearsal_has_no_text(traced: _Traced) -> None:
    done = _nncf(traced, None)
    assert done.detail.calibration is None
    assert {layer.algorithm for layer in done.detail.layers} == {"rounded"}
    assert "rounded to nearest" in done.detail.algorithm


def test_a_cell_is_judged_by_the_rounded_program(traced: _Traced) -> None:
    job = Job(
        backend=cast(Any, _Fake()),
        precision="4w-fake",
        embedding="fp32",
        attention="stock",
        module=traced.module,
        exported=traced.exported,
        full=traced.full(),
        quantized=None,
        vocab_size=384,
        bos_id=None,
        eos_ids=[],
        notes=["a note"],
    )
    told: list[tuple[float, str]] = []
    done = backend_quantize.by_itself(job, _calibration(0), lambda fraction, message: told.append((fraction, message)))
    looking, running = dict.fromkeys(message for _, message in told)
    assert [part for part, message in told if message == looking] == [number / 10 for number in range(10)]
    assert [part for part, message in told if message == running] == [number / 18 for number in range(18)]
    assert done.exported is not traced.exported
    assert done.quantized is not None
    assert done.module.max_seq_len == CONTEXT
    assert done.notes[0] == "a note"
    assert len(done.notes) == 2
    assert done.detail is not None
    assert job.quantized is None
    stages = bisect.stages_of(done.module, done.exported, done.exported, lambda: lambda ids, position: ids)
    expected = done.quantized.logits[traced.text.name]
    for _, start in stages[:2]:
        with torch.no_grad():
            output = feed(start(), traced.text.ids, [1] * traced.text.ids.shape[1])
        assert (output - expected).abs().max() < 1e-5
