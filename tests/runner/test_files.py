"""The emulated runner reads the files of a step, and its inputs, as the real one does."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.runner import files, inputs


def test_pairs_on_one_line_and_on_several() -> None:
    text = "a=1\n\nb=x<<y\nc<<EOF\nd=2\n\nlast\nEOF\na=3\r\n"
    assert files.pairs(text) == {"a": "3", "b": "x<<y", "c": "d=2\n\nlast"}
    assert files.pairs("") == {}


@pytest.mark.parametrize("text", ["no pair", "=x", "<<EOF\nEOF", "a<<\n", "a<<EOF\nnever ends", "a<<EOF\n EOF\n"])
def test_a_file_that_the_runner_refuses(text: str) -> None:
    with pytest.raises(files.InvalidFile):
        files.pairs(text)


def test_a_summary_is_dropped_above_its_limit(tmp_path: Path) -> None:
    path = tmp_path / "summary"
    path.touch()
    assert files.summary(path) is None
    path.write_bytes(b"x" * files.MAX_SUMMARY_BYTES)
    assert len(files.summary(path) or "") == files.MAX_SUMMARY_BYTES
    path.write_bytes(b"x" * (files.MAX_SUMMARY_BYTES + 1))
    with pytest.raises(files.InvalidFile):
        files.summary(path)


def test_inputs_become_variables() -> None:
    declared = {"model-id": {"default": "x"}, "Max Len": None, "github-token": {"default": "${{ github.token }}"}}
    given = {"MODEL-ID": "${{ secrets.M }}/y", "dry-run": True, "extra": 1}
    made, warnings = inputs.environment(declared, given, {"github": {"token": "t"}, "secrets": {"M": "m"}})
    assert made == {
        "INPUT_MODEL-ID": "m/y",
        "INPUT_DRY-RUN": "true",
        "INPUT_EXTRA": "1",
        "INPUT_MAX_LEN": "",
        "INPUT_GITHUB-TOKEN": "t",
    }
    assert "dry-run" in warnings[0]
    assert "extra" in warnings[0]


def test_an_expression_that_is_more_than_a_look_up_is_refused() -> None:
    with pytest.raises(ValueError, match="looks values up"):
        inputs.evaluate("${{ format('{0}', github.token) }}", {"github": {}})
