"""Quantized weights are as small in an OpenVINO file as their recipe made them, and the file computes with them."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from torch.export import ExportedProgram
from torchao.quantization import IntxWeightOnlyConfig, PerAxis, PerGroup, quantize_
from transformers import PreTrainedModel

from exporter import backend_quantize_weights, backends, checkpoint, lower, pte, runtime, trace
from exporter.plan import plan
from exporter.quantize.linears import share_copy
from exporter.report import Status
from exporter.schedule import feed
from exporter.spec import ExportSpec, ModelRef
from exporter.static_cache import ExportableModule, use_attention
from tests.exporter.models import tiny_model

CONTEXT = 32
_INT4: torch.dtype = vars(torch)["int4"]
INT4 = IntxWeightOnlyConfig(weight_dtype=_INT4, granularity=PerGroup(32))
INT8 = IntxWeightOnlyConfig(weight_dtype=torch.int8, granularity=PerAxis(0))


def _rounded(model: PreTrainedModel) -> PreTrainedModel:
    """int4 linear layers, one table in int8 rows for the input embedding and the output layer."""
    work = share_copy(model)
    quantize_(work, INT4, filter_fn=lambda m, name: isinstance(m, torch.nn.Linear) and name != "lm_head")
    quantize_(work, INT8, filter_fn=lambda m, name: isinstance(m, torch.nn.Embedding) or name == "lm_head")
    return work


class _Made:
    def __init__(self, directory: Path) -> None:
        ckpt = checkpoint.inspect(tiny_model("llama", directory / "model", num_hidden_layers=1), ModelRef())
        self.full = checkpoint.load_model(ckpt)
        self.model = _rounded(self.full)
        use_attention(self.model, "stock", ckpt.attention)
        self.module = ExportableModule(self.model, CONTEXT, "stock", ckpt.caches)
        self.exported = trace.trace(self.module, "single")
        self.program = backend_quantize_weights.rewrite(self.exported)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> _Made:
    return _Made(tmp_path_factory.mktemp("openvino"))


@pytest.fixture(scope="module")
def file(made: _Made, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    path = tmp_path_factory.mktemp("file") / "4w.pte"
    backend = backends.get("openvino")
    backend.prepare()
    lowered = lower.lower(made.exported, backend, precision="4w", embedding="8w", metadata={"get_max_seq_len": CONTEXT})
    pte.write(lowered.program, path)
    yield path


def _ids(*tokens: int) -> torch.Tensor:
    return torch.tensor([tokens])


def _step(program: ExportedProgram) -> Any:
    runnable = program.module(check_guards=False)
    for name, buffer in list(runnable.named_buffers()):
        if name.startswith(("key_cache_", "value_cache_")):
            setattr(runnable, name, torch.zeros_like(buffer))
    return lambda ids, position: runnable(ids, position)[0]


def test_the_rewritten_program_computes_what_the_quantized_model_does(made: _Made) -> None:
    ids = _ids(5, 300, 17, 5, 80, 2)
    with torch.no_grad():
        expected = made.model(ids, use_cache=False).logits[0]
        output = feed(_step(made.program), ids, [1] * ids.shape[1])
    assert (output - expected).abs().max() < 1e-5
    assert not any("dequantize" in str(node.target) for node in made.program.graph.nodes)


def test_the_given_program_keeps_its_weights(made: _Made) -> None:
    assert "dequantize_affine" not in str(made.program.graph)
    kept = {type(p).__name__ for p in made.exported.state_dict.values()}
    assert "IntxUnpackedToInt8Tensor" in kept
    ids = _ids(9, 9, 9)
    with torch.no_grad():
        expected = made.model(ids, use_cache=False).logits[0]
        output = feed(_step(made.exported), ids, [1, 1, 1])
    assert (output - expected).abs().max() < 1e-5


def test_int4_takes_half_a_byte_and_a_tied_table_is_there_once(made: _Made) -> None:
    kept = [value for value in made.program.state_dict.values() if not value.dtype.is_floating_point]
    linear = [m for n, m in made.full.named_modules() if isinstance(m, torch.nn.Linear) and n != "lm_head"]
    table: torch.Tensor = made.full.get_input_embeddings().weight  # type: ignore[assignment]
    nibbles = sum(value.numel() for value in kept if value.dtype == torch.uint8)
    assert nibbles == sum(m.weight.numel() for m in linear) // 2
    # Zero points are all zero and gone; what is left in int8 is one table for two roles.
    assert sum(value.numel() for value in kept if value.dtype == torch.int8) == table.numel()


def test_a_program_in_full_precision_is_given_back_itself(made: _Made) -> None:
    exported = torch.export.export(torch.nn.Linear(4, 4), (torch.zeros(1, 4),))
    assert backend_quantize_weights.rewrite(exported) is exported


@pytest.mark.parametrize("granularity", [PerAxis(0), PerGroup(8)])
@pytest.mark.parametrize("dtype", [_INT4, torch.int8])
def test_every_format_and_granularity(dtype: torch.dtype, granularity: Any) -> None:
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(16, 5), torch.nn.Tanh(), torch.nn.Linear(5, 3))
    config = IntxWeightOnlyConfig(weight_dtype=dtype, granularity=granularity)
    quantize_(model, config, filter_fn=lambda m, name: name == "0")
    x = torch.randn(2, 16)
    exported = backend_quantize_weights.rewrite(torch.export.export(model, (x,)))
    assert "dequantize" not in str(exported.graph)
    with torch.no_grad():
        assert torch.allclose(exported.module()(x), model(x), atol=1e-6)


def test_zero_points_are_subtracted() -> None:
    from torchao.quantization.quant_primitives import MappingType

    torch.manual_seed(0)
    model = torch.nn.Linear(16, 6)
    with torch.no_grad():
        model.weight.add_(0.5)
    quantize_(
        model,
        IntxWeightOnlyConfig(weight_dtype=_INT4, granularity=PerGroup(8), mapping_type=MappingType.ASYMMETRIC),
    )
    assert cast(Any, model.weight).zero_point.any()
    x = torch.randn(2, 16)
    exported = backend_quantize_weights.rewrite(torch.export.export(model, (x,)))
    with torch.no_grad():
        assert torch.allclose(exported.module()(x), model(x), atol=1e-6)


def test_an_odd_number_of_int4_weights_stays_unpacked() -> None:
    torch.manual_seed(0)
    model = torch.nn.Linear(7, 3)
    quantize_(model, IntxWeightOnlyConfig(weight_dtype=_INT4, granularity=PerAxis(0)))
    x = torch.randn(2, 7)
    exported = backend_quantize_weights.rewrite(torch.export.export(model, (x,)))
    assert not any(value.dtype == torch.uint8 for value in exported.state_dict.values())
    with torch.no_grad():
        assert torch.allclose(exported.module()(x), model(x), atol=1e-6)


def test_pack_is_low_nibble_first() -> None:
    packed = backend_quantize_weights.pack(torch.tensor([[-8, 7], [0, -1]], dtype=torch.int8))
    assert packed.tolist() == [[0xF0], [0x78]]


def test_the_file_is_one_delegate_that_runs_as_the_quantized_model(made: _Made, file: Path) -> None:
    info = pte.read(file)
    assert (info.delegates, set(info.leftover_ops)) == (1, {"aten::copy_"})
    step = runtime.load(file)
    # The second meets the caches that the first left behind.
    for ids in (_ids(5, 300, 17, 5, 80, 2, 11, 200), _ids(33, 1, 90)):
        with torch.no_grad():
            own = made.model(ids, use_cache=False).logits[0]
            full = made.full(ids, use_cache=False).logits[0]
        output = feed(step, ids, [1] * ids.shape[1])
        rounding = (own - full).abs().max()
        assert (output - own).abs().max() < 1e-4 * rounding.clamp(min=0.1)
        assert (output - full).abs().max() > 0.5 * rounding


def test_files_tell_the_device_to_leave_activations_alone() -> None:
    """The delegate's description is masked byte by byte, so ask OpenVINO itself what it compiled."""
    from openvino import Core, Model, opset13

    from exporter import workarounds

    workarounds.openvino_keeps_activations()
    from openvino.frontend.pytorch.torchdynamo import compile as module

    assert module.Core is not Core
    x = opset13.parameter([1, 64])
    model = Model([opset13.matmul(x, opset13.constant(torch.zeros(64, 64).numpy()), False, True)], [x])
    compiled = module.Core().compile_model(model, "CPU")
    assert int(compiled.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE")) == 0
    loaded = Core().import_model(compiled.export_model(), "CPU")
    assert int(loaded.get_property("DYNAMIC_QUANTIZATION_GROUP_SIZE")) == 0


def test_without_nncf_every_precision_is_skipped_with_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    found_by = {"openvino": find_spec("openvino"), "nncf": None}
    monkeypatch.setattr("exporter.backends.openvino.find_spec", found_by.get)
    found = plan(ExportSpec(backends=("openvino",), precisions=("4w-nncf", "8w")))
    assert not found.make
    assert [(cell.precision, cell.status) for cell in found.skipped] == [
        ("4w-nncf", Status.SKIPPED),
        ("8w", Status.SKIPPED),
    ]
    for cell in found.skipped:
        assert re.search(r"the packages nncf are missing.*pip install 'ptebot\[openvino\]'", cell.reason or "")
