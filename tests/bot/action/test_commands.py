"""Nothing that the Action prints is a workflow command but what it means as one."""

from __future__ import annotations

import base64
import io
import itertools
import subprocess
import sys
import time
from collections.abc import Callable
from typing import cast

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bot import tables
from bot.action import progress as progresses
from bot.action.commands import HIDDEN, Level, Log, forms, inert
from bot.action.progress import grouped
from bot.export_process import Progress
from tests.bot.action.runner_syntax import Command, commands, legacy_in_display, raw_commands
from tests.bot.reports import cell, failed, report

OURS = {"stop-commands", "group", "endgroup"}
HOSTILE = (
    "::error::x",
    "  \t::set-output name=a::b",
    "\r::add-mask::a",
    "a\r::add-mask::a",
    "a\n::group::x\nb",
    "a\x85::error::x",
    "a\u2028::error::x",
    "\ufeff::error::x",
    "\u200b::error::x",
    ":\u200d:error::x",
    ":\ufe0f:error::x",
    "\x1b[31m::error::x\x1b[0m",
    "\x00::error::x",
    "##[error]x",
    "text ##[set-output name=a]b",
    "#\u200b#[add-mask]x",
    "# #[error]x",
    "##\u00ad[error]x",
    "###[group]##[endgroup]",
    "::stop-commands::pause",
    "::" * 3000,
    "%0A::error::x",
)
BITS = ["::", ":", "#", "[", "]", "error", "add-mask", "stop-commands", "group", " ", "\t", "\r", "\n", "\x1b[0m"]
BITS += ["\u200b", "\ufe0f", "\u00ad", "\x00", "name=x", "%0A", ",", "\u2028", "\x85", "a", "é", "\ud800", "：", "＃"]
hostile = st.one_of(
    st.sampled_from(HOSTILE), st.lists(st.sampled_from(BITS), max_size=14).map("".join), st.text(max_size=40)
)


def make(on_github: bool = True) -> tuple[Log, Callable[[], str]]:
    stream = io.StringIO()
    return Log(stream, on_github=on_github), stream.getvalue


@settings(deadline=None)
@given(text=hostile)
@example(text="::error::x")
def test_what_is_said_is_no_command(text: str) -> None:
    out, said = make()
    out.say(text)
    out.detail(text)
    assert {one.name for one in commands(said())} <= {"stop-commands"}
    assert not legacy_in_display(said())
    assert {one.name for one in raw_commands(said())} <= {"stop-commands"}, "even with nothing switched off"


@settings(deadline=None)
@given(text=hostile, cuts=st.lists(st.integers(0, 40), max_size=5))
def test_half_a_line_is_no_line(text: str, cuts: list[int]) -> None:
    out, said = make()
    stream = out.stream()
    edges = sorted({min(cut, len(text)) for cut in cuts} | {0, len(text)})
    for start, end in itertools.pairwise(edges):
        stream.write(text[start:end])
        stream.flush()
    stream.drain()
    assert {one.name for one in commands(said())} <= {"stop-commands"}
    assert not legacy_in_display(said())


@settings(deadline=None)
@given(title=hostile, message=hostile, file=hostile, level=st.sampled_from(["notice", "warning", "error"]))
def test_an_annotation_is_one_command_whatever_it_says(title: str, message: str, file: str, level: str) -> None:
    out, said = make()
    out.annotate(cast(Level, level), title, message, file=file, line=3)
    (found,) = commands(said())
    assert found.name == level
    assert set(found.properties) <= {"title", "file", "line"}
    assert said().count("\n") == 1


@settings(deadline=None)
@given(title=hostile, inside=hostile, result=hostile)
def test_groups_stay_whole(title: str, inside: str, result: str) -> None:
    out, said = make()
    with out.group(title):
        out.say(inside)
        out.warning("title", "in a group")
    out.say(result)
    names = [one.name for one in commands(said())]
    expected = ["group", "stop-commands", "warning", "stop-commands", "endgroup"]
    assert names[:5] == expected and set(names[5:]) <= {"stop-commands"}


