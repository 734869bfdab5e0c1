"""No secret in any text, and a failure that is none of the Hub's doing stays what it is."""

from __future__ import annotations

import errno

import pytest

from bot.hubapi import asking, connect, scrub
from exporter.errors import DiskFull, PtebotError

TOKEN = "hf_AbCdEfGhIjKlMnOp"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (f"a {TOKEN} b", "a *** b"),
        ("a hf_ZZZZZZZZZZZZ b", "a *** b"),
        ("Authorization: Bearer abc.def", "Authorization: Bearer ***"),
        ("https://user:secret@hub.example/x", "https://***@hub.example/x"),
        ("GET https://s3.example/x?X-Amz-Signature=0a1b&y=2 failed", "GET https://s3.example/x*** failed"),
        ("what? nothing", "what? nothing"),
    ],
)
def test_scrub(text: str, expected: str) -> None:
    assert scrub(text, TOKEN) == expected


def test_a_token_of_any_shape_is_scrubbed() -> None:
    assert scrub("it is s3cret!", "s3cret!") == "it is ***"


def test_no_token_means_none_at_all() -> None:
    assert connect("http://hub.example/", None).token is False
    assert connect("http://hub.example/", "").token is False
    assert connect("http://hub.example/", TOKEN).endpoint == "http://hub.example"


@pytest.mark.parametrize(
    "error", [KeyError("x"), ZeroDivisionError(), AttributeError("y"), OSError(errno.EACCES, "no")]
)
def test_defects_of_ours_are_not_dressed_up(error: Exception) -> None:
    with pytest.raises(type(error)) as caught, asking("trying", connect(None, None)):
        raise error
    assert caught.value is error and not isinstance(caught.value, PtebotError)


def test_a_full_disk_is_told() -> None:
    with pytest.raises(DiskFull), asking("downloading", connect(None, None)):
        raise OSError(errno.ENOSPC, "No space left on device")
