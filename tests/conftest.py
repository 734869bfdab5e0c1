"""For every test: no one's login, no one's caches, and with ``CI=true`` no silent skips.

A test that skips because a part is missing proves nothing, so on CI such a skip is a failure. A test that
can only run on another operating system or processor says so with ``@pytest.mark.platform``.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.engine import DockerEngine
    from tools.postgres import Postgres

# huggingface_hub reads its environment when it is imported, hence here and not in a fixture.
_HOME = tempfile.mkdtemp(prefix="ptebot-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET"):
    os.environ.pop(_name, None)
os.environ |= {"HF_HOME": f"{_HOME}/hf", "PTEBOT_STATE": f"{_HOME}/state", "HF_HUB_DISABLE_TELEMETRY": "1"}


def _no_skips() -> bool:
    return os.environ.get("CI", "").lower() == "true"


def _fail_instead(report: Any, excused: bool) -> None:
    if _no_skips() and report.skipped and not excused and not hasattr(report, "wasxfail"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        report.outcome = "failed"
        report.longrepr = f"With CI=true nothing is skipped for a missing part: {reason}"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    _fail_instead(report, excused=item.get_closest_marker("platform") is not None)
    return report


@pytest.hookimpl(wrapper=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    _fail_instead(report, excused=False)
    return report


@pytest.fixture(scope="session")
def docker_engine() -> Iterator[DockerEngine]:
    """A real Docker engine that has the action's image; made when the first test asks for it."""
    from tests import engine

    with engine.docker_engine() as made:
        print(f"\nDocker engine: {made.seconds}")
        yield made


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[Postgres]:
    """A real PostgreSQL server; started when the first test asks for it."""
    from tests import postgres

    with postgres.server() as found:
        yield found


@pytest.fixture
def postgres_url(postgres_server: Postgres) -> Iterator[str]:
    """A fresh database's address."""
    from tests import postgres

    with postgres.database(postgres_server) as url:
        yield url
