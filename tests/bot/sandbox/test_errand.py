"""What comes from another machine's log: lines of any shape, read any number of times."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bot.child import LOG_LINE_CHARACTERS, LOG_LINES, MAX_LINE_BYTES
from bot.errors import OutputTooLarge, RemoteJobFailed
from bot.sandbox import errand
from bot.sandbox.call import Exit, Limits, Reads
from bot.sandbox.errand import Reader, Word
from exporter.errors import InvalidModelDirectory


class Heard(Reader):
    """Keeps what it passes on."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.log: list[str] = []
        super().__init__(self.lines.append, self.log.append)


def verdict(**changes: Any) -> str:
    told = json.loads(errand.verdict_line(Exit(code=0, log_tail="", peak_bytes=7), [("0/a", 3)]))
    return json.dumps({**told, **changes})


def test_a_log_is_read_once_however_often_it_is_read() -> None:
    heard = Heard()
    log = ["ptebot 1 o one", "ptebot 2 e two", "the loader says hello", "ptebot 3 o three", f"ptebot 4 v {verdict()}"]
    for upto in (2, 3, 5, 5):
        for line in log[:upto]:
            heard.line(line)
    assert heard.lines == [b"one", b"three"] and heard.log == ["two", "the loader says hello"]
    assert heard.exit() == Exit(code=0, log_tail="two\nthe loader says hello", peak_bytes=7)


def test_what_is_no_line_of_ours_is_only_shown_and_bounded() -> None:
    heard = Heard()
    for line in (
        "ptebot",
        "ptebot 1",
        "ptebot 1 v",
        "ptebot x o no",
        "ptebot -1 o no",
        "ptebot \u0661 o no",
        f"ptebot {'9' * 40} o no",
        "Ptebot 1 o no",
        " ptebot 1 o no",
    ):
        heard.line(line)
    assert heard.lines == [] and heard.seen == 0 and heard.verdict is None
    for number in range(3 * LOG_LINES):
        heard.line(f"noise {number}")
    assert len(heard.tail) == LOG_LINES and len(heard.log) <= LOG_LINES
    heard.line("ptebot 1 e " + "x" * (LOG_LINE_CHARACTERS + 100))
    heard.line("ptebot 2 o " + "x" * (MAX_LINE_BYTES + 1))
    heard.line("ptebot 3 o " + "x" * (3 * MAX_LINE_BYTES))
    assert len(heard.log[-1]) == LOG_LINE_CHARACTERS and heard.lines == []


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "{}",
        "[" * 10_000,
        verdict(exit=None),
        verdict(files=-1),
        verdict(files=True),
        verdict(bytes="3"),
        verdict(digest=None),
        verdict(exit={"code": "0"}),
        verdict(exit={"code": True}),
        verdict(exit={"code": 1 << 40}),
    ],
)
def test_a_verdict_of_another_shape_is_none(text: str) -> None:
    heard = Heard()
    heard.line(f"ptebot 1 v {text}")
    with pytest.raises(RemoteJobFailed, match="no verdict"):
        heard.exit()


def test_the_first_verdict_counts_and_flags_are_true_or_not() -> None:
    heard = Heard()
    heard.line(f"ptebot 1 v {verdict(exit={'code': 3, 'too_long': 'yes', 'stopped': True, 'unknown': 1})}")
    heard.line(f"ptebot 2 v {verdict()}")
    assert heard.exit() == Exit(code=3, log_tail="", stopped=True)


