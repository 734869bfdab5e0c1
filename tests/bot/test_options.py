"""Options that add up to a spec, and a spec in the words that make it again."""

from __future__ import annotations

import shlex
from typing import Any

import click
import pytest
from click.testing import CliRunner

from bot.command_line import command_line
from bot.commands.options import asked, build_spec, spec_options
from exporter.errors import InvalidSpec, UnknownBackend, UnknownPrecision
from exporter.spec import ExportSpec, ModelRef

MODEL = ModelRef(repo_id="acme/tiny", revision="1" * 40)


def _spec(words: list[str]) -> ExportSpec:
    found: list[ExportSpec] = []

    @click.command()
    @spec_options
    def command(**options: Any) -> None:
        found.append(build_spec(model=MODEL, **options))

    result = CliRunner().invoke(command, words, catch_exceptions=False, standalone_mode=False)
    if result.exception:
        raise result.exception
    return found[0]


@pytest.mark.parametrize(
    "spec",
    [
        ExportSpec(model=MODEL),
        ExportSpec(model=MODEL, backends=("xnnpack",), precisions=("fp32",), embedding="fp32", max_seq_len=64),
        ExportSpec(model=MODEL, precisions=("fp32", "auto"), max_kl=0.05, embedding="4w", cache="int8"),
        ExportSpec(model=MODEL, precisions=("auto",), max_size=90_000_000, calibration=("use.txt", "docs/a b.txt")),
        ExportSpec(model=MODEL, precisions=("auto",), max_kl=1.0, max_size=123_456),
        ExportSpec(model=MODEL, attention="stock", bounds={"kl_mean": 1e-07, "top1_agreement": 0.995}),
    ],
)
def test_the_command_line_of_a_spec_makes_it_again(spec: ExportSpec) -> None:
    words = shlex.split(command_line(spec))
    assert words[:5] == ["ptebot", "export", "acme/tiny", "--revision", "1" * 40]
    assert _spec(words[5:]) == spec


def test_a_directory_has_no_revision_to_ask_for() -> None:
    spec = ExportSpec(model=ModelRef(name="tiny", revision="1" * 40))
    assert command_line(spec) == "ptebot export MODEL_DIRECTORY"


@pytest.mark.parametrize("value", ["kl_mean", "kl_mean=", "kl_mean=small", "=", ""])
def test_a_bound_is_a_name_and_a_number(value: str) -> None:
    with pytest.raises(click.UsageError, match="NAME=VALUE"):
        _spec(["--bound", value])


def test_a_bound_stands_once_and_is_a_number() -> None:
    with pytest.raises(InvalidSpec, match="given twice"):
        _spec(["--bound", "kl_mean=1e-6", "--bound", "kl_mean=1e-7"])
    with pytest.raises(InvalidSpec, match="no bound"):
        _spec(["--bound", "kl_mean=nan"])


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--precision auto", "--precision auto needs a budget: --max-kl .* or --max-size"),
        ("--max-kl 0.05", "--max-kl of the command: it is a budget of --precision auto, and fp32, 8da4w is asked for"),
        ("--precision 8da4w --max-size 90MB", "--max-size of the command: .* 8da4w is asked for"),
        ("--calibration ../x", "--calibration '../x': a name is a path below the model's own folder"),
        ("--calibration a --calibration a", "--calibration 'a' is named twice"),
    ],
)
def test_options_that_do_not_go_together_are_named(words: str, said: str) -> None:
    with pytest.raises(InvalidSpec, match=said):
        _spec(words.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--max-kl 0", "above 0 and at most 10"),
        ("--max-kl nan", "no number of nats"),
        ("--max-kl 0,05", "with a point"),
        ("--max-size 90", "give a unit, such as 90MB"),
        ("--max-size ninety", "no size of a file"),
        ("--embedding 2w", "is not one of '8w', '4w', 'fp32'"),
        ("--cache int4", "is not one of 'fp32', 'int8'"),
    ],
)
def test_a_value_that_an_option_does_not_take(words: str, said: str) -> None:
    with pytest.raises(click.UsageError, match=said):
        _spec(words.split())


def test_what_is_asked_of_a_server_is_only_what_is_given() -> None:
    nothing = {"backends": None, "precisions": None, "max_kl": None, "calibration": (), "cache": None}
    assert asked(nothing) == {}
    given = {**nothing, "precisions": ("auto",), "max_kl": 0.05, "calibration": ("a.txt",)}
    assert asked(given) == {"precisions": ["auto"], "max_kl": 0.05, "calibration": ["a.txt"]}
    assert asked({**nothing, "precisions": ("auto",)}) == {"precisions": ["auto"]}  # its budget may be the server's
    with pytest.raises(InvalidSpec, match="--max-kl: it is a budget of --precision auto"):
        asked({**nothing, "precisions": ("fp32",), "max_kl": 0.05})
    with pytest.raises(UnknownPrecision, match="--precision: 'int4' is none of: fp32"):
        asked({**nothing, "precisions": ("int4",)})
    with pytest.raises(UnknownBackend, match="--backends: 'gpu' is none of"):
        asked({**nothing, "backends": ("gpu",)})
    with pytest.raises(InvalidSpec, match="--calibration"):
        asked({**nothing, "calibration": ("/etc/passwd",)})
