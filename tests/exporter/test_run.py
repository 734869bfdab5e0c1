"""What an export says of itself, against what it left on disk: one export of every backend and precision."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from exporter import backends, bounds, checkpoint, metadata, pte, report
from exporter.report import Cell, Status
from exporter.spec import ModelRef
from tests.exporter.conftest import CONTEXT, Exported, environment

GOOD = [("portable", "fp32"), ("portable", "8da4w"), ("xnnpack", "fp32"), ("xnnpack", "8da4w"), ("openvino", "fp32")]
each_file = pytest.mark.parametrize(("backend", "precision"), GOOD)


def _raw(exported: Exported) -> dict[str, Any]:
    data: dict[str, Any] = json.loads((exported.out / "report.json").read_text(encoding="utf-8"))
    return data


def test_every_cell_is_there_and_says_how_it_went(exported: Exported) -> None:
    assert exported.exit_code == 0, exported.log[-2000:]
    cells = {(c.backend, c.precision): c for c in exported.report.cells}
    assert list(cells) == [(b, p) for b in ("portable", "xnnpack", "openvino") for p in ("fp32", "8da4w")]
    assert {key for key, cell in cells.items() if cell.status is Status.RAN} == set(GOOD)
    skipped = cells["openvino", "8da4w"]
    assert skipped.status is Status.SKIPPED
    assert skipped.reason == "openvino does not take 8da4w; it takes: fp32, 8w, 4w, 4w-nncf"
    assert skipped.file is None


def test_the_report_fits_its_schema(exported: Exported) -> None:
    schema = report.json_schema()
    jsonschema.Draft202012Validator.check_schema(schema)
    validator = jsonschema.Draft202012Validator(schema)
    validator.validate(_raw(exported))
    spoiled = _raw(exported)
    spoiled["cells"][0]["status"] = "perfect"
    assert not validator.is_valid(spoiled), "the schema does say something"
    assert report.loads(report.dumps(exported.report)) == exported.report


def test_nothing_is_there_but_the_report_and_its_files(exported: Exported) -> None:
    found = {path.relative_to(exported.out).as_posix() for path in exported.out.rglob("*") if path.is_file()}
    assert found == {"report.json"} | {f"{b}/tiny_{b}_{p}.pte" for b, p in GOOD}
    assert {path.name for path in exported.out.iterdir()} == {"report.json", "portable", "xnnpack", "openvino"}
    assert not [p for p in exported.out.parent.iterdir() if p.name.endswith(".partial")], "no staging directory"
    assert exported.out.stat().st_mode & 0o777 == 0o755


@each_file
def test_sizes_and_hashes_are_those_on_disk(backend: str, precision: str, exported: Exported) -> None:
    cell, data = exported.cell(backend, precision), exported.file(backend, precision).read_bytes()
    assert cell.file == f"{backend}/tiny_{backend}_{precision}.pte"
    assert cell.size_bytes == len(data)
    assert cell.sha256 == hashlib.sha256(data).hexdigest()


@each_file
def test_metadata_read_back_is_what_the_runner_needs(backend: str, precision: str, exported: Exported) -> None:
    cell = exported.cell(backend, precision)
    ckpt = checkpoint.inspect(exported.model, ModelRef())
    wanted = metadata.constant_methods(
        max_seq_len=CONTEXT,
        vocab_size=ckpt.vocab_size,
        bos_id=ckpt.bos_id,
        eos_ids=list(ckpt.eos_ids),
        shape_policy="single" if backend == "openvino" else "dynamic",
        attention="custom" if backend == "xnnpack" else "stock",
    )
    assert cell.metadata == wanted
    assert {"get_max_seq_len", "get_max_context_len", "get_vocab_size", "get_bos_id", "use_kv_cache"} <= set(wanted)
    assert cell.metadata["get_eos_ids"] == [2]
    assert cell.metadata["enable_dynamic_shape"] is (backend != "openvino")
    assert cell.metadata["use_sdpa_with_kv_cache"] is (backend == "xnnpack")
    assert cell.methods == ["forward"]
    assert (cell.shape_policy, cell.attention) == (
        "single" if backend == "openvino" else "dynamic",
        "custom" if backend == "xnnpack" else "stock",
    )


@each_file
def test_every_figure_stands_beside_its_bound(backend: str, precision: str, exported: Exported) -> None:
    cell = exported.cell(backend, precision)
    assert cell.parity is not None
    kind = "exact" if precision == "fp32" else "quantized"
    against = [bounds.FULL] if kind == "exact" else [bounds.QUANTIZED, bounds.FULL]
    assert [comparison.against for comparison in cell.parity.comparisons] == against
    stated = {}
    for comparison in cell.parity.comparisons:
        for figure in comparison.figures:
            assert figure.passed, figure
            assert figure.reason
            if figure.bound is not None:
                stated[comparison.against, figure.name] = (figure.relation, figure.bound)
                assert figure.value <= figure.bound if figure.relation == "<=" else figure.value >= figure.bound
    table = {(b.against, b.name): (b.relation, b.value) for b in bounds.BOUNDS if b.kind == kind}
    assert stated == table, "no bound of the table is left out, and none is invented"
    assert cell.parity.passed
    assert cell.parity.first_difference is None


@each_file
def test_every_text_and_schedule_was_run(backend: str, precision: str, exported: Exported) -> None:
    parity = exported.cell(backend, precision).parity
    assert parity is not None
    assert [text.name for text in parity.texts] == ["prose", "chat", "code", "scripts", "context end"]
    assert all(2 <= text.tokens <= CONTEXT for text in parity.texts)
    assert parity.texts[-1].tokens == CONTEXT, "the last position of the context is reached"
    several = {"prefill", "chunks", "decode", "context end", "replay"}
    assert set(parity.schedules) == (several if backend != "openvino" else {"decode", "context end", "replay"})
    whole = sum(text.tokens for text in parity.texts[:-1])
    runs = 3 if backend != "openvino" else 1
    assert parity.positions == runs * whole + CONTEXT + parity.texts[0].tokens


def test_xnnpack_holds_all_matrix_products(exported: Exported) -> None:
    layers = 2
    for precision in ("fp32", "8da4w"):
        delegation = exported.cell("xnnpack", precision).delegation
        assert delegation is not None
        assert delegation.delegates >= 2
        assert delegation.delegate_ids == ["XnnpackBackend"]
        left = delegation.leftover_ops
        assert not [op for op in left if any(word in op for word in ("mm", "linear", "matmul", "softmax", "index"))]
        assert left["llama::custom_sdpa.out"] == layers
        assert left["llama::update_cache.out"] == 2 * layers
        assert sum(count for op, count in delegation.delegated_ops.items() if "linear" in op) == 7 * layers + 1
    assert "quantized_decomposed::embedding_byte.out" in left, "the table stays in int8, one row is widened a token"


def test_portable_needs_core_ops_only(exported: Exported) -> None:
    for precision in ("fp32", "8da4w"):
        delegation = exported.cell("portable", precision).delegation
        assert delegation is not None
        assert delegation.delegates == 0
        assert delegation.delegated_ops == {}
        spaces = {op.partition("::")[0] for op in delegation.leftover_ops}
        assert spaces <= {"aten", "dim_order_ops", "executorch_prim"}


def test_openvino_is_one_delegate(exported: Exported) -> None:
    delegation = exported.cell("openvino", "fp32").delegation
    assert delegation is not None
    assert (delegation.delegates, delegation.delegate_ids) == (1, ["OpenvinoBackend"])
    assert set(delegation.leftover_ops) <= {"aten::copy_"}
    assert delegation.delegated_ops


def test_portable_files_run_where_there_is_nothing_but_the_runtime(exported: Exported) -> None:
    """A process that imports executorch.runtime alone: no library of ops beside the portable kernels."""
    code = """
