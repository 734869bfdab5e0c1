"""Options that add up to a spec, and a spec in the words that make it again."""

from __future__ import annotations

import shlex
from typing import Any

import click
import pytest
from click.testing import CliRunner

from bot.command_line import command_line
from bot.commands.options import build_spec, spec_options
from exporter.errors import InvalidSpec
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