@settings(deadline=None)
@given(items=st.lists(st.tuples(hostile, hostile, hostile, hostile), max_size=4))
@example(items=[("cell", " ", "", ""), ("", "", "", "x")])
def test_progress_gives_only_groups(items: list[tuple[str, str, str, str]]) -> None:
    out, said = make()
    with grouped(out) as show:
        for stage, backend, precision, message in items:
            show(Progress(stage=stage, backend=backend, precision=precision, message=message, fraction=0.5))
    found = [one.name for one in commands(said()) if one.name != "stop-commands"]
    assert found == ["group", "endgroup"] * (len(found) // 2)
    assert not legacy_in_display(said())


@settings(deadline=None)
@given(text=hostile)
def test_tables_of_a_hostile_report_are_text(text: str) -> None:
    out, said = make()
    evil = report([cell(text, text, content=b"x", notes=[text]), failed(text, reason=text, failed_stage=text)])
    tables.show(out.console(), evil)
    assert {one.name for one in commands(said())} <= {"stop-commands"}
    assert not legacy_in_display(said())


def test_ordinary_text_stays_as_it_is() -> None:
    for line in ("std::vector<int>", "a: b", "# Heading", "[1/3] done", "naïve 模型 ✓", "", "  indented", "a[0] ## b"):
        assert inert(line) == line
    assert inert("a\tb") == "a    b"
    assert inert("::error::x") == "> ::error::x"
    assert inert("see ##[error]x") == "see # #[error]x"
    assert len(inert("x" * 10_000)) < 4100 and inert("x" * 10_000).endswith("(6,000 more characters)")


def test_lines_end_where_the_runner_ends_them() -> None:
    out, said = make()
    out.say("a\rb\r\nc\u2028d")
    assert said() == "a\nb\nc\nd\n"


def test_annotations_keep_their_text() -> None:
    out, said = make()
    out.error("A title: with, marks", "50% of\nit: a, b", file="a,b:c.py", line=7)
    assert commands(said()) == [
        Command("error", {"file": "a,b:c.py", "line": "7", "title": "A title: with, marks"}, "50% of\nit: a, b")
    ]
    out, said = make(on_github=False)
    out.error("Title", "one\ntwo", file="x.py")
    assert said() == "Error: Title (x.py)\n  one\n  two\n"


def test_a_tokens_every_form_is_masked_and_never_printed_again() -> None:
    token, url = "gh/s+secret value", "gh%2Fs%2Bsecret%20value"
    basic = base64.b64encode(f"x-access-token:{token}".encode()).decode()
    out, said = make()
    out.mask(token)
    masked = {one.data for one in commands(said()) if one.name == "add-mask"}
    assert {token, url, basic} <= masked
    before = len(said())
    out.say(f"Authorization: Basic {basic} {token} {url}")
    out.error(token, f"it was {token}", file=token)
    with out.group(token):
        print(token, file=out.stream())
    after = said()[before:]
    assert token not in after and basic not in after and url not in after and HIDDEN in after


def test_each_line_of_a_long_secret_is_masked_but_not_its_braces() -> None:
    key = '{\n  "private": "MIIE",\n  "id": "a long enough one"\n}\n'
    out, said = make()
    out.mask(key)
    masked = [one.data for one in commands(said())]
    assert '"private": "MIIE",' in masked and '"id": "a long enough one"' in masked
    assert "}" not in masked and "" not in masked
    assert forms("") == forms("\n \n") == []
    out.mask(None)


def test_away_from_github_nothing_is_a_command_and_no_secret_is_told() -> None:
    out, said = make(on_github=False)
    out.mask("a-secret")
    assert said() == ""
    with out.group("Title"), out.quiet():
        out.say("::error::x a-secret")
    out.notice("Done", "well")
    assert said() == "== Title\n> ::error::x ***\nNotice: Done\n  well\n"


def test_stop_tokens_are_used_once() -> None:
    out, said = make()
    with out.quiet():
        out.say("a")
        with out.group("g"):
            out.say("b")
        out.say("c")
        with out.quiet():
            out.warning("t", "w")
    out.say("::error::x")
    tokens = [one.data for one in commands(said()) if one.name == "stop-commands"]
    assert len(tokens) == len({*tokens}) >= 4
    assert all(len(token) == 32 for token in tokens)
    assert [one.name for one in commands(said()) if one.name not in ("stop-commands",)] == [
        "group",
        "endgroup",
        "warning",
    ]


def test_a_bar_leaves_its_last_picture() -> None:
    out, said = make()
    stream = out.stream()
    for percent in range(0, 101, 25):
        stream.write(f"\r{percent}%")
    stream.write("\r\nnext\n")
    stream.write("x" * 200_000)
    stream.drain()
    first, second, third = said().splitlines()
    assert (first, second) == ("100%", "next") and len(third) < 4100


def test_the_log_of_a_job_reads_as_a_table_of_contents(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [100.0]
    monkeypatch.setattr(progresses.time, "monotonic", lambda: clock[0])
    out, said = make(on_github=False)
    with grouped(out) as show:
        for seconds, item in (
            (0.0, Progress(stage="check", fraction=0.0, message="reading tiny")),
            (1.0, Progress(stage="load", message="loading 1 M parameters")),
            (2.0, Progress(stage="lower", backend="xnnpack", precision="fp32", fraction=0.2, message="lowering")),
            (3.0, Progress(stage="parity", backend="xnnpack", precision="fp32", fraction=0.3, message="prose")),
            (0.1, Progress(stage="parity", backend="xnnpack", precision="fp32", fraction=0.4, message="code")),
            (4.0, Progress(stage="cell", backend="xnnpack", precision="fp32", message="ran")),
            (0.0, Progress(stage="done", fraction=1.0, message="1 of 1 files are good")),
        ):
            clock[0] += seconds
            show(item)
    assert said() == (
        "== Check the model\n"
        "[    0.0 s]   0% check: reading tiny\n"
        "Check the model: 1.0 s\n"
        "== Load the model\n"
        "[    1.0 s]      load: loading 1 M parameters\n"
        "Load the model: 2.0 s\n"
        "== xnnpack fp32\n"
        "[    3.0 s]  20% lower: lowering\n"
        "[    6.0 s]  30% parity: prose\n"
        "[   10.1 s]      cell: ran\n"
        "xnnpack fp32: ran, 7.1 s\n"
        "1 of 1 files are good\n"
    )


def test_a_long_silence_is_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(progresses, "SILENCE_SECONDS", 0.05)
    out, said = make()
    with grouped(out) as show:
        show(Progress(stage="lower", backend="xnnpack", message="lowering"))
        while "still at it: lower: lowering" not in said():
            time.sleep(0.01)
    assert [one.name for one in commands(said()) if one.name != "stop-commands"] == ["group", "endgroup"]


PROGRAM = """
import ctypes, faulthandler, logging, os, subprocess, sys
handler = logging.StreamHandler()
from bot.action.commands import Log
from bot.action.stdio import taken_over
log = Log(sys.stdout, on_github=True)
log.mask("a-secret")
libc = ctypes.CDLL(None)
with taken_over(log):
    print("::error::print a-secret")
    print("\\r##[error]stderr", file=sys.stderr)
    logging.getLogger().addHandler(handler)
    logging.warning("::error::logging")
    os.write(1, b"::error::half")
    os.write(1, b" a line\\n")
    os.write(2, b"\\xff\\n::error::bytes\\n")
    libc.puts(b"::error::libc")
    subprocess.run([sys.executable, "-c", "print('::error::child')"])
    sys.__stdout__.write("::error::held back")
    faulthandler.dump_traceback()
    with log.group("group"):
        log.say("inside")
    log.error("ours", "is a command")
print("::notice::after")
"""


def test_nothing_prints_past_the_log() -> None:
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, check=True, timeout=60)
    said, errors = ran.stdout.decode(), ran.stderr.decode()
    assert errors == "", "one stream: two would be read by two threads, and blocks would not hold"
    assert [one.name for one in commands(said) if one.name != "stop-commands"][-4:] == [
        "group",
        "endgroup",
        "error",
        "notice",
    ]
    assert [one for one in commands(said) if one.name == "error"] == [
        Command("error", {"title": "ours"}, "is a command")
    ]
    for word in ("print", "stderr", "logging", "half a line", "bytes", "libc", "child", "held back", "Current thread"):
        assert word in said
    assert "a-secret" not in said.split("::add-mask::")[-1].partition("\n")[2]
