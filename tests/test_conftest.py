"""With CI=true a skip for a missing part fails, and one for another platform does not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SUITE = """
import pytest

def test_passes(): pass

def test_skips(): pytest.skip("a part is missing")

@pytest.mark.skipif(True, reason="by a condition")
def test_skipif(): pass

@pytest.mark.platform
@pytest.mark.skipif(True, reason="needs another system")
def test_platform(): pass

@pytest.mark.xfail(strict=True)
def test_xfail(): assert False
"""


def run(directory: Path, **environment: str) -> str:
    (directory / "conftest.py").write_text((ROOT / "tests/conftest.py").read_text())
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--continue-on-collection-errors",
        "-c",
        str(ROOT / "pyproject.toml"),
    ]
    env = {name: value for name, value in os.environ.items() if name != "CI"} | environment
    done = subprocess.run(
        [*command, str(directory)], check=False, cwd=directory, env=env, capture_output=True, text=True
    )
    return done.stdout


@pytest.mark.parametrize(
    ("ci", "expected"),
    [
        ("", "1 passed, 4 skipped, 1 xfailed"),
        ("true", "1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors"),
    ],
)
def test_skips_for_missing_parts_fail_on_ci_only(tmp_path: Path, ci: str, expected: str) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_package')\n")
    said = run(tmp_path, CI=ci)
    assert expected in said
    assert "a part is missing" in said