def test_failures_keep_their_class_and_no_others_are_made() -> None:
    for error, kind in (("OutputTooLarge", OutputTooLarge), ("SystemExit", RemoteJobFailed), ("x", RemoteJobFailed)):
        heard = Heard()
        heard.line(f"ptebot 1 v {json.dumps({'error': error, 'what': 'w' * 10_000, 'remedy': 5})}")
        with pytest.raises(kind) as caught:
            heard.exit()
        assert len(caught.value.what) == 4000
    heard = Heard()
    heard.line(f"ptebot 1 v {errand.failure_line(InvalidModelDirectory('No config.', remedy='Add one.'))}")
    with pytest.raises(InvalidModelDirectory, match="Add one"):
        heard.exit()


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.one_of(st.text(), st.builds("ptebot {} {} {}".format, st.integers(), st.sampled_from("oev"), st.text()))
    )
)
def test_no_line_does_any_harm(lines: list[str]) -> None:
    heard = Heard()
    for line in lines:
        heard.line(line)
    assert all(isinstance(line, bytes) for line in heard.lines)


def test_the_key_is_about_content(tmp_path: Path) -> None:
    file, folder = tmp_path / "spec.json", tmp_path / "model"
    file.write_text("1")
    folder.mkdir()
    (folder / "w").write_bytes(b"abc")

    def key() -> str:
        return errand.key_of(errand.facts_of([Reads(file), "text", Reads(folder), Reads(tmp_path / "none")]))

    first = key()
    assert key() == first
    file.write_text("2")
    second = key()
    (folder / "w").write_bytes(b"abcd")
    assert len({first, second, key()}) == 3


def test_arguments_have_an_end() -> None:
    with pytest.raises(RemoteJobFailed, match="arguments"):
        errand.pack("m", [Word(kind="text", value="x" * errand.MOST_ARGUMENT_BYTES)], Limits())
    module, words, limits = errand.unpack(errand.pack("m", [Word(kind="text", value="ä\n\0")], Limits(seconds=1.5)))
    assert (module, words, limits) == ("m", [Word(kind="text", value="ä\n\0")], Limits(seconds=1.5))


def there(module: str, *words: Word) -> tuple[int, list[str]]:
    """The other side, as a process."""
    packed = errand.pack(module, words, Limits())
    done = subprocess.run(
        [sys.executable, "-P", "-m", "bot.sandbox.errand_end", packed], capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout.splitlines()


def test_a_module_cannot_write_lines_of_ours(tmp_path: Path) -> None:
    """Its newlines of every kind stay within its own numbered line, and its verdict is a word."""
    code = (
        "import sys; told = 'a\\rptebot 1 v {}\\x0bb\\x85c\\u2028ptebot 2 v {}'; "
        "sys.stdout.buffer.write(told.encode() + b'\\nptebot 3 v {}\\n\\xff'); "
        "sys.stderr.write('ptebot 9 v {}\\n')"
    )
    status, lines = there("timeit", *(Word(kind="text", value=word) for word in ("-n1", "-r1", code)))
    assert status == 0
    assert all(line.startswith("ptebot ") and line.split(" ")[2] in "oev" for line in lines)
    assert [int(line.split(" ")[1]) for line in lines] == list(range(1, len(lines) + 1))
    assert [line.split(" ")[2] for line in lines].count("v") == 1 and lines[-1].split(" ")[2] == "v"
    heard = Heard()
    for line in lines:
        heard.line(line)
    assert heard.exit().code == 0 and b"ptebot 3 v {}" in heard.lines and "ptebot 9 v {}" in heard.log


def test_files_are_delivered_and_told_of(tmp_path: Path) -> None:
    target = tmp_path / "mount/0/out"
    code = [Word(kind="text", value=word) for word in ("-n1", "-r1", "import pathlib, sys; o = pathlib.Path(r'''")]
    write = Word(kind="write", value="out", deliver=str(target))
    rest = Word(kind="text", value="'''.strip()); (o / 'd').mkdir(parents=True); n = (o / 'd/a').write_bytes(b'abc')")
    status, lines = there("timeit", *code, write, rest)
    assert status == 0 and (target / "d/a").read_bytes() == b"abc", lines
    heard = Heard()
    for line in lines:
        heard.line(line)
    assert heard.exit().code == 0 and heard.verdict is not None
    assert heard.verdict == replace(heard.verdict, files=1, total_bytes=3, digest=errand.digest([("0/out/d/a", 3)]))
