"""The emulated runner reads commands as the real one does."""

from __future__ import annotations

import base64

import pytest

from tests.runner.commands import KNOWN, Masks, Reader, parse


def read(*lines: str, secret: str = "") -> Reader:
    masks = Masks()
    if secret:
        masks.add(secret)
    reader = Reader(masks)
    for line in lines:
        reader.line(line)
    return reader


def obeyed(*lines: str) -> list[str]:
    return [command.name for command in read(*lines).commands]


@pytest.mark.parametrize(
    "line",
    [
        "::error::x", "  ::error::x", "\t::error::x", "\u200b::error::x", "::ERROR::x", "::error file=a,line=1::x",
        "##[error]x", "text before ##[error]x",
    ],
)  # fmt: skip
def test_a_command_is_one_wherever_the_runner_sees_one(line: str) -> None:
    assert obeyed(line) == ["error"]


@pytest.mark.parametrize("line", ["text ::error::x", ":: error::x", "::error:x", "::unheard::x", "# #[error]x", "::"])
def test_other_lines_are_text(line: str) -> None:
    reader = read(line)
    assert reader.commands == []
    assert reader.log == [line]


def test_data_and_properties_are_unescaped_once() -> None:
    command = parse("::notice title=a%3A%2Cb,file=x=y::one%0Atwo %25250A", set(KNOWN))
    assert command is not None
    assert command.properties == {"title": "a:,b", "file": "x=y"}
    assert command.data == "one\ntwo %250A"


def test_nothing_is_obeyed_between_stop_commands_and_its_token() -> None:
    lines = ["::stop-commands::t0ken-abc", "::error::x", "##[error]x", "::other::", "::T0KEN-ABC::", "::error::y"]
    reader = read(*lines)
    assert [(command.name, command.data) for command in reader.commands] == [
        ("stop-commands", "t0ken-abc"),
        ("error", "y"),
    ]
    assert "::error::x" in reader.log


@pytest.mark.parametrize("token", ["", "error", "Add-Mask", "pause-logging"])
def test_a_token_that_anyone_could_guess_is_refused(token: str) -> None:
    assert read(f"::stop-commands::{token}").errors


def test_a_mask_hides_from_then_on_in_the_forms_that_the_runner_knows() -> None:
    reader = read("first s3cret/value", "::add-mask::s3cret/value", "now s3cret/value", "and s3cret%2Fvalue")
    assert reader.log == ["first s3cret/value", "now ***", "and ***"]
    assert read(base64.b64encode(b"s3cret").decode(), secret="s3cret").log == ["***"]
    assert read("::add-mask::line one%0Aline two", "say line two").log == ["say ***"]


def test_commands_that_are_no_longer_safe_fail_the_step() -> None:
    assert read("::set-env name=PATH::/evil").errors
    assert read("::set-output name=pr-url::https://evil").outputs == {"pr-url": "https://evil"}
