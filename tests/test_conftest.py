"""With CI=true a skip for a missing part fails, and one for another platform does not; what goes to which process."""

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


TWO = ("-n", "2", "--dist", "loadfile", "--no-loadscope-reorder")
SHARING = """
import os, pathlib, pytest

@pytest.fixture(scope="session")
def docker_engine(): pass

@pytest.mark.parametrize("text", ["a@b"])
def test_which(text, request{wanted}):
    pathlib.Path(__file__).with_suffix(".worker").write_text(os.environ.get("PYTEST_XDIST_WORKER", "-"))

def test_besides(): assert {holds}
"""


def run(directory: Path, *options: str, **environment: str) -> str:
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
    left_out = ("CI", "PYTEST_XDIST_WORKER", "PYTEST_XDIST_WORKER_COUNT", "PYTEST_XDIST_TESTRUNUID")
    env = {name: value for name, value in os.environ.items() if name not in left_out} | environment
    done = subprocess.run(
        [*command, *options, str(directory)], check=False, cwd=directory, env=env, capture_output=True, text=True
    )
    return done.stdout


@pytest.mark.parametrize("options", [(), TWO], ids=["one process", "two"])
@pytest.mark.parametrize(
    ("ci", "expected"),
    [
        ("", "1 passed, 4 skipped, 1 xfailed"),
        ("true", "1 failed, 1 passed, 1 skipped, 1 xfailed, 2 errors"),
    ],
)
def test_skips_for_missing_parts_fail_on_ci_only(
    tmp_path: Path, ci: str, expected: str, options: tuple[str, ...]
) -> None:
    (tmp_path / "test_suite.py").write_text(SUITE)
    (tmp_path / "test_module.py").write_text("import pytest\npytest.importorskip('no_such_package')\n")
    said = run(tmp_path, *options, CI=ci)
    assert expected in said
    assert "a part is missing" in said


def sharing(directory: Path) -> None:
    """Five files; the first, the third and the last ask for the engine, and the last has a test that fails."""
    for number in range(5):
        wanted = ", docker_engine" if number % 2 == 0 else ""
        text = SHARING.format(wanted=wanted, holds=number < 4)
        (directory / f"test_{number}.py").write_text(text)


def test_files_that_share_an_engine_go_to_one_process(tmp_path: Path) -> None:
    sharing(tmp_path)
    said = run(tmp_path, *TWO)
    assert "1 failed, 9 passed" in said
    assert "test_4.py::test_besides - assert False" in said, said
    where = [(tmp_path / f"test_{number}.worker").read_text() for number in range(5)]
    assert where[0] == where[2] == where[4] and set(where) == {"gw0", "gw1"}


def test_one_process_stays_one(tmp_path: Path) -> None:
    sharing(tmp_path)
    assert "1 failed, 9 passed" in run(tmp_path, *TWO, "-n0")
    assert {(tmp_path / f"test_{number}.worker").read_text() for number in range(5)} == {"-"}
