"""Patterns of paths."""

from __future__ import annotations

import time

import pytest

from bot import globs


@pytest.mark.parametrize(
    ("pattern", "fits", "not_fits"),
    [
        ("**", ["a", "a/b/c"], []),
        ("*", ["a", ".a"], ["a/b"]),
        ("models/**", ["models/a", "models/a/b", "models"], ["model/a", "x/models/a"]),
        ("models/", ["models/a", "models/a/b"], ["model"]),
        ("./models/*", ["models/a"], ["models/a/b"]),
        ("**/*.md", ["a.md", "x/y/a.md"], ["a.mdx", "a.md/b"]),
        ("a/**/b", ["a/b", "a/x/b", "a/x/y/b"], ["a/xb", "b"]),
        ("a/**/**/b", ["a/b", "a/x/b"], ["a"]),
        ("**/x/**", ["x", "a/x/b", "x/b"], ["ax"]),
        ("v?.[0-9]*", ["v1.0", "v1.0-rc"], ["v10.0", "v1.x"]),
        ("release/*", ["release/1"], ["release/1/2", "release"]),
        ("a", ["a"], ["a/b", "A", "aa"]),
    ],
)
def test_patterns(pattern: str, fits: list[str], not_fits: list[str]) -> None:
    assert [path for path in fits if not globs.fits(path, pattern)] == []
    assert [path for path in not_fits if globs.fits(path, pattern)] == []


def test_the_last_pattern_that_fits_decides() -> None:
    patterns = ["**", "!**/*.md", "models/README.md"]
    assert globs.selected("src/a.py", patterns) and globs.selected("models/README.md", patterns)
    assert not globs.selected("README.md", patterns)
    assert globs.any_selected(["README.md", "a.py"], patterns)
    assert not globs.any_selected(["README.md"], patterns) and not globs.any_selected([], patterns)


def test_no_pattern_is_slow() -> None:
    started = time.process_time()
    assert not globs.fits("a" * 4000, "*a" * 90 + "b")
    assert not globs.fits("/".join("a" * 2000), "/".join(["**", "a"] * 40 + ["b"]))
    assert time.process_time() - started < 5
