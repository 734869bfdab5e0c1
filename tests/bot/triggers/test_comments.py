"""The comment grammar: what is a command, what is a wrong one, and what is none of ours."""

from __future__ import annotations

import re
from dataclasses import asdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.names import BACKENDS, MOST_TOKENS, PRECISIONS
from bot.triggers import comments, values
from bot.triggers.comments import Command, parse
from bot.triggers.request import Overrides

NOTHING = Overrides()


@pytest.mark.parametrize(
    ("body", "overrides"),
    [
        ("/ptebot export", NOTHING),
        ("/ptebot export\nplease, and fixes #1", NOTHING),
        ("/ptebot export\r\nthe next line", NOTHING),
        ("/ptebot export\rthe next line", NOTHING),
        ("/ptebot \t export \t ", NOTHING),
        ("/ptebot\texport", NOTHING),
        ("/ptebot export backends=xnnpack", Overrides(backends=("xnnpack",))),
        (
            "/ptebot export backends=xnnpack,portable precision=fp32",
            Overrides(backends=("xnnpack", "portable"), precisions=("fp32",)),
        ),
        (
            "/ptebot export precision=auto max-kl=0.05 embedding=4w cache=int8",
            Overrides(precisions=("auto",), max_kl=0.05, embedding="4w", cache="int8"),
        ),
        (
            "/ptebot export max-size=90MB calibration=use.txt,docs/more.md",
            Overrides(max_size=90_000_000, calibration=("use.txt", "docs/more.md")),
        ),
        ("/ptebot export max-seq-len=4096", Overrides(max_seq_len=4096)),
        (
            "/ptebot export model=acme/tiny-2.5_b revision=refs/pr/3",
            Overrides(model="acme/tiny-2.5_b", revision="refs/pr/3"),
        ),
        ("/ptebot export model=models/tiny/v2", Overrides(model="models/tiny/v2")),
        ("/ptebot export model=./models", Overrides(model="./models")),
        ("/ptebot export model=.", Overrides(model=".")),
    ],
)
def test_commands(body: str, overrides: Overrides) -> None:
    assert parse(body) == Command(verb="export", overrides=overrides)


@pytest.mark.parametrize("body", ["/ptebot", "/ptebot help", "/ptebot  help ", "/ptebot\nexport", "/ptebot \r\n"])
def test_help(body: str) -> None:
    assert parse(body) == Command(verb="help")


def test_status() -> None:
    assert parse("/ptebot status") == Command(verb="status")


@pytest.mark.parametrize(
    "body",
    [
        "",
        "\n/ptebot export",
        " /ptebot export",
        "\t/ptebot export",
        "    /ptebot export",
        "> /ptebot export",
        "`/ptebot export`",
        "```\n/ptebot export\n```",
        "/ptebots export",
        "/ptebot-x export",
        "/ptebot:export",
        "/ptebot.",
        "/Ptebot export",
        "/PTEBOT export",
        "/ptebo",
        "ptebot export",
        "@ptebot export",
        "please /ptebot export",
        "\ufeff/ptebot export",
        "\u200b/ptebot export",
        "/pte\u200bbot export",
        "/ptebot\u200bexport",
        "/ptebot\u00a0export",
        "/ptebot\u2003export",
        "/ptebot\x00export",
        "/ptebot\x0bexport",
        "/ptebot\u2028export",
        "／ptebot export",
        "/рtebot export",  # a Cyrillic p
    ],
)
def test_not_ours(body: str) -> None:
    assert parse(body) is None


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("/ptebot exprt", "no command 'exprt'"),
        ("/ptebot Export", "no command 'Export'"),
        ("/ptebot export now", "name=value; there is 'now'"),
        ("/ptebot status all", "status takes nothing"),
        ("/ptebot help me", "help takes nothing"),
        ("/ptebot export backend=xnnpack", "'backend' is no setting; there are: backends,"),
        ("/ptebot export =xnnpack", "is no setting"),
        ("/ptebot export backends=", "a name is missing"),
        ("/ptebot export backends=xnnpack,", "a name is missing"),
        ("/ptebot export backends=xnnpack,xnnpack", "it names xnnpack twice"),
        ("/ptebot export backends=XNNPACK", "'XNNPACK' is none of: portable, xnnpack"),
        ("/ptebot export backends=xnnpack, portable", "there is 'portable'"),
        ("/ptebot export backends=xnnpack backends=portable", "'backends' is given twice"),
        ("/ptebot export precision=int3", "'int3' is none of: fp32"),
        ("/ptebot export precision=8da4w max-kl=0.05", "max-kl: it is a budget of precision auto"),
        ("/ptebot export max-kl=0", "max-kl: it is not above 0"),
        ("/ptebot export max-kl=0,05", "with a point"),
        ("/ptebot export max-kl=`x`", "no number of nats"),
        ("/ptebot export max-size=90", "give a unit"),
        ("/ptebot export max-size=@acme", "max-size: it is no size"),
        ("/ptebot export cache=int4", "cache: 'int4' is none of: fp32, int8"),
        ("/ptebot export embedding=", "embedding: a name is missing"),
        ("/ptebot export calibration=../x", "by plain paths"),
        ("/ptebot export calibration=a/./b", "by plain paths"),
        ("/ptebot export calibration=[x](y)", "by plain paths"),
        ("/ptebot export calibration=a,a", "'a' is named twice"),
        ("/ptebot export max-seq-len=0", "a whole number from 1"),
        ("/ptebot export max-seq-len=-1", "a whole number from 1"),
        ("/ptebot export max-seq-len=1e3", "a whole number from 1"),
        ("/ptebot export max-seq-len=٣", "a whole number from 1"),
        ("/ptebot export max-seq-len=99999999", "a whole number from 1"),
        ("/ptebot export model=", "OWNER/NAME"),
        ("/ptebot export model=../x", "OWNER/NAME"),
        ("/ptebot export model=a/../b", "OWNER/NAME"),
        ("/ptebot export model=/etc", "OWNER/NAME"),
        ("/ptebot export model=-rf", "OWNER/NAME"),
        ("/ptebot export model=a\\b", "OWNER/NAME"),
        ("/ptebot export model=https://evil.example/x", "OWNER/NAME"),
        ("/ptebot export model=$(id)", "OWNER/NAME"),
        ("/ptebot export model=" + "a" * 201, "OWNER/NAME"),
        ("/ptebot export revision=a..b", "a branch, a tag or a commit"),
        ("/ptebot export revision=-x", "a branch, a tag or a commit"),
        ("/ptebot export revision=main;id", "a branch, a tag or a commit"),
        ("/ptebot export publish=none", "'publish' is no setting"),
        ("/ptebot export hub-token=hf_x", "'hub-token' is no setting"),
        ("/ptebot export\u200b", "There is no command a word that is not a plain one"),
        ("/ptebot export\x00", "not a plain one"),
        ("/ptebot `export`", "not a plain one"),
        ("/ptebot @octocat", "not a plain one"),
        ("/ptebot #1", "not a plain one"),
        ("/ptebot GH-1", "not a plain one"),
        ("/ptebot deadbeef", "not a plain one"),
        ("/ptebot www.evil.example", "not a plain one"),
        ("/ptebot <!--", "not a plain one"),
        ("/ptebot \u202eexport", "not a plain one"),
        ("/ptebot export " + "x" * 1000, "longer than 1000"),
    ],
)
def test_wrong_commands_say_what_is_wrong(body: str, said: str) -> None:
    found = parse(body)
    assert found is not None and found.verb == "help" and found.overrides == NOTHING
    assert said in (found.problem or "")


