"""For every test: no one's login, no one's caches, and with ``CI=true`` no silent skips.

A test that skips because a part is missing proves nothing, so on CI such a skip is a failure. A test that
can only run on another operating system or processor says so with ``@pytest.mark.platform``.

``make test`` runs two processes (pytest-xdist, ``--dist loadfile``). A test goes to one of them with its whole file;
files that share what is made once for a session, or what the machine has once, go together (``SHARED``, ``TOGETHER``).
"""

from __future__ import annotations

import atexit
import json
import os
import shutil
import tempfile
from collections.abc import Generator, Iterator
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from tests.engine import DockerEngine
    from tools.postgres import Postgres

# A machine that is busy is not a defect.
settings.register_profile("ptebot", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("ptebot")

# huggingface_hub reads its environment when it is imported, hence here and not in a fixture.
_HOME = tempfile.mkdtemp(prefix="ptebot-tests-")
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)
for _name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_ENDPOINT", "HF_HUB_OFFLINE", "HF_HUB_DISABLE_XET"):
    os.environ.pop(_name, None)
os.environ |= {"HF_HOME": f"{_HOME}/hf", "PTEBOT_STATE": f"{_HOME}/state", "HF_HUB_DISABLE_TELEMETRY": "1"}

SHARED = {"docker_engine": "engine", "exported": "exported"}
"""Fixture of a session that takes minutes -> the group of every file that asks for it."""
TOGETHER = {"tests/bot/sandbox/": "engine", "tests/examples/": "examples"}
"""Folder -> the group of its files. An account for exports ends every process of its number, so sandboxes never run
beside one another, and some of them are Docker's; examples share what they keep of SmolLM2 in the user's cache."""
FIRST = (
    "engine",
    "examples",
    "exported",
    "tests/bench/test_quality.py",
    "tests/exporter/",
    "tests/bot/action/test_step.py",
    "tests/bot/test_",
    "tests/reliability/",
)
"""Beginnings of the groups that take longest, in the order they are handed out; what is short fills the end."""
_WORKER = "PYTEST_XDIST_WORKER"
if _WORKER in os.environ:
    # One thread for each process: two that compute with two threads each wait for one another (read by torch's import).
    os.environ.setdefault("OMP_NUM_THREADS", "1")


def _file(nodeid: str) -> str:
    return nodeid.partition("::")[0]


def _groups(items: list[pytest.Item]) -> dict[str, str]:
    """The group of each file."""
    groups = dict[str, str]()
    for item in items:
        file = _file(item.nodeid)
        asked = [SHARED[name] for name in getattr(item, "fixturenames", ()) if name in SHARED]
        asked += [group for folder, group in TOGETHER.items() if file.startswith(folder)]
        if asked or file not in groups:
            groups[file] = min(asked, default=file)
    return groups


def _turn(group: str) -> int:
    return next((turn for turn, start in enumerate(FIRST) if group.startswith(start)), len(FIRST))


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """In a process of several: tests in the order that groups are handed out in; the groups are told to who does."""
    if not hasattr(config, "workerinput"):
        return
    groups = _groups(items)
    seen = {group: number for number, group in enumerate(dict.fromkeys(groups.values()))}
    items.sort(key=lambda item: (_turn(groups[_file(item.nodeid)]), seen[groups[_file(item.nodeid)]]))
    told = Path(config.workerinput["ptebot_groups"])
    mine = told.with_suffix(f".{config.workerinput['workerid']}")
    mine.write_text(json.dumps(groups), encoding="utf-8")
    mine.replace(told)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    node.workerinput["ptebot_groups"] = f"{_HOME}/groups.json"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """``--dist loadfile`` with groups of files. (``loadgroup`` groups nothing from pytest 9.2 on: it writes groups into
    the names of tests, https://github.com/pytest-dev/pytest-xdist/issues/1386.)
    """
    if config.getoption("dist") != "loadfile":
        return None
    from xdist.scheduler import LoadFileScheduling

    class Groups(LoadFileScheduling):
        @cached_property
        def groups(self) -> dict[str, str]:
            """Known when every process has collected, which is before the first test is handed out."""
            told: dict[str, str] = json.loads(Path(_HOME, "groups.json").read_text(encoding="utf-8"))
            return told

        def _split_scope(self, nodeid: str) -> str:
            return self.groups[_file(nodeid)]

    return Groups(config, log)


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
