"""Any file of the runner's signature against its model: the right one passes, every other is told apart."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import TypeAdapter

from exporter import backends, checkpoint, lower, pte, trace
from exporter import validate as validation
from exporter.errors import ContextTooLong, InvalidCalibration, InvalidPte
from exporter.report import Quality
from exporter.run import Progress
from exporter.spec import ModelRef
from exporter.static_cache import ExportableModule
from exporter.validate import metadata_problems, validate
from tests.exporter.conftest import CONTEXT, ROOT, Exported, ModelCopy, environment


@pytest.mark.parametrize(
    ("backend", "precision", "kind", "policy"),
    [
        ("portable", "fp32", "exact", "dynamic"),
        ("xnnpack", "fp32", "exact", "dynamic"),
        ("openvino", "fp32", "exact", "single"),
        ("xnnpack", "8da4w", "quantized", "dynamic"),
    ],
)
def test_a_file_and_its_model(backend: str, precision: str, kind: str, policy: str, exported: Exported) -> None:
    steps: list[Progress] = []
    found = validate(exported.file(backend, precision), exported.model, steps.append)
    cell = exported.cell(backend, precision)
    assert (found.kind, found.shape_policy, found.max_seq_len) == (kind, policy, CONTEXT)
    assert (found.size_bytes, found.sha256) == (cell.size_bytes, cell.sha256)
    assert found.metadata_problems == []
    assert found.parity is not None
    if kind == "exact":
        assert found.passed, found.reason
        assert found.quality is None
    else:
        # Random weights are quantized badly; what counts is that the figures are those of the export.
        assert found.quality is not None
        assert cell.quality is not None
        assert {"docs", "code"} <= {text.name for text in found.quality.texts}
        assert found.quality.kl_mean == pytest.approx(cell.quality.kl_mean, rel=1e-3)
        assert [text.positions for text in found.quality.texts] == [text.positions for text in cell.quality.texts]
        assert (found.quality.verdict, found.quality.answers) == (cell.quality.verdict, cell.quality.answers)
        assert found.passed is (found.quality.verdict != "damaged")
    fractions = [step.fraction for step in steps]
    assert fractions == sorted(f for f in fractions if f is not None)


def test_a_file_of_another_model_does_not_pass(exported: Exported, _models: Callable[..., Path]) -> None:
    """Same architecture, same sizes, same metadata: only the weights differ."""
    found = validate(exported.file("xnnpack", "fp32"), _models("llama", seed=1))
    assert not found.passed
    assert (found.reason or "").startswith("parity bounds are not met: max_difference_over_std is ")
    assert found.metadata_problems == []
    rounded = validate(exported.file("xnnpack", "8da4w"), _models("llama", seed=1))
    assert not rounded.passed
    assert "damaged" in (rounded.reason or "")


def test_a_model_that_is_refused_is_refused_here_too(exported: Exported, _models: Callable[..., Path]) -> None:
    short = _models("llama", max_position_embeddings=32)
    with pytest.raises(ContextTooLong, match="64 tokens was asked for; the model's own is 32"):
        validate(exported.file("portable", "fp32"), short)


@pytest.fixture(scope="module")
def program(_models: Callable[..., Path]) -> Callable[[dict[str, Any], Path], Path]:
    """A file of the tiny Llama with other constant methods."""
    ckpt = checkpoint.inspect(_models("llama", num_hidden_layers=1), ModelRef())
    exported = trace.trace(ExportableModule(checkpoint.load_model(ckpt), 16, "stock", ckpt.caches), "dynamic")

    def write(metadata: dict[str, Any], path: Path) -> Path:
        lowered = lower.lower(exported, backends.get("portable"), precision="fp32", embedding="fp32", metadata=metadata)
        pte.write(lowered.program, path)
        return path

    return write


def test_wrong_metadata_is_named_and_a_file_without_any_is_run(
    program: Callable[[dict[str, Any], Path], Path], _models: Callable[..., Path], tmp_path: Path
) -> None:
    """Made by other tools, which name things otherwise: its numbers are right all the same."""
    file = program({"get_vocab_size": 400, "get_bos_id": 5}, tmp_path / "x.pte")
    found = validate(file, _models("llama", num_hidden_layers=1))
    assert found.passed, found.reason
    assert found.max_seq_len == 16, "taken from the largest input"
    assert found.metadata_problems == [
        "get_max_seq_len is missing: ExecuTorch's runner refuses the file",
        "get_eos_ids is missing: a runner does not know that [2] end an answer",
        "get_vocab_size is 400; the model's is 384",
        "get_bos_id is 5; the model's is 0",
    ]


def test_the_owners_text_is_judged_on_as_in_an_export(
    program: Callable[[dict[str, Any], Path], Path],
    model_copy: ModelCopy,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, file = model_copy("llama", num_hidden_layers=1), program({"get_max_seq_len": 16}, tmp_path / "x.pte")
    (model / "docs").mkdir()
    (model / "docs" / "own.txt").write_text("The order is 12 rolls.\n\n" * 100, encoding="utf-8")
    monkeypatch.setattr(validation, "_rounds", lambda *given: True)
    found = validate(file, model, own=("docs/own.txt",))
    assert found.quality is not None
    assert [one.name for one in found.quality.texts][:3] == ["docs", "code", "own"]
    assert found.quality.texts[2].positions == 15, "one passage, cut to the context"
    assert found.quality.texts[2].kl_mean < 1e-6, "nothing is rounded here"
    with pytest.raises(InvalidCalibration, match=r"docs/other\.txt is not there"):
        validate(file, model, own=("docs/other.txt",))


def test_metadata_that_fits_has_no_problems(_models: Callable[..., Path]) -> None:
    ckpt = checkpoint.inspect(_models("llama"), ModelRef())
    good = {"get_max_seq_len": 64, "get_vocab_size": 384, "get_eos_ids": [2], "get_bos_id": 0}
    assert metadata_problems(good, ckpt) == []
    assert metadata_problems({**good, "get_eos_ids": [1]}, ckpt) == ["get_eos_ids is [1]; the model's is [2]"]
    nothing = replace(ckpt, eos_ids=(), bos_id=None)
    assert metadata_problems({"get_max_seq_len": 64}, nothing) == []


class _Other(torch.nn.Module):
    def __init__(self, outputs: Callable[..., torch.Tensor]) -> None:
        super().__init__()
        self.outputs = outputs

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        return self.outputs(*inputs)


LONG, FLOAT = torch.long, torch.float32
SIGNATURES: list[tuple[str, tuple[torch.Tensor, ...]]] = [
    ("one input", (torch.zeros(1, 3, dtype=LONG),)),
    ("three inputs", (torch.zeros(1, 3, dtype=LONG), torch.zeros(3, dtype=LONG), torch.zeros(3, dtype=LONG))),
    ("int32 tokens", (torch.zeros(1, 3, dtype=torch.int32), torch.zeros(3, dtype=LONG))),
    ("floating tokens", (torch.zeros(1, 3), torch.zeros(3, dtype=LONG))),
    ("a batch of two", (torch.zeros(2, 3, dtype=LONG), torch.zeros(3, dtype=LONG))),
    ("positions of another length", (torch.zeros(1, 3, dtype=LONG), torch.zeros(1, dtype=LONG))),
    ("positions in rows", (torch.zeros(1, 3, dtype=LONG), torch.zeros(1, 3, dtype=LONG))),
]


@pytest.mark.parametrize("inputs", [row[1] for row in SIGNATURES], ids=[row[0] for row in SIGNATURES])
def test_another_signature_is_refused(inputs: tuple[torch.Tensor, ...], exported: Exported, tmp_path: Path) -> None:
    from executorch.exir import to_edge_transform_and_lower

    module = _Other(lambda *given: sum(tensor.float().sum() for tensor in given))  # type: ignore[arg-type, return-value]
    edge = to_edge_transform_and_lower(torch.export.export(module, inputs))
    pte.write(edge.to_executorch(), tmp_path / "x.pte")
    with pytest.raises(InvalidPte, match=r"input_ids \[1, S\] int64 and cache_position \[S\] int64 are needed"):
        validate(tmp_path / "x.pte", exported.model)


def test_a_file_that_gives_something_else_than_logits_does_not_pass(exported: Exported, tmp_path: Path) -> None:
    """Of the right signature, and of another vocabulary."""
    from executorch.exir import to_edge_transform_and_lower

    length = torch.export.Dim("length", min=1, max=32)
    module = _Other(lambda ids, position: (ids + position)[..., None].float().expand(-1, -1, 7).contiguous())
    example = (torch.zeros(1, 3, dtype=LONG), torch.zeros(3, dtype=LONG))
    program = torch.export.export(module, example, dynamic_shapes=(({1: length}, {0: length}),), strict=False)
    pte.write(to_edge_transform_and_lower(program).to_executorch(), tmp_path / "x.pte")
    with pytest.raises(InvalidPte, match=r"gives \[1, 2, 7\] for 2 tokens; logits \[1, S, 384\] of every token"):
        validate(tmp_path / "x.pte", exported.model)


def _door(*arguments: str) -> tuple[int, list[dict[str, Any]], str]:
    done = subprocess.run(
        [sys.executable, "-m", "exporter.validate", *arguments],
        cwd=ROOT, env=environment(), capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    return done.returncode, [json.loads(line) for line in done.stdout.splitlines()], done.stderr


def test_the_door_says_how_it_went(exported: Exported, _models: Callable[..., Path]) -> None:
    code, lines, log = _door(str(exported.file("openvino", "fp32")), str(_models("llama", seed=1)))
    assert code == 3, log[-2000:]
    assert {line["stage"] for line in lines[:-1]} == {"check", "reference", "parity"}
    assert set(lines[-1]) == {"stage", "validation"}
    assert lines[-1]["stage"] == "result"
    assert lines[-1]["validation"]["passed"] is False
    assert lines[-1]["validation"]["parity"]["passed"] is False
    assert lines[-1]["validation"]["quality"] is None


def test_the_door_says_what_rounding_cost(exported: Exported) -> None:
    code, lines, log = _door(str(exported.file("xnnpack", "8da4w")), str(exported.model))
    found = TypeAdapter(Quality).validate_python(lines[-1]["validation"]["quality"])
    assert code == (3 if found.verdict == "damaged" else 0), log[-2000:]
    assert [line["stage"] for line in lines if line["stage"] == "quality"]
    assert sum(text.positions for text in found.texts) >= 4 * (CONTEXT - 1)
    assert found.kl_p99 is not None
    assert found.kl_mean < found.kl_p99
    assert found.left_out, "of a context so short, some prompts and questions are left out, and it is told"
