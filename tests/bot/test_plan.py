"""Whether there is anything to do, told by content alone."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from bot import plan
from bot.hubapi import TreeFile
from exporter import tokenizer, weights
from exporter.report import Status, dumps, loads
from exporter.spec import ExportSpec, ModelRef
from tests.bot import reports

REPORT = reports.report()


def tree(files: dict[str, bytes], *, large: str = "model.safetensors") -> dict[str, TreeFile]:
    """A Hub's listing of ``files``; ``large`` is in LFS, whose git id is that of a pointer."""
    listed = {}
    for file in reports.source(files):
        lfs = file.path == large
        listed[file.path] = TreeFile(
            path=file.path,
            size_bytes=file.size_bytes,
            oid="f" * 40 if lfs else file.git_oid,
            sha256=file.sha256 if lfs else None,
        )
    return listed


FILES = {**reports.MODEL_FILES, "README.md": b"# Tiny", "pytorch_model.bin": b"pickle", "model.gguf": b"gguf"}


def test_a_published_manifest_covers_its_own_source() -> None:
    spec = ExportSpec(model=ModelRef(repo_id="acme/renamed", revision="9" * 40), rehearse=False)
    assert plan.is_current(REPORT, tree(FILES), spec, reports.TOOLCHAIN)
    assert plan.is_current(REPORT, tree({**FILES, "README.md": b"other"}), spec, reports.TOOLCHAIN)


@pytest.mark.parametrize(
    "files",
    [
        {**FILES, "config.json": b"{}"},
        {**FILES, "model.safetensors": b"other"},
        {name: data for name, data in FILES.items() if name != "tokenizer.json"},
        {**FILES, "generation_config.json": b"{}"},
        {**FILES, "chat_template.jinja": b"{{ messages }}"},
    ],
)
def test_a_source_that_moved_is_not_covered(files: dict[str, bytes]) -> None:
    assert not plan.is_current(REPORT, tree(files), REPORT.spec, reports.TOOLCHAIN)


def test_another_spec_or_toolchain_is_not_covered() -> None:
    here = tree(FILES)
    for spec in (
        replace(REPORT.spec, backends=("xnnpack",)),
        replace(REPORT.spec, precisions=("fp32",)),
        replace(REPORT.spec, bounds={"kl_mean": 1e-6}),
        replace(REPORT.spec, max_seq_len=64),
        replace(REPORT.spec, embedding="fp32"),
        replace(REPORT.spec, attention="stock"),
    ):
        assert not plan.is_current(REPORT, here, spec, reports.TOOLCHAIN)
    assert not plan.is_current(REPORT, here, REPORT.spec, {**reports.TOOLCHAIN, "torch": "2.14.0"})
    assert not plan.is_current(REPORT, here, REPORT.spec, {"executorch": "1.5.1"})
    assert not plan.is_current(replace(REPORT, schema_version=0), here, REPORT.spec, reports.TOOLCHAIN)


def test_a_sharded_model_is_covered_by_its_index_and_shards() -> None:
    shards = {"model-00001-of-00001.safetensors": b"weights", plan.INDEX: b"{}"}
    files = {name: data for name, data in reports.MODEL_FILES.items() if name != "model.safetensors"} | shards
    report = reports.report(files=files)
    assert plan.is_current(report, tree({**files, "consolidated.safetensors": b""}), report.spec, reports.TOOLCHAIN)
    assert not plan.is_current(report, tree({**files, plan.INDEX: b"{ }"}), report.spec, reports.TOOLCHAIN)
    # A whole file beside the shards goes before them.
    assert not plan.is_current(report, tree({**files, plan.WEIGHTS: b"whole"}), report.spec, reports.TOOLCHAIN)


def test_identity_is_blind_to_times_and_keen_on_everything_else() -> None:
    same = reports.report(seconds=9.0, revision="2" * 40, repo_id="other/name")
    assert plan.identity(same) == plan.identity(REPORT)
    reordered = replace(REPORT, cells=list(reversed(REPORT.cells)))
    assert plan.identity(reordered) == plan.identity(REPORT)
    others = [
        reports.report([reports.cell(content=b"other")]),
        reports.report([reports.cell(status=Status.INSPECTED)]),
        reports.report([]),
        reports.report(max_seq_len=64),
        reports.report(files={}),
    ]
    assert len({plan.identity(report) for report in [REPORT, *others]}) == 1 + len(others)


def test_the_files_that_count_are_those_that_the_exporter_reads() -> None:
    everything = {*plan.SMALL_FILES, plan.WEIGHTS, "README.md", "pytorch_model.bin"}
    read = {*tokenizer.names(dict.fromkeys(everything)), "config.json", "generation_config.json", weights.INDEX}  # type: ignore[arg-type]
    assert set(plan.SMALL_FILES) == read
    assert (plan.WEIGHTS, plan.INDEX) == (weights.SINGLE, weights.INDEX)
    assert set(tokenizer.VOCABULARIES) <= set(plan.SMALL_FILES)


def test_a_calibration_text_that_changed_is_a_reason_to_export_again() -> None:
    spec = replace(REPORT.spec, calibration=("docs/use.txt",))
    files = {**reports.MODEL_FILES, "docs/use.txt": b"what it is used for"}
    made = reports.report(files=files)
    made = replace(made, spec=spec)
    assert plan.is_current(made, tree(files), spec, reports.TOOLCHAIN)
    assert not plan.is_current(made, tree({**files, "docs/use.txt": b"other"}), spec, reports.TOOLCHAIN)
    assert not plan.is_current(made, tree(FILES), spec, reports.TOOLCHAIN)
    assert not plan.is_current(REPORT, tree(files), spec, reports.TOOLCHAIN)
    # Whoever publishes lists no folders: the model is what must not have moved meanwhile.
    assert plan.moved(plan.model_files(made), tree(FILES)) == []
    weights = replace(made, spec=replace(spec, calibration=("model.safetensors", "config.json", "docs/use.txt")))
    assert {file.path for file in plan.model_files(weights)} >= {"model.safetensors", "config.json"}


def test_a_manifest_of_an_earlier_version_is_read_and_compared() -> None:
    data = json.loads(dumps(REPORT))
    for name in ("cache", "max_kl", "max_size", "calibration"):
        del data["spec"][name]
    for cell in data["cells"]:
        for name in ("cache", "exit_code", "quantization"):
            del cell[name]
        if cell["quality"]:
            for name in ("kl_p99", "texts", "answers"):
                del cell["quality"][name]
    earlier = loads(json.dumps(data))
    assert plan.is_current(earlier, tree(FILES), REPORT.spec, reports.TOOLCHAIN)
    assert not plan.is_current(earlier, tree(FILES), replace(REPORT.spec, cache="int8"), reports.TOOLCHAIN)
    assert plan.identity(earlier) == plan.identity(REPORT)