def test_the_rest_of_a_huge_comment_is_not_read() -> None:
    assert parse("/ptebot status\n" + "x" * 10_000_000) == Command(verb="status")
    found = parse("/ptebot status" + " " * 10_000_000)
    assert found is not None and "longer than 1000" in (found.problem or "")


def test_the_grammar_names_every_setting_and_every_word() -> None:
    for name in values.KEYS:
        assert f"[{name}=" in comments.GRAMMAR and f"`{name}`" in comments.EXPLAINED
    for line in comments.GRAMMAR.splitlines():
        found = parse(re.sub(r" \[[^]]*\]", "", line))
        assert found is not None and found.problem is None
    for name in (*BACKENDS, *PRECISIONS):
        assert f"`{name}`" in comments.EXPLAINED


def test_every_setting_reaches_its_field() -> None:
    found = parse(
        "/ptebot export revision=v1 model=a/b max-seq-len=7 precision=auto backends=openvino max-kl=.5 max-size=1GiB "
        "embedding=fp32 cache=fp32 calibration=a.txt"
    )
    assert found is not None
    assert asdict(found.overrides) == {
        "model": "a/b",
        "backends": ("openvino",),
        "precisions": ("auto",),
        "max_kl": 0.5,
        "max_size": 1 << 30,
        "embedding": "fp32",
        "cache": "fp32",
        "calibration": ("a.txt",),
        "max_seq_len": 7,
        "revision": "v1",
    }


_WORDS = st.one_of(
    st.sampled_from(["export", "status", "help", "/ptebot", *values.KEYS, "\u200b", "\x00", "`", "@a", "#1", ","]),
    st.builds(
        "{}={}".format,
        st.one_of(st.sampled_from(list(values.KEYS)), st.text(max_size=5)),
        st.one_of(
            st.sampled_from([*BACKENDS, *PRECISIONS, "a/b", "..", "main", "512", "xnnpack,portable", "=", "a/../b"]),
            st.text(max_size=12),
        ),
    ),
    st.text(max_size=8),
)
_PLAIN = re.compile(r"[A-Za-z0-9 _.,;:=/'-]*")


@settings(max_examples=1500, deadline=None, derandomize=True)
@given(st.lists(_WORDS, max_size=6), st.sampled_from([" ", "\t", "  ", "\n", "\u00a0", ""]))
def test_whatever_comes_is_understood_strictly_or_refused(words: list[str], space: str) -> None:
    found = parse(space.join(["/ptebot", *words]))
    if found is None:
        return
    _check(found)


@settings(max_examples=500, deadline=None, derandomize=True)
@given(st.text(max_size=300))
def test_any_text(body: str) -> None:
    assert parse(body) is None or body.startswith("/ptebot")
    found = parse(f"/ptebot {body}")
    assert found is not None
    _check(found)


def _check(found: Command) -> None:
    asked = found.overrides
    if found.problem is not None:
        assert found.verb == "help" and asked == NOTHING
        assert _PLAIN.fullmatch(found.problem) and len(found.problem) < 400 and "www" not in found.problem
    if found.verb != "export":
        assert asked == NOTHING
    for names, known in ((asked.backends, BACKENDS), (asked.precisions, PRECISIONS)):
        assert names is None or (names and set(names) <= set(known) and len(set(names)) == len(names))
    assert asked.max_seq_len is None or 1 <= asked.max_seq_len <= MOST_TOKENS
    if asked.model is not None:
        assert re.fullmatch(r"[A-Za-z0-9._+/-]{1,200}", asked.model)
        assert not asked.model.startswith(("/", "-")) and ".." not in asked.model.split("/")
    if asked.revision is not None:
        assert re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._/+-]{0,199}", asked.revision) and ".." not in asked.revision
