"""The section: what it says of good, poor and missing files, and that nothing in it comes alive."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from markdown_it import MarkdownIt

from bot.publish import card, message, quality, words
from bot.publish.marker import parse
from bot.publish.places import OnTheHub
from bot.publish.splice import BEGIN, END, current_section, splice
from exporter.report import Report, Status
from tests.bot import markdown, reports

COMMAND = "ptebot run acme/tiny"
GFM = MarkdownIt("gfm-like", {"linkify": False})


def section(report: Report) -> str:
    return card.section(report, command=COMMAND, place=OnTheHub("acme/tiny"))


def rows(text: str) -> list[list[str]]:
    """Cells of the first table's rows."""
    return markdown.tables(text)[0][1:]


def test_each_file_has_its_row() -> None:
    table = rows(section(reports.report()))
    assert [row[2] for row in table] == [
        "[`tiny_portable_fp32.pte`](executorch/portable/tiny_portable_fp32.pte)",
        "[`tiny_xnnpack_fp32.pte`](executorch/xnnpack/tiny_xnnpack_fp32.pte)",
        "[`tiny_xnnpack_8da4w.pte`](executorch/xnnpack/tiny_xnnpack_8da4w.pte)",
    ]
    assert table[0][3:7] == [
        "21 bytes",
        "exact",
        "no delegate, 0 ops left",
        "matches the original in full precision: max difference 1.1e-05 (bound ≤ 0.001)",
    ]
    assert table[2][4:] == [
        "quantization costs little (KL 0.55)",
        "14 delegates, 5 ops left",
        "matches its quantized reference: mean KL 0.0002 (bound ≤ 0.01)",
        "ran on the ExecuTorch runtime, every bound met",
    ]


def test_the_section_stands_between_markers_and_survives_a_card() -> None:
    text = section(reports.report())
    assert text.startswith(f"{BEGIN}\n") and text.endswith(f"{END}\n")
    assert current_section(splice(b"# Tiny\n", text)) == text.rstrip("\n")


def test_two_exports_that_differ_in_times_have_one_section() -> None:
    assert section(reports.report(seconds=1.0)) == section(reports.report(seconds=99.0))


def test_a_damaged_file_is_not_called_good() -> None:
    cells = [reports.cell("xnnpack"), reports.cell("xnnpack", "8da4w", verdict="damaged", content=b"small")]
    text = section(reports.report(cells))
    assert rows(text)[1][4].startswith("**damaged by quantization**")
    assert "Quantization damaged this model: do not ship this file." in text
    assert "Start with `executorch/xnnpack/tiny_xnnpack_fp32.pte`" in text
    only = section(reports.report(cells[1:]))
    assert "Start with" not in only and "No file here is recommended" in only
    description = message.pr_description(reports.report(cells))
    assert "**Quantization damaged a file here.**" in description and "do not ship this file" in description


@pytest.mark.parametrize("verdict", ["faithful", "degraded", "damaged", "unheard-of"])
def test_every_verdict_has_words(verdict: str) -> None:
    cell = reports.cell("xnnpack", "8da4w", quality=replace(reports.quality(), verdict=verdict))
    told = rows(section(reports.report([cell])))[0][4]
    assert re.fullmatch(r".{10,} \(KL 0\.55\)", told) and told.isprintable()


def test_the_smallest_sound_file_is_recommended() -> None:
    small = reports.cell("xnnpack", "8da4w", content=b"s")
    assert words.recommended(reports.report([reports.cell("portable"), reports.cell("xnnpack"), small])) == small
    assert words.recommended(reports.report([reports.cell("openvino"), reports.cell("portable")])).backend == "portable"
    assert words.recommended(reports.report([reports.failed()])) is None


def test_cells_without_a_file_are_told_with_their_reasons() -> None:
    missing = [
        reports.failed(reason="ran out\nof <b>luck</b>"),
        reports.failed("qnn", status=Status.SKIPPED, failed_stage=None, reason="no SDK here"),
        reports.failed("vulkan", reason=None),
    ]
    for text in (section(reports.report([reports.cell(), *missing])), message.pr_description(reports.report(missing))):
        assert "- `openvino` `fp32`: failed at stage lower: ran out of &#60;b&#62;luck&#60;/b&#62;" in text
        assert "- `qnn` `fp32`: skipped: no SDK here" in text
        assert "- `vulkan` `fp32`: failed at stage lower: no reason was given" in text


def test_a_file_that_did_not_run_is_not_said_to_have_run() -> None:
    text = section(reports.report([reports.cell(), reports.cell("coreml", status=Status.INTERPRETED)]))
    assert "Each file below was run" not in text
    assert "independent interpreter" in rows(text)[1][-1]


