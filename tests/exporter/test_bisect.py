"""A fault in one stage is told as a fault of that stage."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from exporter import backends, bisect, cell, checkpoint, lower, parity, pte, runtime, schedule, texts, trace
from exporter.backends import Backend
from exporter.bisect import EAGER, EDGE, EXPORTED, FILE, Limit
from exporter.parity import Reference
from exporter.report import Status
from exporter.schedule import Step
from exporter.spec import ModelRef
from exporter.static_cache import Attention, ExportableModule, use_attention
from exporter.tally import Tally

CONTEXT = 24
LIMIT = Limit(kl_mean=1e-5, difference_over_std=1e-3)


@dataclass
class Made:
    """One cell's stages, all of them right."""

    job: cell.Job
    lowered: lower.Lowered
    path: Path

    @property
    def full(self) -> Reference:
        return self.job.full

    def first_difference(self, **changed: Any) -> str:
        given = {"module": self.job.module, "exported": self.job.exported, "edge": self.lowered.edge, **changed}
        path = given.pop("path", self.path)
        stages = bisect.stages_of(**given, load_file=lambda: runtime.load(path))
        return bisect.first_difference(stages, self.full, "dynamic", LIMIT)


def _make(model_directory: Path, backend: Backend, kind: Attention, path: Path) -> Made:
    ckpt = checkpoint.inspect(model_directory, ModelRef())
    model, tokenizer = checkpoint.load_model(ckpt), checkpoint.load_tokenizer(ckpt)
    full = parity.reference(model, texts.short_texts(tokenizer, CONTEXT), texts.context_end_text(tokenizer, CONTEXT))
    use_attention(model, kind, ckpt.attention)
    module = ExportableModule(model, CONTEXT, kind, ckpt.caches)
    exported = trace.trace(module, "dynamic")
    backend.prepare()
    lowered = lower.lower(exported, backend, precision="fp32", embedding="fp32", metadata={})
    pte.write(lowered.program, path)
    job = cell.Job(
        backend=backend, precision="fp32", embedding="fp32", attention=kind, module=module, exported=exported,
        full=full, quantized=None, vocab_size=ckpt.vocab_size, bos_id=None, eos_ids=[], notes=[],
    )  # fmt: skip
    return Made(job, lowered, path)


