"""What a rebuild says about inputs, versions and files."""

from __future__ import annotations

from dataclasses import replace

from bot import rebuild
from exporter.report import Status
from tests.bot.reports import cell, failed, report, source


def test_the_same_again_is_no_difference() -> None:
    assert rebuild.files(report(), report(seconds=9.0)) == []
    assert rebuild.Differences(versions=["version of torch: it was 1, it is 2"]).match


def test_inputs() -> None:
    then = source({"config.json": b"{}", "model.safetensors": b"w", "tokenizer.json": b"t"})
    now: dict[str, str | None] = {file.path: file.sha256 for file in then}
    assert rebuild.inputs(then, now) == []
    changed, gone = rebuild.inputs(then, {**now, "config.json": "f" * 64, "tokenizer.json": None})
    assert changed.startswith("input config.json: it was sha256 ")
    assert changed.endswith("it is sha256 ffffffffffff")
    assert gone.startswith("input tokenizer.json: it is missing")


def test_versions() -> None:
    assert rebuild.versions({"a": "1", "b": "1"}, {"b": "1", "a": "1"}) == []
    assert rebuild.versions({"a": "1", "b": "1"}, {"a": "2", "c": "1"}) == [
        "version of a: it was 1, it is 2",
        "version of b: it was 1, it is not there",
        "version of c: it was not there, it is 1",
    ]


def test_files() -> None:
    then = report([cell("portable"), cell("xnnpack"), cell("xnnpack", "8da4w"), failed("openvino")])
    now = report([cell("portable", content=b"other"), failed("xnnpack", "fp32")])
    found = rebuild.files(then, now)
    assert [line.partition(":")[0] for line in found] == [
        "file portable/tiny_portable_fp32.pte",
        "file xnnpack/tiny_xnnpack_fp32.pte",
        "file xnnpack/tiny_xnnpack_8da4w.pte",
    ]
    assert "(5 bytes)" in found[0]
    assert "it is failed: the compiler gave up" in found[1]
    assert "it was not made" in found[2]


def test_the_same_bytes_that_do_not_pass_any_more_are_a_difference() -> None:
    worse = replace(cell("portable"), status=Status.FAILED, reason="parity")
    assert "is failed: parity" in rebuild.files(report([cell("portable")]), report([worse]))[0]