import sys, torch
from executorch.runtime import Runtime
runtime = Runtime.get()
assert not [name for name in runtime.operator_registry.operator_names if name.startswith("llama::")]
try:
    runtime.load_program(sys.argv[1]).load_method("forward")
except RuntimeError:
    pass
else:
    sys.exit("a file that needs such a library loads: this process has one")
for path in sys.argv[2:]:
    method = runtime.load_program(path).load_method("forward")
    out = method.execute([torch.arange(7).reshape(1, 7), torch.arange(7)])[0]
    assert out.shape == (1, 7, 384) and out.isfinite().all()
"""
    wanted = [("xnnpack", "fp32"), ("portable", "fp32"), ("portable", "8da4w")]
    files = [str(exported.file(*cell)) for cell in wanted]
    command = [sys.executable, "-c", code, *files]
    done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_table_that_is_stored_twice_is_told(exported: Exported) -> None:
    table = 384 * 64 * 4
    parameters = exported.report.model.parameters * 4
    assert exported.report.model.tied_embedding
    for backend in ("portable", "xnnpack", "openvino"):
        cell = exported.cell(backend, "fp32")
        assert cell.size_bytes is not None
        told = any("stored twice" in note for note in cell.notes)
        assert told is (cell.size_bytes > parameters + 0.9 * table), f"{backend}: {cell.size_bytes}"
    assert not any("stored twice" in note for note in exported.cell("portable", "fp32").notes), "constants are shared"
    for backend in ("portable", "xnnpack"):
        assert any("untied" in note for note in exported.cell(backend, "8da4w").notes)


def test_quantized_files_are_smaller_and_graded(exported: Exported) -> None:
    for backend in ("portable", "xnnpack"):
        exact, rounded = exported.cell(backend, "fp32"), exported.cell(backend, "8da4w")
        assert rounded.size_bytes < exact.size_bytes  # type: ignore[operator]
        assert exact.quality is None
        assert rounded.quality is not None
        grade = bounds.grade(rounded.quality.kl_mean, rounded.quality.top1_agreement)
        assert (rounded.quality.verdict, rounded.quality.words) == (grade.verdict, grade.words)
    # Linear layers of 2 layers and the output in half a byte and a scale in 32, the table in one byte and a scale.
    assert exported.cell("xnnpack", "8da4w").size_bytes < 150_000  # type: ignore[operator]


def test_where_files_need_a_hint_their_cells_give_it(exported: Exported) -> None:
    assert any("ONEDNN_MAX_CPU_ISA" in note for note in exported.cell("openvino", "fp32").notes)


def test_facts_about_model_machine_and_tools(exported: Exported) -> None:
    found = exported.report
    assert found.schema_version == report.SCHEMA_VERSION
    assert found.generator.startswith("ptebot ")
    assert found.max_seq_len == CONTEXT
    assert (found.model.name, found.model.repo_id, found.model.revision) == ("tiny", None, None)
    assert (found.model.architecture, found.model.model_type) == ("LlamaForCausalLM", "llama")
    assert found.model.parameters == sum(
        p.numel() for p in checkpoint.load_model(checkpoint.inspect(exported.model, ModelRef())).parameters()
    )
    by_name = {file.path: file for file in found.model.files}
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= set(by_name)
    for name, file in by_name.items():
        data = (exported.model / name).read_bytes()
        assert (file.size_bytes, file.sha256) == (len(data), hashlib.sha256(data).hexdigest())
        assert file.git_oid == hashlib.sha1(b"blob %d\0" % len(data) + data).hexdigest()  # noqa: S324 (git's own)
    assert {"ptebot", "python", "torch", "transformers", "executorch", "torchao", "openvino"} <= set(found.toolchain)
    assert found.host.logical_cpus >= 1
    assert found.host.memory_bytes > 1 << 30
    assert found.host.cpu


def test_times_and_memory_are_of_this_run(exported: Exported) -> None:
    found = exported.report
    stages = found.seconds
    assert {"load", "reference", "quantize fp32", "quantize 8da4w", "reference 8da4w", "total"} <= set(stages)
    traces = sorted(name for name in stages if name.startswith("trace "))
    # One trace per precision, shape policy and kind of attention, never one per backend.
    assert traces == [
        "trace 8da4w dynamic custom",
        "trace 8da4w dynamic stock",
        "trace fp32 dynamic custom",
        "trace fp32 dynamic stock",
        "trace fp32 single stock",
    ]
    spent = sum(value for name, value in stages.items() if name != "total")
    for backend, precision in GOOD:
        cell = exported.cell(backend, precision)
        judged = {"quality"} if cell.precision != "fp32" else set()
        assert set(cell.seconds) == {"lower", "write", "read back", "parity"} | judged
        assert cell.seconds["lower"] > 0
        assert 100 << 20 < (cell.peak_rss_bytes or 0) <= found.peak_rss_bytes
        spent += sum(cell.seconds.values())
    assert 0.5 * stages["total"] < spent <= stages["total"] * 1.01


def test_the_words_of_a_cell_name_its_backend(exported: Exported) -> None:
    cells: list[Cell] = exported.report.cells
    assert {c.title for c in cells if c.status.good} == {backends.get(name).title for name in backends.TABLE}


def test_nothing_of_this_machine_is_in_a_file(exported: Exported) -> None:
    """Paths and user names do not travel with what is published."""
    for path in exported.out.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for secret in (str(exported.model), str(Path(__file__).parents[2]), "site-packages"):
                assert secret.encode() not in data, f"{path.name} holds {secret}"


@each_file
def test_reading_a_file_again_gives_what_the_report_says(backend: str, precision: str, exported: Exported) -> None:
    cell, path = exported.cell(backend, precision), exported.file(backend, precision)
    backends.get(backend).prepare()
    info = pte.read(path)
    assert cell.delegation is not None
    assert (info.size_bytes, info.sha256, info.metadata) == (cell.size_bytes, cell.sha256, cell.metadata)
    assert (info.delegates, info.leftover_ops) == (cell.delegation.delegates, cell.delegation.leftover_ops)
    limit = 1 if backend == "openvino" else CONTEXT
    assert [item["sizes"] for item in info.inputs] == [[1, limit], [limit]]
    assert sum(info.bytes_by_part.values()) == info.size_bytes
