"""Speeds of files that were really written, by a child that is really started; and figures that are none."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bot import export_process, speed
from bot.errors import ExporterFailed
from bot.sandbox.call import UNBOUND
from bot.speed import Speed, Speeds
from exporter import speed as measuring
from exporter.report import Report
from exporter.speed import Round, Taking
from tests.bot.reports import cell, failed, report
from tests.exporter.models import tiny_model


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Report]:
    """A model, its export and the report."""
    folder = tmp_path_factory.mktemp("speed")
    model = tiny_model("llama", folder / "model", num_hidden_layers=1)
    spec = export_process.specs.parse({"backends": ["xnnpack"], "precisions": ["fp32"], "max_seq_len": 32})
    return model, folder / "out", export_process.run_export(spec, model, folder / "out")


def test_a_file_and_its_original_are_measured(made: tuple[Path, Path, Report]) -> None:
    model, out, written = made
    steps: list[str] = []
    found = speed.measure(
        written, out, model, rounds=1, on_progress=lambda step: steps.append(f"{step.stage} {step.message}")
    )
    assert found.notes == ()
    assert found.eager is not None and found.eager.decode > 0
    one = found.cells["xnnpack", "fp32"]
    assert one.prefill > one.decode > 0, "a prompt goes in at once, an answer comes token by token"
    assert steps == ["bench eager float32", f"bench {Path(str(written.cells[0].file)).name}"]
    assert json.loads(json.dumps(speed.as_data(found)))["cells"][0]["decode"] == one.decode


def test_without_the_model_the_files_are_measured_alone(made: tuple[Path, Path, Report]) -> None:
    _, out, written = made
    found = speed.measure(written, out, None, rounds=1)
    assert found.eager is None and set(found.cells) == {("xnnpack", "fp32")}


def test_a_file_that_cannot_run_is_told_and_the_others_are_measured(
    made: tuple[Path, Path, Report], tmp_path: Path
) -> None:
    _, out, written = made
    (tmp_path / "broken.pte").write_bytes(b"\0" * 4096)
    good = out / str(written.cells[0].file)
    own, (broken, fine) = measuring.measure(
        [("portable", tmp_path / "broken.pte"), ("xnnpack", good)], None, context=32, rounds=1, seconds=5
    )
    assert own is None and broken.failed and broken.decode is None
    assert fine.failed is None and fine.decode


def test_nothing_good_nothing_started(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(export_process, "run_stages", lambda *args, **kinds: pytest.fail("a child was started"))
    assert speed.measure(report([failed()]), tmp_path, None) == Speeds()


@pytest.mark.parametrize(
    ("entry", "note"),
    [
        ({"prefill": 1e400, "decode": 5}, "no figures"),
        ({"prefill": -1, "decode": 5}, "no figures"),
        ({"prefill": "5", "decode": 5}, "no figures"),
        ({"prefill": None, "decode": None, "failed": "it fell over"}, "it fell over"),
        (None, "no figures"),
        ([], "no figures"),
    ],
)
def test_figures_that_are_none_are_told_as_none(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, entry: Any, note: str
) -> None:
    monkeypatch.setattr(export_process, "run_stages", lambda *args, **kinds: {"eager": None, "files": [entry]})
    found = speed.measure(report([cell()]), tmp_path, None)
    assert found.cells == {} and found.notes == (f"xnnpack fp32: not measured ({note})",)


@pytest.mark.parametrize("answer", [None, {}, {"files": []}, {"files": "x"}, {"files": [{}, {}]}])
def test_an_answer_without_figures_is_a_failure_that_costs_no_export(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, answer: Any
) -> None:
    monkeypatch.setattr(export_process, "run_stages", lambda *args, **kinds: answer)
    with pytest.raises(ExporterFailed):
        speed.measure(report([cell()]), tmp_path, None)
    none: Callable[[Any], None] = lambda _: None  # noqa: E731
    found = speed.attempt(report([cell()]), tmp_path, None, on_progress=none, on_log=none, conditions=UNBOUND)
    assert found.notes[0].startswith("No speeds: ")


def test_cut_short_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    entry = {"prefill": 10.0, "decode": 2, "cut": True}
    monkeypatch.setattr(export_process, "run_stages", lambda *args, **kinds: {"eager": None, "files": [entry]})
    found = speed.measure(report([cell()]), tmp_path, None, seconds=7)
    assert found.cells == {("xnnpack", "fp32"): Speed(prefill=10.0, decode=2.0)}
    assert found.notes == ("xnnpack fp32: cut after 7 s",)


def test_a_slow_file_keeps_to_its_time() -> None:
    """192 tokens at 20 ms would take four seconds a round."""

    def slow(until: float) -> Round:
        def feed(first: int, last: int) -> None:
            time.sleep(0.02)

        def read(until: float) -> int:
            feed(0, 128)
            return 128

        return measuring._timed(read, feed, 128, 192, until)

    started = time.perf_counter()
    taking = Taking(lambda: slow, rounds=3, seconds=0.2)
    while not taking.done:
        taking.take()
    found = taking.speed()
    assert time.perf_counter() - started < 1
    assert found.cut and found.rounds == 1
    assert found.prefill is not None and found.decode is not None
    assert 20 < found.decode <= 50 and 3000 < found.prefill <= 6400


def test_a_quick_one_is_taken_as_often_as_asked_and_the_first_does_not_count() -> None:
    speeds = iter([1.0, 50.0, 70.0, 60.0])
    taking = Taking(lambda: lambda until: Round(next(speeds), 7.0, False), rounds=3, seconds=60)
    while not taking.done:
        taking.take()
    found = taking.speed()
    assert (found.prefill, found.decode, found.rounds, found.cut) == (60.0, 7.0, 3, False)


def test_positions_go_on_where_a_cut_prompt_ended() -> None:
    """A file that takes one token a call must not skip positions: its cache would have holes."""
    seen: list[int] = []

    def read(until: float) -> int:
        return 3

    measuring._timed(read, lambda first, last: seen.append(first), 128, 132, time.perf_counter() + 60)
    assert seen == [3, 4, 5, 6]


@pytest.mark.parametrize(
    "args", [[], ["32", "1", "5"], ["32", "1", "x", "-"], ["0", "1", "5", "-"], ["32", "1", "5", "-", "portable"]]
)
def test_wrong_usage_is_told(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert measuring.main(args) == 2
    assert "usage" in capsys.readouterr().err
