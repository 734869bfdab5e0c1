"""Whole exports of other architectures than Llama: right beyond sliding windows, with biases, and where the
runtime's attention does not do. Each file is run here by a loop of its own against plain transformers."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from executorch.runtime import Runtime
from transformers import AutoModelForCausalLM

from exporter import backends
from exporter.report import Report, Status
from exporter.run import export
from exporter.spec import ExportSpec
from tests.exporter.conftest import ModelCopy

LENGTH = 40
"""Tokens: beyond twice the fixtures' sliding window of 16."""


ONE = {"num_hidden_layers": 1}
"""Where all layers are of one kind, a second one shows nothing but takes as long again."""


def _export(
    kind: str, model_copy: ModelCopy, tmp_path: Path, config: dict[str, object], **spec: object
) -> tuple[Path, Report]:
    model = model_copy(kind, **config)
    report = export(ExportSpec(max_seq_len=48, **spec), model, tmp_path / "out")  # type: ignore[arg-type]
    assert [(cell.status, cell.reason) for cell in report.cells] == [(Status.RAN, None)] * len(report.cells)
    return model, report


def _difference(model_dir: Path, file: Path, sizes: list[int]) -> float:
    """The largest difference of a logit over the logits' standard deviation, over two prompts in a row."""
    model = AutoModelForCausalLM.from_pretrained(model_dir, dtype=torch.float32).eval()
    method = Runtime.get().load_program(file).load_method("forward")
    assert method is not None
    worst = 0.0
    for seed in (1, 2):
        ids = torch.randint(3, model.config.vocab_size, (1, LENGTH), generator=torch.Generator().manual_seed(seed))
        with torch.no_grad():
            expected = model(ids).logits[0]
        rows, start = [], 0
        for size in sizes:
            inputs = [ids[:, start : start + size].contiguous(), torch.arange(start, start + size)]
            rows.append(method.execute(inputs)[0][0].clone())
            start += size
        worst = max(worst, float((torch.cat(rows) - expected).abs().max() / expected.std()))
    return worst


@pytest.mark.parametrize(
    ("kind", "attention", "config"),
    [
        ("qwen3", "custom", ONE),
        ("mistral", "custom", ONE),
        ("gemma3", "custom", {}),
        ("gemma2", "stock", {}),
        ("phi3", "custom", ONE),
        ("gpt2", "custom", {"n_layer": 1}),
        ("mixtral", "custom", ONE),
    ],
)
def test_xnnpack(kind: str, attention: str, config: dict[str, object], model_copy: ModelCopy, tmp_path: Path) -> None:
    model, report = _export(kind, model_copy, tmp_path, config, backends=("xnnpack",), precisions=("fp32",))
    (cell,) = report.cells
    assert cell.attention == attention
    assert cell.file is not None
    backends.get("xnnpack").prepare()
    assert _difference(model, tmp_path / "out" / cell.file, [7, 1, 1, 20, 11]) < 1e-4


@pytest.mark.parametrize("kind", ["mistral", "gemma3"])
def test_portable_and_openvino_beyond_the_sliding_window(kind: str, model_copy: ModelCopy, tmp_path: Path) -> None:
    config = ONE if kind == "mistral" else {}
    model, report = _export(kind, model_copy, tmp_path, config, backends=("portable", "openvino"), precisions=("fp32",))
    portable, openvino = report.cells
    assert _difference(model, tmp_path / "out" / str(portable.file), [LENGTH]) < 1e-4
    assert _difference(model, tmp_path / "out" / str(openvino.file), [1] * LENGTH) < 1e-4


@pytest.mark.parametrize(("kind", "embedding"), [("qwen2", "8w"), ("llama-untied", "fp32")])
def test_quantized(kind: str, embedding: str, model_copy: ModelCopy, tmp_path: Path) -> None:
    """With biases, and with a token for padding: embedding(weight, ids, 2) would not be fused."""
    spec = {"backends": ("xnnpack",), "precisions": ("8da4w",), "embedding": embedding}
    _, report = _export(kind, model_copy, tmp_path, {**ONE, "pad_token_id": 2}, **spec)
    (cell,) = report.cells
    assert cell.delegation is not None
    fused = "quantized_decomposed::embedding_byte.out" in cell.delegation.leftover_ops
    assert fused == (embedding == "8w")
