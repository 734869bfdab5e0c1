"""Words for a person, one JSON document for a machine, and nothing that steers a terminal."""

from __future__ import annotations

import json
import time

import pytest

from bot import console as consoles
from bot import tables
from bot.console import Console
from bot.export_process import Progress
from exporter.errors import NoGoodCell
from tests.bot.reports import cell, failed, report, speaking


def test_one_document_whatever_happens(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console(json_mode=True)
    console.say("words")
    console.document(report={"a": 1})
    with console.progress() as show:
        show(Progress(stage="lower", message="m"))
    console.error(NoGoodCell("none"))
    console.finish()
    said = capsys.readouterr()
    assert json.loads(said.out) == {
        "report": {"a": 1},
        "error": {
            "class": "NoGoodCell",
            "exit_code": 3,
            "title": NoGoodCell.title,
            "what": "none",
            "remedy": NoGoodCell.remedy,
        },
    }
    assert "words" in said.err
    assert "lower" in said.err


def test_words_go_to_stdout_and_progress_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    console = Console()
    console.say("words")
    with console.progress() as show:
        show(Progress(stage="lower", backend="xnnpack", precision="fp32", fraction=0.5, message="m"))
    console.document(a=1)
    console.finish()
    said = capsys.readouterr()
    assert said.out == "words\n"
    assert said.err.endswith(" 50% lower  xnnpack fp32  m\n")


def test_plain_lines_are_a_log_and_no_film(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr(consoles.time, "monotonic", lambda: clock[0])
    with Console().progress() as show:
        for step in range(1000):
            clock[0] += 0.1
            show(Progress(stage="parity", fraction=step / 1000, message=f"{step}"))
        show(Progress(stage="publish", message="one"))
        show(Progress(stage="publish", message="two"))
        show(Progress(stage="publish", message="two"))
    lines = capsys.readouterr().err.splitlines()
    assert 8 <= sum("parity" in line for line in lines) <= 12, "the first and a sign of life every ten seconds"
    assert sum("publish" in line for line in lines) == 2


def test_a_long_silence_is_broken(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(consoles, "SILENCE_SECONDS", 1.0)
    with Console().progress() as show:
        show(Progress(stage="lower", backend="xnnpack"))
        time.sleep(2.5)
    said = capsys.readouterr().err
    assert "still at it: lower  xnnpack\n" in said
    time.sleep(1.5)
    assert capsys.readouterr().err == "", "it ends with its block"


def test_text_of_a_model_does_not_steer_the_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    evil = "a\x1b]0;title\x07\x9b31m\u202eb[bold]c[/bold]"
    console = Console()
    console.say(evil)
    with console.progress() as show:
        show(Progress(stage=evil, message=evil))
    made = report([cell(backend=evil, quality=None), failed(reason=evil)])
    tables.show(console, made)
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert not {"\x1b", "\x07", "\x9b", "\u202e"} & {*text}
        assert "[bold]c[/bold]" in text


def test_a_log_is_shown_on_demand_only(capsys: pytest.CaptureFixture[str]) -> None:
    Console().log("line")
    assert capsys.readouterr().err == ""
    Console(verbose=True).log("line")
    assert capsys.readouterr().err == "line\n"


def test_the_table_says_what_failed_and_what_quantization_costs(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(Console(), report([cell("portable"), cell("xnnpack", "8da4w", verdict="damaged"), failed()]))
    out = capsys.readouterr().out
    assert "damaged: 65.1% same top token, KL 0.55" in out
    assert "xnnpack 8da4w: Quantization damaged this model" in out
    assert "openvino fp32: failed in lower: the compiler gave up" in out
    assert "passed, 612 positions" in out


def test_the_console_has_each_kind_of_text_and_tells_of_repetition(capsys: pytest.CaptureFixture[str]) -> None:
    tables.show(Console(), speaking())
    out = capsys.readouterr().out
    rows = [[part.strip() for part in line[1:-1].split("│")] for line in out.splitlines() if "→" in line]
    assert len(rows) == 4 * 5
    assert rows[0] == ["xnnpack 8da8w", "documentation", "18.29 → 18.62", "0.018", "0.162", "96.2%"]
    assert rows[1][:2] == ["", "code"]
    assert "xnnpack 8da4w-rtn: 2 of 12 short answers repeat themselves" in out.replace("\n", " ")
    assert tables.quality(report([cell("xnnpack", "8da4w")])) is None
