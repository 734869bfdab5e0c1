"""The quality of files as a reader of the card sees it: tables, folds and the image, parsed from the Markdown."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from typing import Any

import pytest
from markdown_it import MarkdownIt

from bot.publish import card, message, quality, quality_made
from bot.publish.places import OnTheHub
from bot.publish.splice import current_section, splice
from exporter import report as manifests
from exporter.report import Answer, Cell, LayerFormat, Report, Tried
from tests.bot import markdown, reports

SPEAKING = reports.speaking()


def section(report: Report) -> str:
    return card.section(report, command="ptebot run acme/tiny", place=OnTheHub("acme/tiny"))


def changed(**fields: Any) -> Report:
    """One quantized file, with other figures."""
    cost = replace(reports.measured(0.1, "degraded"), **fields)
    return reports.report([reports.cell("xnnpack", "8da4w", quality=cost)])


def test_a_card_with_everything() -> None:
    text = section(SPEAKING)
    files, costs, kinds, four, rest, tried = markdown.tables(text)
    assert [row[2] for row in files[1:3]] == [
        "[`tiny_xnnpack_fp32.pte`](executorch/xnnpack/tiny_xnnpack_fp32.pte)",
        "[`tiny_portable_fp32.pte`](executorch/portable/tiny_portable_fp32.pte)",
    ]
    assert costs == [
        list(quality.COSTS),
        ["*the original* (bfloat16)", "269.1 MB", "18.29", "–", "–", "–", "–", "–"],
        ["`xnnpack` `8da4w-rtn`", "94.5 MB", "27.80", "0.52", "4.68", "46.0%", "8 of 12", DAMAGED],
        ["`xnnpack` `8da4w`", "94.6 MB", "20.27", "0.108", "0.972", "87.2%", "12 of 12", "quantization costs quality"],
        ["`portable` `8da4w`", "95.7 MB", "20.28", "0.109", "0.981", "87.1%", "12 of 12", "quantization costs quality"],
        ["`xnnpack` `auto`", "113.6 MB", "19.15", "0.047", "0.423", "93.3%", "12 of 12", "quantization costs little"],
        ["`xnnpack` `8da8w`", "139.4 MB", "18.62", "0.018", "0.162", "96.2%", "12 of 12", "quantization costs little"],
        ["`portable` `fp32`", "538.7 MB", "–", "–", "–", "–", "–", "exact"],
        ["`xnnpack` `fp32`", "538.9 MB", "–", "–", "–", "–", "–", "exact"],
    ]
    assert [row[0] for row in kinds[1::5]] == ["documentation", "code", "chat", "the owner's text"]
    assert kinds[1 + 5] == ["code", "`xnnpack` `8da8w`", "10.97 → 11.17", "0.0108", "0.0972", "96.2%", "512"]
    assert four[0] == ["Asked", "The original", "`xnnpack` `8da8w`", "`xnnpack` `auto`", "`xnnpack` `8da4w`",
                       "`xnnpack` `8da4w-rtn`"]  # fmt: skip
    assert four[1][:3] == ["What is the capital of France?", "The capital of France is Paris.", "*the same*"]
    assert four[1][5].startswith("**repeats itself:** The capital of France is Paris. fashion, fashion")
    assert rest[0][2:] == ["`portable` `8da4w`"] and len(rest) == 4
    assert tried[3] == ["down_proj and v_proj at 8 bits", "113.0 MB", "0.047", "**chosen**"]
    assert markdown.images(text) == [("executorch/quality.svg", quality.ALT)]
    assert text.count("<details>") == text.count("</details>") == 3
    assert "Start with `executorch/xnnpack/tiny_xnnpack_auto.pte` (113.6 MB, quantization costs little)." in text
    assert "- `xnnpack` `8da4w-rtn`: 2 of 12 short answers repeat themselves" in text
    assert current_section(splice(b"# Tiny\n", text)) == text.rstrip("\n")


DAMAGED = "**damaged by quantization**: do not use it without reading on"


def test_how_it_was_made_smaller() -> None:
    told = quality_made.making(SPEAKING)
    parts = told.split("\n\n")
    assert parts[0] == "`xnnpack` `8da8w`, `xnnpack` `8da4w`, `portable` `8da4w`: error-compensated rounding"
    shares = re.findall(r"([0-9.]+)% in (\d+) bits", parts[1])
    assert shares == [("78.9", "4"), ("21.1", "8"), ("0.1", "32")]
    assert "10,240 tokens in 40 sequences (the model's own words 6,000, documentation 4,240), seed 0" in parts[1]
    assert f"`{'c' * 64}`" in parts[1]
    assert re.search(r"6 layers rounded: calibration text never reached it \(`.*` and 2 more\)", parts[1])
    assert "Asked for: a mean KL of at most 0.05" in told.split("`auto`")[1]
    assert "`xnnpack` `8da4w-rtn`: rounding to nearest" in told and "Calibration" not in told.split("8da4w-rtn")[1]
    assert quality_made.making(reports.report()) == ""


def test_a_budget_of_bytes_is_told() -> None:
    spec = replace(SPEAKING.spec, max_kl=None, max_size=113_700_000)
    assert "Asked for: at most 113.7 MB." in quality_made.making(replace(SPEAKING, spec=spec))


def test_of_many_assignments_the_chosen_one_is_shown() -> None:
    tried = [
        Tried(what=f"assignment {n}", size_bytes=1000 + n, kl_mean=1 / (n + 1), within=n > 50, chosen=n == 51)
        for n in range(100)
    ]
    made = reports.quantization(tried=tried)
    text = quality_made.making(reports.report([reports.cell("xnnpack", "auto", quantization=made)]))
    (table,) = markdown.tables(text)
    assert [row[0] for row in table if row[3] == "**chosen**"] == ["assignment 51"]
    assert table[1][0] == "assignment 0" and table[-1][0] == "assignment 99" and len(table) == 18
    assert "83 more are in the manifest" in text


def test_layers_with_one_reason_are_one_line() -> None:
    layers = [
        LayerFormat(name=f"l{n}", format="int4", algorithm="rounded", reason=f"reason {n % 20}") for n in range(400)
    ]
    made = replace(reports.quantization(), layers=layers)
    text = quality_made.making(reports.report([reports.cell("xnnpack", "8da4w", quantization=made)]))
    assert text.count("20 layers rounded") == quality_made.MOST_REASONS and "12 more reasons" in text
    assert text.count("`l") == quality_made.MOST_REASONS * quality_made.MOST_LAYERS


def test_nothing_was_quantized() -> None:
    exact = reports.report([reports.cell(), reports.cell("portable")])
    assert quality.section(exact) == [] and quality.costs(exact) == quality.plot(exact) == ""
    assert "What quantization costs" not in section(exact) and "quality.svg" not in section(exact)


def test_what_was_not_measured_is_not_shown() -> None:
    report = changed(kl_p99=None, texts=[], answers=[], answers_total=0)
    (costs,) = markdown.tables("\n\n".join(quality.section(report)))
    assert costs[0] == ["File", "Size", "Perplexity", "KL, mean", "Same top token", "Verdict"]
    text = section(report)
    assert "99th percentile" not in text.split(quality.EXPLAINED)[0] and "Answers beside" not in text
    assert "By kind" not in text and "How the weights" not in text


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_what_is_no_number_is_called_not_measured(value: float) -> None:
    row = markdown.tables(quality.costs(changed(kl_mean=value, kl_p99=value, perplexity=value, top1_agreement=value)))[
        0
    ][2]
    assert row[2:6] == ["not measured"] * 4
    text = section(changed(kl_mean=value))
    assert "quality.svg" not in text and not re.search(r"\b(nan|inf)\b", text)


def test_files_measured_on_less_text_have_their_own_original_beside_them() -> None:
    slow = replace(reports.measured(0.1, "degraded"), perplexity_full=17.0, perplexity=18.0)
    cells = [
        reports.cell("portable", "8da4w", quality=slow),
        reports.cell("xnnpack", "8da4w", quality=reports.measured(0.1, "degraded")),
    ]
    table = markdown.tables(quality.costs(reports.report(cells)))[0]
    assert [row[2] for row in table[1:]] == ["in each row", "18.29 → 20.12", "17.00 → 18.00"]


def test_what_was_left_out_is_told() -> None:
    text = section(changed(left_out=["chat: no chat template", "answers: *slow*"]))
    assert "- `xnnpack` `8da4w`: chat: no chat template; answers: &#42;slow&#42;." in text


def test_a_rounded_cache_is_told() -> None:
    report = reports.report([reports.cell("xnnpack", cache="int8")])
    assert markdown.tables(section(report))[0][1][1] == "`fp32`, KV cache `int8`"
    assert markdown.tables(section(report))[0][1][4] == "not measured", "such a file is not exact"


NEW = {"quantization", "cache", "exit_code", "kl_p99", "texts", "answers", "answers_total", "answers_same",
       "answers_repeating", "left_out", "max_kl", "max_size", "calibration"}  # fmt: skip


def before(data: Any) -> Any:
    """A manifest as it was written before these fields were there."""
    if isinstance(data, dict):
        return {
            key: before(value)
            for key, value in data.items()
            if key not in NEW or (key == "texts" and "schedules" in data)
        }
    return [before(one) for one in data] if isinstance(data, list) else data


def test_an_older_manifest_is_read_and_shown() -> None:
    old = before(json.loads(manifests.dumps(SPEAKING)))
    assert "kl_p99" not in json.dumps(old) and "cache" not in old["cells"][0]
    report = manifests.loads(json.dumps(old))
    files, costs = markdown.tables(section(report))
    assert len(files) == len(costs) - 1 == 8
    assert costs[0] == ["File", "Size", "Perplexity", "KL, mean", "Same top token", "Verdict"]
    assert costs[2][2:4] == ["27.80", "0.52"] and "executorch/quality.svg" in section(report)
    assert "xnnpack" in message.pr_description(report)


def test_the_pull_request_has_the_table_and_no_image() -> None:
    text = message.pr_description(SPEAKING)
    files, costs = markdown.tables(text)
    assert [row[0] for row in costs[1:4]] == ["*the original* (bfloat16)", "`xnnpack` `8da4w-rtn`", "`xnnpack` `8da4w`"]
    assert markdown.images(text) == [] and len(files) == 8


def test_a_long_report_is_cut() -> None:
    cells: list[Cell] = []
    for number in range(100):
        cells.append(reports.cell(f"b{number}", "8da4w", quality=reports.measured(0.1, "degraded")))
    parts = quality.section(reports.report(cells))
    costs, kinds, *answers = markdown.tables("\n\n".join(parts))
    assert len(costs) == 2 + quality.MOST_ROWS and len(kinds) == 1 + quality.MOST_ROWS
    assert len(answers) == quality.MOST_TABLES and "Those of other files are in the manifest." in "\n".join(parts)
    assert "40 more rows are in the manifest" in "\n".join(parts)


EVIL = "x`|<img src=x onerror=alert(1)>\n\n</details>\n<!-- ptebot:end -->\n# pwned @all [a](javascript:b) ![c](http://d.example/e)"


def test_answers_and_layers_do_not_come_alive() -> None:
    bad = reports.measured(0.1, "degraded")
    answers = [Answer(prompt=EVIL, original=EVIL * 50, file=EVIL, same=False, repeats=True)]
    bad = replace(bad, answers=answers, texts=[replace(bad.texts[0], name=EVIL)], left_out=[EVIL])
    made = reports.quantization(tried=[Tried(what=EVIL, size_bytes=10**400, kl_mean=math.nan, within=True)])
    made = replace(
        made,
        algorithm=EVIL,
        parameters={EVIL: 5, "int4": -3, "int8": 10**400},
        layers=[LayerFormat(name=EVIL, format=EVIL, algorithm=EVIL, reason=EVIL)],
        calibration=replace(made.calibration, sha256=EVIL, sources={EVIL: 3}) if made.calibration else None,
    )
    report = reports.report([reports.cell("xnnpack", "auto", quality=bad, quantization=made, cache=EVIL)])
    report = replace(report, model=replace(report.model, dtype=EVIL))
    text = section(report)
    assert current_section(splice(b"# T\n", text)) == text.rstrip("\n")
    rendered = MarkdownIt("gfm-like", {"linkify": False}).render(text)
    assert re.findall(r"<img[^>]*>", rendered) == [f'<img src="{quality.PLOT}" alt="{quality.ALT}" />']
    assert not re.search(r"<h1|href=\"javascript|<a href=\"http://d", rendered)
    assert rendered.count("<details>") == rendered.count("</details>") == 3
    assert all(len(row) == len(table[0]) for table in markdown.tables(text) for row in table)


def test_no_questions_and_negative_counts_say_nothing() -> None:
    odd = changed(answers_total=-3, answers_same=5, answers_repeating=-1)
    assert quality.repeating(odd) == [] and "Same answers" not in quality.costs(odd)