def test_the_snippet_is_python_that_loads_what_the_file_needs() -> None:
    delegation = reports.cell().delegation
    assert delegation is not None
    ops = {"llama::update_cache.out": 2, "quantized_decomposed::embedding_byte.out": 1}
    cell = reports.cell(delegation=replace(delegation, leftover_ops=ops))
    snippet = card.python_snippet(cell, reports.report(), OnTheHub("acme/tiny"), "1.5.1")
    compile(snippet, "card", "exec")
    assert "import executorch.extension.llm.custom_ops.custom_ops" in snippet
    assert "import executorch.kernels.quantized" in snippet
    assert 'repo = "acme/tiny"' in snippet and '"executorch/xnnpack/tiny_xnnpack_fp32.pte"' in snippet
    portable = card.python_snippet(reports.cell("portable"), reports.report(), OnTheHub(None), "1.5.1")
    assert "custom_ops" not in portable and 'repo = "OWNER/NAME"' in portable
    openvino = card.python_snippet(reports.cell("openvino"), reports.report(), OnTheHub(None), "1.5.1")
    assert "pip install executorch==1.5.1 openvino==2025.4.1 " in openvino


def test_the_runtime_version_stands_wherever_a_version_is_needed() -> None:
    text = section(reports.report())
    for part in ("executorch==1.5.1", "executorch-android:1.5.1", "swiftpm-1.5.1", "ExecuTorch `v1.5.1`"):
        assert part in text
    assert "executorch/1.5/llm/run-on-android.html" in text
    without = section(reports.report(toolchain={"executorch": "<b>1</b>"}))
    assert "<b>" not in without and "In Python" not in without


def test_limits_name_the_context_and_the_one_token_backends() -> None:
    text = section(reports.report([reports.cell("openvino"), reports.cell("xnnpack", "8da4w")], max_seq_len=2048))
    assert "Context: 2,048 tokens" in text
    assert "One token per call" in text and "`openvino`" in text.split("One token per call")[1]
    assert "Quantized files answer differently" in text
    assert "One token" not in section(reports.report([reports.cell()]))


EVIL = "x`|<img src=x onerror=alert(1)>\n\n<!-- ptebot:end -->\n# pwned @all [a](javascript:b) ![c](http://d.example/e)"


def test_nothing_from_the_report_comes_alive() -> None:
    bad = reports.cell(
        EVIL, EVIL, title=EVIL, file=f"{EVIL}/a.pte", notes=[EVIL], quality=replace(reports.quality(), words=EVIL)
    )
    worse = replace(bad, title=None, quality=replace(reports.quality(), verdict=EVIL))
    report = reports.report([bad, worse, reports.failed(EVIL, EVIL, reason=EVIL, failed_stage=EVIL)], revision=EVIL)
    report = replace(report, generator=EVIL, toolchain={EVIL: EVIL, "executorch": "1.5.1"})
    report = replace(report, model=replace(report.model, name=EVIL))
    text = card.section(report, command=f"ptebot run {EVIL}", place=OnTheHub(EVIL))
    assert current_section(splice(b"# T\n", text)) == text.rstrip("\n")
    for source in (text, message.pr_description(report)):
        rendered = GFM.render(source)
        assert re.findall(r"<img[^>]*>", rendered) in ([], [f'<img src="{quality.PLOT}" alt="{quality.ALT}" />'])
        assert not re.search(r"<h1|href=\"javascript|<a href=\"http://d", rendered)
        assert [len(table) for table in markdown.tables(source)] == [3, 4]
        assert all(len(row) == len(table[0]) for table in markdown.tables(source) for row in table)
    assert parse(message.pr_description(report)) == message.marker_of(report)
    assert len(message.pr_title(report)) <= 200 and "\n" not in message.pr_title(report)


def test_title_and_description() -> None:
    report = reports.report([reports.cell(), reports.cell("xnnpack", "8da4w"), reports.cell("portable")])
    assert message.pr_title(report) == "Add ExecuTorch files: xnnpack, portable (fp32, 8da4w)"
    text = message.pr_description(report)
    assert text.startswith("<!-- ptebot:pull-request source=")
    assert reports.SHA in text and "executorch/xnnpack/tiny_xnnpack_8da4w.pte" in text
    assert "](executorch/" not in text


@pytest.mark.parametrize("cells", [100, 1000])
def test_a_description_never_exceeds_what_the_hub_takes(cells: int) -> None:
    many = [reports.cell(f"backend{i}", notes=["n" * 400]) for i in range(cells)]
    many += [reports.cell(f"q{i}", "8da4w", verdict="degraded") for i in range(cells)]
    report = reports.report(many)
    text = message.pr_description(report)
    assert len(text) <= 65_536
    assert parse(text) == message.marker_of(report)
    assert len(message.pr_title(report)) <= 200
