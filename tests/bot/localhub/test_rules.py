"""Which files are large: .gitattributes as git reads it."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from bot.localhub.rules import DEFAULT_GITATTRIBUTES, ignored, is_large, track, tracked

PATHS = [
    "m.safetensors", "deep/er/m.pte", "config.json", "x.bin.json", "events.out.tfevents.1", "saved_model/v/x.txt",
    "saved_model.txt", "a.PTE", "dir.bin/readme.md", "with space.bin", "README.md", "pytorch_model.bin",
]  # fmt: skip
RULES = [
    DEFAULT_GITATTRIBUTES,
    "*.json filter=lfs\n*.json -filter\n",
    "*.md filter=lfs diff=lfs\n# *.txt filter=lfs\n\n*.json   filter=other\n",
    "deep/er/* filter=lfs\n/README.md filter=lfs\n",
    "with[[:space:]]space.bin filter=lfs\n",
]


@pytest.mark.parametrize("attributes", RULES)
def test_agrees_with_git(attributes: str, tmp_path: Path) -> None:
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitattributes").write_text(attributes)
    command = ["git", "-C", str(tmp_path), "check-attr", "filter", "-z", "--", *PATHS]
    output = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split("\0")
    expected = {path: value == "lfs" for path, value in zip(output[0::3], output[2::3], strict=False)}
    assert {path: tracked(path, attributes) for path in PATHS} == expected


def test_large_and_binary_files_need_no_rule() -> None:
    assert is_large("x.txt", 11, b"text", "", 10)
    assert not is_large("x.txt", 10, b"text", "", 10)
    assert is_large("x", 3, b"\0ab", "", 10)
    assert is_large("x", 10, b"\xff\xfe\xfd text that follows", "", 10)
    assert not is_large("x", 600, ("ü" * 300).encode()[:511], "", 1000)  # the sample ends inside a character


@pytest.mark.parametrize("path", ["plain.xyz", "with space.xyz", "star*[x]?.xyz", "dir/a b.xyz"])
def test_track_adds_a_line_that_git_understands(path: str, tmp_path: Path) -> None:
    attributes = track("*.bin filter=lfs", [path, "x.bin"])
    assert attributes.startswith("*.bin filter=lfs\n")
    assert "x.bin" not in attributes
    assert tracked(path, attributes)
    assert track(attributes, [path]) == attributes
    subprocess.run(["git", "init", "-q", str(tmp_path)], check=True)
    (tmp_path / ".gitattributes").write_text(attributes)
    command = ["git", "-C", str(tmp_path), "check-attr", "filter", "--", path]
    assert subprocess.run(command, check=True, capture_output=True, text=True).stdout.endswith("filter: lfs\n")


@pytest.mark.parametrize(
    ("path", "rules", "expected"),
    [
        ("a.log", "*.log", True), ("d/a.log", "*.log", True), ("a.log", "*.log\n!a.log", False),
        ("a.txt", "*.log", False),
        ("build/x", "build/", True), ("build", "build/", False), ("a/build/x", "build/", True), ("a/b", "/b", False),
        ("b", "/b", True), ("a", "# a", False), ("a/b/c", "a/b", True),
    ],
)  # fmt: skip
def test_ignored(path: str, rules: str, expected: bool) -> None:
    assert ignored(path, rules) is expected
