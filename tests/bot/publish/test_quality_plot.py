"""The plot of size against KL: where marks stand, and that the file is plain XML whatever a report says."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import Any
from xml.etree import ElementTree

import pytest

from bot.publish import quality_plot, quality_svg
from bot.publish.quality_plot import LEFT, NAME_HEIGHT, RIGHT, TOP, Scatter, scatter
from exporter.report import Cell, Quantization, Report, SourceFile, Tried
from tests.bot import reports

SVG = "{http://www.w3.org/2000/svg}"
DRAWN = {"svg", "title", "desc", "style", "rect", "line", "text", "tspan", "polyline", "polygon", "circle"}


def lossy(kl_mean: float, size_bytes: int, precision: str = "8da4w", verdict: str = "faithful", **fields: Any) -> Cell:
    quality = replace(reports.quality(), kl_mean=kl_mean, verdict=verdict)
    return reports.cell("xnnpack", precision, size_bytes=size_bytes, quality=quality, **fields)


def drawn(report: Report) -> Scatter:
    found = scatter(report)
    assert found is not None
    return found


def parsed(plot: Scatter) -> ElementTree.Element:
    return ElementTree.fromstring(quality_svg.document(plot))  # noqa: S314 - we wrote it


def test_larger_stands_further_right_and_worse_further_up() -> None:
    plot = drawn(reports.speaking())
    assert [mark.name for mark in plot.marks][:3] == ["the original", "xnnpack fp32", "portable fp32"]
    assert len(plot.marks) == 8
    for before, after in pairwise(sorted(plot.marks, key=lambda mark: mark.size_bytes)):
        assert before.x <= after.x
    for before, after in pairwise(sorted(plot.marks, key=lambda mark: mark.kl)):
        assert before.y >= after.y
    by_name = {mark.name: mark for mark in plot.marks}
    small, large = by_name["xnnpack 8da4w"], by_name["xnnpack 8da8w"]
    assert small.x < large.x and small.y < large.y, "not only in order, but apart"
    assert all(LEFT < mark.x < RIGHT and TOP <= mark.y <= plot.height for mark in plot.marks)


def test_a_tenth_of_the_kl_is_as_far_everywhere() -> None:
    plot = drawn(reports.report([lossy(kl, 1000 + number) for number, kl in enumerate((1.0, 0.1, 0.01))]))
    heights = [mark.y for mark in plot.marks if mark.tone != "exact"]
    assert heights[1] - heights[0] == pytest.approx(heights[2] - heights[1]) and heights[1] > heights[0]
    at = {label: y for y, label in plot.y_ticks}
    assert heights == [at["1"], at["0.1"], at["0.01"]]


def test_what_costs_nothing_has_a_line_of_its_own() -> None:
    plot = drawn(reports.report([lossy(0.0, 500), lossy(0.3, 400, "4w"), reports.cell(size_bytes=900)]))
    none = [mark for mark in plot.marks if mark.y == plot.zero_y]
    assert [mark.name for mark in none] == ["the original", "xnnpack 8da4w", "xnnpack fp32"]
    assert plot.zero_y is not None and plot.zero_y > plot.bottom
    without = reports.report([lossy(0.1, 500), lossy(0.3, 400, "4w")], files={})
    assert drawn(without).zero_y is None


def test_names_never_lie_over_each_other() -> None:
    crowd = [lossy(0.1, 1000, f"p{number}") for number in range(40)]
    plot = drawn(reports.report(crowd))
    places = sorted(mark.name_y for mark in plot.marks)
    assert all(after - before >= NAME_HEIGHT - 0.11 for before, after in pairwise(places))
    assert places[0] >= TOP and places[-1] < plot.height
    assert len(plot.marks) == 1 + quality_plot.MOST_FILES and plot.left_out == 40 - quality_plot.MOST_FILES
    assert "16 more in the manifest" in "".join(parsed(plot).itertext())


@pytest.mark.parametrize(
    "cells",
    [
        [],
        [reports.cell(), reports.cell("portable")],
        [reports.failed()],
        [lossy(math.nan, 100)],
        [lossy(math.inf, 100)],
        [lossy(0.1, 0)],
        [lossy(0.1, -5)],
        [lossy(0.1, 10**400)],
        [lossy(0.1, 100, file=None, status=reports.Status.FAILED)],
        [reports.cell("xnnpack", "8da4w", quality=None)],
    ],
)
def test_nothing_to_compare(cells: list[Cell]) -> None:
    assert scatter(reports.report(cells)) is None


def test_one_file_beside_the_original_is_a_comparison() -> None:
    one = [lossy(0.1, 100)]
    assert [mark.name for mark in drawn(reports.report(one)).marks] == ["the original", "xnnpack 8da4w"]
    assert scatter(reports.report(one, files={"config.json": b"{}"})) is None
    assert len(drawn(reports.report([*one, lossy(0.2, 90)], files={"config.json": b"{}"})).marks) == 2


@pytest.mark.parametrize(
    ("kls", "sizes"),
    [
        ((1e-300, 1e300), (1, 2)),
        ((5e-324, 0.5), (1, 1 << 61)),
        ((-1e-9, 0.1), (10**9, 10**9)),
        ((0.05, 0.05), (94_000_000, 94_000_001)),
        ((1.0, 1.0), (7, 7)),
        ((1e-6, 1e-6), (1, 10)),
    ],
)
def test_extremes_stay_within_the_drawing(kls: tuple[float, float], sizes: tuple[int, int]) -> None:
    cells = [lossy(kl, size) for kl, size in zip(kls, sizes, strict=True)]
    plot = drawn(reports.report(cells))
    for mark in plot.marks:
        assert LEFT <= mark.x <= RIGHT and TOP <= mark.y <= plot.height and TOP <= mark.name_y <= plot.height
    assert all(LEFT <= x <= RIGHT for x, _ in plot.x_ticks) and all(TOP <= y <= plot.bottom for y, _ in plot.y_ticks)
    assert 2 <= len(plot.y_ticks) <= 9 and len(plot.x_ticks) <= 7
    assert not re.search(r'="[^"]*(nan|inf)', quality_svg.document(plot).decode())


def test_what_auto_tried_stands_behind_the_files() -> None:
    plot = drawn(reports.speaking())
    assert len(plot.tried) == len(reports.TRIED) and [mark.chosen for mark in plot.tried] == [False, False, True, False]
    assert [mark.x for mark in plot.tried] == sorted(mark.x for mark in plot.tried)
    circles = [one.get("r") for one in parsed(plot).iter(f"{SVG}circle") if one.get("class") == "tried"]
    assert circles.count("10") == 1 and circles.count("3") == len(reports.TRIED) + 1, "the chosen one, and the legend's"
    many = [Tried(what="w", size_bytes=n + 1, kl_mean=0.1, within=True, chosen=n == 999) for n in range(1000)]
    odd = [Tried(what="w", size_bytes=10**400, kl_mean=0.1, within=True)]
    odd += [Tried(what="w", size_bytes=5, kl_mean=math.nan, within=True)]
    made = replace(reports.quantization(), tried=[*many, *odd])
    plot = drawn(reports.report([lossy(0.1, 100, "auto", quantization=made)]))
    assert len(plot.tried) == quality_plot.MOST_TRIED and sum(mark.chosen for mark in plot.tried) == 1


EVIL = '</title><script>alert(1)</script> "><image href="http://e.example/x"/> ]]> &x; \x00\ud800\u202e <!--'


def test_hostile_text_stays_text() -> None:
    tried = Quantization(
        algorithm=EVIL,
        parameters={},
        layers=[],
        tried=[Tried(what=EVIL, size_bytes=9, kl_mean=1.0, within=True, chosen=True)],
    )
    cells = [lossy(0.1, 100, EVIL, EVIL, quantization=tried, content=b""), lossy(0.2, 120, "x" * 10_000)]
    report = reports.report(cells)
    report = replace(report, model=replace(report.model, dtype=EVIL, name=EVIL))
    root = parsed(drawn(report))
    assert {one.tag.removeprefix(SVG) for one in root.iter()} <= DRAWN
    assert not [name for one in root.iter() for name in one.attrib if name.startswith("on") or "href" in name]
    said = "".join(root.itertext())
    assert "</title><script>" in said and "\u202e" not in said and "x" * 100 not in said
    again = ElementTree.fromstring(quality_svg.inline(drawn(report)))  # noqa: S314 - we wrote it
    assert {one.tag for one in again.iter()} <= DRAWN - {"style"}


def test_the_file_says_what_it_shows_and_is_the_same_each_time() -> None:
    plot = drawn(reports.speaking())
    root = parsed(plot)
    assert quality_svg.document(plot) == quality_svg.document(drawn(reports.speaking()))
    assert root.get("role") == "img"
    told = {one.get("id"): one.text for one in root if one.get("id")}
    assert [told[name] for name in (root.get("aria-labelledby") or "").split()] == [plot.title, plot.description]
    for part in (
        "xnnpack 8da4w: 94.6 MB, KL 0.108",
        "the original: 269.1 MB, bfloat16",
        "portable fp32: 538.7 MB, exact",
    ):
        assert part in plot.description
    words = ["".join(one.itertext()) for one in root.iter(f"{SVG}text")]
    assert {"exact", "costs little", "costs quality", "damaged", "tried", "200 MB", "0.1"} <= {*words}


def _light(colour: str) -> float:
    parts = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


@pytest.mark.parametrize("colours", [quality_svg.LIGHT, quality_svg.DARK])
def test_it_can_be_read_on_its_ground(colours: dict[str, str]) -> None:
    """Contrast as WCAG 2.2 counts it: 4.5 for text, 3 for shapes that say something."""
    ground = _light(colours["ground"])

    def contrast(name: str) -> float:
        one = _light(colours[name])
        return (max(one, ground) + 0.05) / (min(one, ground) + 0.05)

    assert min(contrast("ink"), contrast("quiet")) >= 4.5
    assert min(contrast(name) for name in ("good", "warn", "bad", "exact", "plain", "tried")) >= 3


def test_both_grounds_are_in_the_file() -> None:
    text = quality_svg.document(drawn(reports.speaking())).decode()
    assert "prefers-color-scheme:dark" in text
    light, dark = text.split("prefers-color-scheme:dark")[::-1]
    assert quality_svg.DARK["ground"] in light and quality_svg.LIGHT["ground"] in light + dark
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), "it loads nothing"


def test_the_original_has_the_size_of_its_weights() -> None:
    report = reports.speaking()
    halves = [
        SourceFile(path=f"model-0000{n}.safetensors", size_bytes=100_000_000, sha256="", git_oid="") for n in (1, 2)
    ]
    report = replace(report, model=replace(report.model, files=halves))
    assert drawn(report).marks[0].told == "200.0 MB, bfloat16"
