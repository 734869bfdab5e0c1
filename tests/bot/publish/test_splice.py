"""The owner's card keeps every byte that is not ours, whatever it looks like."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.errors import CardInvalid
from bot.publish.splice import BEGIN, END, current_section, splice
from bot.publish.yaml_tag import FRONT_MATTER

SECTION = f"{BEGIN}\n\n## ExecuTorch\n\n| a | b |\n| --- | --- |\n\n```python\nprint()\n```\n\n{END}\n"
OTHER = f"{BEGIN}\n\nsomething else\n\n{END}\n"
TAGS = "---\ntags:\n- executorch\n---\n"


def test_no_card_at_all() -> None:
    assert splice(None, SECTION).decode() == f"{TAGS}\n{SECTION}"


@pytest.mark.parametrize(
    ("card", "expected"),
    [
        (f"{TAGS}# Title\n", f"{TAGS}# Title\n\n{SECTION}"),
        (f"{TAGS}# Title", f"{TAGS}# Title\n\n{SECTION}"),
        (f"{TAGS}# Title\n\n", f"{TAGS}# Title\n\n{SECTION}"),
        (f"{TAGS}- a list", f"{TAGS}- a list\n\n{SECTION}"),
        (f"{TAGS}<div>\nhello", f"{TAGS}<div>\nhello\n\n{SECTION}"),
        (f"{TAGS}a\n{OTHER}b", f"{TAGS}a\n{SECTION}b"),
        (f"{TAGS}```\n{OTHER}```\n", f"{TAGS}```\n{OTHER}```\n\n{SECTION}"),
        (f"{TAGS}The line `{BEGIN}` marks it.\n", f"{TAGS}The line `{BEGIN}` marks it.\n\n{SECTION}"),
        (f"{TAGS}    {BEGIN}\n", f"{TAGS}    {BEGIN}\n\n{SECTION}"),
        (f"{TAGS}a\u2028b\x0cc\x85\n{OTHER}", f"{TAGS}a\u2028b\x0cc\x85\n{SECTION}"),
    ],
)
def test_where_the_section_goes(card: str, expected: str) -> None:
    assert splice(card.encode(), SECTION).decode() == expected


def test_windows_line_endings_and_a_byte_order_mark_stay() -> None:
    card = "\ufeff---\r\nlicense: mit\r\n---\r\n# Title\r\n".encode()
    after = splice(card, SECTION)
    assert after.startswith("\ufeff---\r\nlicense: mit\r\ntags:\r\n- executorch\r\n---\r\n# Title\r\n\r\n".encode())
    assert after.count(b"\n") == after.count(b"\r\n")
    assert current_section(after) == SECTION.rstrip("\n")


@pytest.mark.parametrize(
    ("card", "says"),
    [
        (b"\xff\xfe\0", "not UTF-8: byte 0"),
        (f"{TAGS}{SECTION}{SECTION}".encode(), "2 begin and 2 end markers"),
        (f"{TAGS}{BEGIN}\nhalf".encode(), "1 begin and 0 end markers"),
        (f"{TAGS}{END}\n{BEGIN}\n".encode(), "in this order"),
        (f"{TAGS}> {BEGIN}\n".encode(), "line 5.*not stand on a line of its own"),
        (f"{TAGS}x {BEGIN} y\n".encode(), "line 5.*not stand on a line of its own"),
        (f"{TAGS}<div>\n{BEGIN}\n".encode(), "not stand on a line of its own"),
        (f"{TAGS}```\nnever closed\n".encode(), "never closed"),
        (f"{TAGS}<!-- never closed\n".encode(), "never closed"),
        (f"{TAGS}<pre>\n\nnever closed\n".encode(), "never closed"),
        (b"a" * (2 * 1024 * 1024 + 1), "at most"),
    ],
)
def test_a_card_that_cannot_be_read_with_certainty_is_refused(card: bytes, says: str) -> None:
    with pytest.raises(CardInvalid, match=says):
        splice(card, SECTION)


def test_current_section() -> None:
    assert current_section(splice(b"# T\r\n", OTHER)) == OTHER.rstrip("\n")
    assert current_section(b"# T\n") is None


_PIECES = st.sampled_from(
    (
        "|# Title|text|```|~~~|- item|> quote|    code|<div>|</div>|<!-- c -->|<!--|-->|---|***|tags:|[x]: /y|a\u2028b"
        f"|é🙂|<script>|1. one|\t|{BEGIN}|{END}"
    ).split("|")
)
_BODY = st.lists(st.tuples(_PIECES, st.sampled_from(["\n", "\r\n", "\n", "\r"])), max_size=12).map(
    lambda lines: "".join(a + b for a, b in lines)
)
_FRONT = st.sampled_from(["", TAGS, "---\nlicense: mit\n---\n", "---\r\ntags: [a]\r\n---\r\n", "\ufeff"])


def _body(card: str) -> str:
    """What follows the front matter."""
    match = FRONT_MATTER.match(card.removeprefix("\ufeff"))
    return card.removeprefix("\ufeff")[match.end() if match else 0 :]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(front=_FRONT, body=_BODY, tail=st.sampled_from(["", "end"]))
def test_any_card_keeps_its_bytes_or_is_refused(front: str, body: str, tail: str) -> None:
    card = (front + body + tail).encode()
    try:
        had = current_section(card)
        first = splice(card, SECTION)
    except CardInvalid:
        return
    assert splice(first, SECTION) == first
    assert splice(splice(card, OTHER), SECTION) == first
    assert current_section(first) == SECTION.rstrip("\n")
    if had is None:
        newline = "\r\n" if first.endswith(b"\r\n") else "\n"
        ours = SECTION.rstrip("\n").replace("\n", newline) + newline
        assert first.decode().endswith(ours)
        assert _body(card.decode()) in _body(first.decode().removesuffix(ours))