@pytest.fixture(scope="module")
def made(_models: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> Made:
    path = tmp_path_factory.mktemp("bisect") / "right.pte"
    return _make(_models("llama", num_hidden_layers=1), backends.get("portable"), "stock", path)


def _spoiled(program: torch.export.ExportedProgram) -> torch.export.ExportedProgram:
    """The same program with one weight doubled; nothing is shared with the original."""
    spoiled = copy.copy(program)
    spoiled._state_dict = dict(program.state_dict)
    name = next(name for name in program.state_dict if "q_proj" in name)
    spoiled._state_dict[name] = torch.nn.Parameter(program.state_dict[name] * 2, requires_grad=False)
    return spoiled


def test_stages_that_are_right_are_all_named_and_none_blamed(made: Made) -> None:
    found = made.first_difference()
    assert found.startswith("none on the first text alone (")
    assert [name for name in (EAGER, EXPORTED, EDGE, FILE) if f"{name}: KL" in found] == [EAGER, EXPORTED, EDGE, FILE]
    assert "cannot be run" not in found


def test_a_fault_of_the_module(made: Made) -> None:
    scale = made.job.module.model.model.layers[0].self_attn
    kept = scale.scaling
    scale.scaling = 2 * kept
    try:
        assert made.first_difference().startswith(f"{EAGER} (")
    finally:
        scale.scaling = kept


def test_a_fault_of_the_trace(made: Made) -> None:
    assert made.first_difference(exported=_spoiled(made.job.exported)).startswith(f"{EXPORTED} (")


def test_a_fault_of_the_lowering(made: Made) -> None:
    assert made.first_difference(edge=_spoiled(made.lowered.edge)).startswith(f"{EDGE} (")


def _corrupted(made: Made, path: Path) -> Path:
    """The file with one weight set to zero among its constants."""
    data = made.path.read_bytes()
    weight = made.job.module.model.model.layers[0].self_attn.q_proj.weight.detach()
    stored = next(w.contiguous().numpy().tobytes() for w in (weight, weight.T) if w.numpy().tobytes() in data)
    path.write_bytes(data.replace(stored, bytes(len(stored))))
    return path


def test_a_fault_of_the_file(made: Made, tmp_path: Path) -> None:
    found = made.first_difference(path=_corrupted(made, tmp_path / "corrupted.pte"))
    assert found.startswith(f"{FILE} ("), found
    assert f"{EDGE}: KL" in found, "what came before is told with its figures"


def test_a_stage_that_cannot_be_run_is_told_and_passed_over(made: Made, tmp_path: Path) -> None:
    (tmp_path / "no.pte").write_bytes(b"no program")
    found = made.first_difference(path=tmp_path / "no.pte")
    assert found.startswith("none on the first text alone (")
    assert f"{FILE}: cannot be run (InvalidPte: " in found


def test_a_cell_whose_file_is_corrupt_fails_at_parity_and_names_the_file(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The whole way of a cell, with a disk that does not keep what it is given."""
    monkeypatch.setattr(lower, "lower", lambda *args, **kwargs: made.lowered)
    monkeypatch.setattr(pte, "write", lambda program, path: _corrupted(made, path))
    monkeypatch.setattr(cell.metadata, "constant_methods", lambda **kwargs: {})
    found = cell.make(made.job, tmp_path, "portable/x.pte", lambda stage, fraction, message: None)
    assert (found.status, found.failed_stage) == (Status.FAILED, "parity")
    assert found.parity is not None
    assert (found.parity.first_difference or "").startswith(f"{FILE} (")
    assert (found.reason or "").startswith("parity bounds are not met: max_difference_over_std is ")
    assert f"the first stage that differs: {FILE} (" in (found.reason or "")
    assert (found.file, found.size_bytes, found.sha256) == (None, None, None)
    assert list((tmp_path / "portable").iterdir()) == [], "a failed cell leaves no file"
    assert "bisect" in found.seconds
    # The same traced program is lowered for the next backend afterwards.
    program = made.job.exported
    caches = [t for name, t in (*program.constants.items(), *program.state_dict.items()) if "_cache_" in name]
    assert len(caches) == 2
    assert not any(cache.any() for cache in caches)


def test_a_cell_with_other_metadata_than_asked_for_fails(
    made: Made, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lower, "lower", lambda *args, **kwargs: made.lowered)
    found = cell.make(made.job, tmp_path, "portable/x.pte", lambda stage, fraction, message: None)
    assert (found.status, found.failed_stage) == (Status.FAILED, "read back")
    assert (found.reason or "").startswith("metadata in the file is {}, wanted {'get_max_seq_len': 24")


def test_delegates_are_executed_by_their_original_graphs(_models: Callable[..., Path], tmp_path: Path) -> None:
    """The edge program of a delegating backend can be bisected too, the runtime's own attention among it."""
    found = _make(_models("llama", num_hidden_layers=1), backends.get("xnnpack"), "custom", tmp_path / "x.pte")
    assert found.lowered.delegated_ops
    said = found.first_difference()
    assert said.startswith("none on the first text alone ("), said
    assert "cannot be run" not in said


def _reference() -> Reference:
    ids = torch.arange(12)[None]
    one, end = (texts.Text(name=name, ids=ids, sha256="") for name in ("one", "end"))
    logits = torch.randn(12, 30, generator=torch.Generator().manual_seed(0))
    return Reference(texts=[one], end=end, logits={"one": logits, "end": logits})


def _giving(logits: torch.Tensor) -> Callable[[], Step]:
    return lambda: lambda ids, position: logits[position].clone()


@pytest.mark.parametrize("policy", ["dynamic", "single"])
@pytest.mark.parametrize(
    ("change", "blamed"),
    [
        (lambda logits: logits, False),
        (lambda logits: logits + 1e-4, False),
        (lambda logits: torch.where(torch.arange(30) == 3, logits + 3e-3, logits), True),
        (lambda logits: logits.roll(1, 0), True),
        (lambda logits: logits * torch.nan, True),
        (lambda logits: torch.where(torch.arange(30) == 3, torch.inf, logits), True),
    ],
)
def test_the_first_stage_beyond_the_limit_is_blamed(
    policy: backends.ShapePolicy, change: Callable[[torch.Tensor], torch.Tensor], blamed: bool
) -> None:
    """Also where the difference is large in one logit and lost in the mean."""
    reference = _reference()
    good = reference.logits["one"]
    stages = [("a", _giving(good)), ("b", _giving(change(good))), ("c", _giving(good.roll(2, 0)))]
    found = bisect.first_difference(stages, reference, policy, LIMIT)
    assert found.startswith("b (" if blamed else "c (")


def test_a_quantized_stage_is_measured_by_what_quantization_costs() -> None:
    """Rounding amplifies the order of sums: a stage is not blamed for less than the file may differ."""
    full = _reference()
    rounded = full.logits["one"] + torch.randn(12, 30, generator=torch.Generator().manual_seed(1))
    quantized = Reference(texts=full.texts, end=full.end, logits={"one": rounded, "end": rounded})
    cost = Tally()
    cost.add(rounded, full.logits["one"], full.texts[0].ids[0, 1:])
    assert cost.kl_mean > 0.2
    assert bisect.limit_of(full, quantized) == Limit(kl_mean=0.25 * cost.kl_mean)
    assert bisect.limit_of(full, full) == Limit(kl_mean=0.25 * 0.01)
    assert bisect.limit_of(full, None) == LIMIT
    assert bisect.limit_of(full, quantized, {"kl_over_cost": 0.1}) == Limit(kl_mean=0.1 * cost.kl_mean)
    assert bisect.limit_of(full, None, {"kl_mean": 1e-9}).kl_mean == 1e-9


def test_chunks_are_fed_where_they_can_be(made: Made) -> None:
    """A fault that shows in a second call only is found."""
    lost: list[int] = []

    def forgets() -> Step:
        def step(ids: torch.Tensor, position: torch.Tensor) -> torch.Tensor:
            lost.append(len(position))
            made.job.module.reset()
            return made.job.module(ids, position)[0]

        return step

    found = bisect.first_difference([("forgets", forgets)], made.full, "dynamic", LIMIT)
    assert found.startswith("forgets (")
    assert lost == schedule.chunks(CONTEXT)
