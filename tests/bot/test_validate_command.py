"""``ptebot validate`` in words: each kind of text, answers side by side, what was left out, nothing that steers."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest

from bot import cli, export_process, sources
from bot.sandbox.call import Reads
from exporter.errors import InvalidSpec
from exporter.report import Answer, Quality
from tests.bot import reports


class _Source:
    def __init__(self) -> None:
        self.texts: tuple[str, ...] = ()

    def with_texts(self, names: tuple[str, ...]) -> _Source:
        self.texts = names
        return self

    def fetch(self, show: Any) -> Path:
        return Path("/nowhere")


@pytest.fixture
def validated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """``validated(quality, *options)``: exit code, stdout and stderr for an exporter that says so."""
    file = tmp_path / "x.pte"
    file.write_bytes(b"")

    def run(quality: Quality | None, *options: str) -> tuple[int, str, str]:
        passed = quality is None or quality.verdict != "damaged"
        result = {
            "passed": passed,
            "kind": "exact" if quality is None else "quantized",
            "reason": None if passed else "it is damaged",
            "metadata_problems": ["get_bos_id is 5; the model's is 0"],
            "parity": None,
            "quality": None if quality is None else asdict(quality),
        }
        monkeypatch.setattr(sources, "open_model", lambda *given, **named: _Source())
        monkeypatch.setattr(export_process, "run_stages", lambda *given, **named: {"validation": result})
        code = cli.run(["validate", str(file), "--model", "m", *options])
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_every_figure_is_said(validated: Any) -> None:
    code, out, _ = validated(reports.measured(0.108, "degraded", repeats=1))
    assert code == 0
    for kind in ("documentation", "code", "chat"):
        assert any(line.lstrip("│┃| ").startswith(kind) for line in out.splitlines()), out
    assert "0.108" in out
    assert "fashion, fashion" in out
    assert "the same" in out
    assert "Short answers: 10 of 12 are the original's; 1 repeat themselves where the original's do not" in out
    assert "Metadata: get_bos_id is 5" in out
    assert out.rstrip().endswith("PASSED")


def test_a_damaged_file_fails(validated: Any) -> None:
    code, out, _ = validated(reports.measured(0.55, "damaged", repeats=2))
    assert code == 3
    assert out.rstrip().endswith("FAILED: it is damaged")


def test_what_was_not_measured_is_said(validated: Any) -> None:
    cut = replace(reports.measured(0.01, "faithful"), left_out=["docs 2 after 9 of 383 positions: it is slow"])
    assert "Not measured: docs 2 after 9 of 383 positions: it is slow" in validated(cut)[1]


def test_the_owners_text_goes_with_the_model(validated: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is fetched with the model, the exporter may read it, and knows its name."""
    given: list[Any] = []
    source = _Source()
    validated(None)
    monkeypatch.setattr(sources, "open_model", lambda *given, **named: source)
    monkeypatch.setattr(export_process, "run_stages", lambda module, args, **named: given.extend(args))
    cli.run(["validate", str(tmp_path / "x.pte"), "--model", "m", "--calibration", "docs/a.txt", "--calibration", "b"])
    assert source.texts == ("docs/a.txt", "b")
    assert given == [
        Reads(tmp_path / "x.pte"), Reads(Path("/nowhere"), texts=("docs/a.txt", "b")), "docs/a.txt", "b"
    ]  # fmt: skip


def test_a_text_outside_the_model_is_refused_at_once(validated: Any) -> None:
    code, _, err = validated(None, "--calibration", "../a.txt")
    assert code == InvalidSpec.exit_code
    assert "--calibration" in err and "path below the model's own folder" in err


def test_an_exact_file_has_no_cost(validated: Any) -> None:
    code, out, _ = validated(None)
    assert code == 0
    assert "Quality" not in out


def test_text_of_a_model_steers_no_terminal(validated: Any) -> None:
    evil = Answer(
        prompt="[bold]who[/bold]", original="\x1b[2Jgone", file="[red]\u202eb\x07[/red]", same=False, repeats=False
    )
    found = replace(reports.measured(0.01, "faithful"), answers=[evil])
    _, out, _ = validated(found)
    assert not {"\x1b", "\x07", "\u202e"} & set(out)
    assert "[bold]who[/bold]" in out
    assert "[red]" in out


def test_a_machine_reads_all_of_it(validated: Any) -> None:
    found = reports.measured(0.108, "degraded")
    _, out, err = validated(found, "--json")
    assert json.loads(out)["quality"] == asdict(found)
    assert "PASSED" in err
