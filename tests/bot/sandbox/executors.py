"""The walls that the hostile exporter is tried on. To add one: an entry of ``EXECUTORS``."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bot.sandbox.call import Call, Exit
from exporter import report as reports
from tests.bot.reports import report
from tests.bot.sandbox.as_root import ROOT, SECRET, UID, passing
from tests.localgithub import debian


def _nothing() -> Mapping[str, Any]:
    return {}


@dataclass(frozen=True, kw_only=True)
class Behind:
    """One wall, and who stands in front of it."""

    executor: str
    """``module:Class``, made with ``options`` in the parent's process."""
    rung: str
    root: bool
    """Whether the parent is root, so that its child is another user."""
    uid: int
    """The child's where the parent is root, else the parent's; no two walls share one."""
    options: Mapping[str, Any] = field(default_factory=dict)
    facts: Mapping[str, Any] = field(default_factory=dict)
    """More that the hostile exporter is told; ``own_root``: it has a root file system of its own, with accounts."""
    whole: bool = True
    """Whether what only the parent's half of the wall decides is tried too, because that half is another one."""
    prepare: Callable[[], Mapping[str, Any]] = _nothing
    """Brings what is needed; gives more options."""


def bubblewrap() -> Mapping[str, Any]:
    """Debian's, installed where it is missing."""
    debian.command("bwrap", "bubblewrap")
    return {}


_LOCAL = {"executor": "bot.sandbox.ladder:Local", "rung": "landlock", "options": {"needed": True}}
_BUBBLEWRAP = {"executor": "bot.sandbox.bubblewrap:BubblewrapExecutor", "rung": "bubblewrap", "prepare": bubblewrap}

EXECUTORS: dict[str, Behind] = {
    "landlock, root": Behind(**_LOCAL, root=True, uid=UID + 48, whole=False),  # type: ignore[arg-type]
    "landlock": Behind(**_LOCAL, root=False, uid=UID + 64),  # type: ignore[arg-type]
    "bubblewrap, root": Behind(**_BUBBLEWRAP, root=True, uid=UID + 80, whole=False),  # type: ignore[arg-type]
    "bubblewrap": Behind(**_BUBBLEWRAP, root=False, uid=UID + 96, whole=False),  # type: ignore[arg-type]
}


OPEN = Behind(executor="tests.bot.sandbox.executors:Open", rung="none", root=False, uid=UID + 112)


class Open:
    """No wall at all, to see that the hostile exporter is one."""

    rung = "none"

    def run(self, call: Call, *, on_line: Callable[[bytes], None], on_log: Callable[[str], None]) -> Exit:
        """As ``Executor.run``, as far as a short one needs it."""
        words = [one if isinstance(one, str) else str(one.path) for one in call.args]
        with tempfile.TemporaryDirectory() as home:
            command = [sys.executable, "-m", call.module, *words]
            done = subprocess.run(command, cwd=home, capture_output=True, check=False)
        for line in done.stdout.splitlines():
            on_line(line)
        return Exit(code=done.returncode, log_tail=done.stderr.decode()[-3000:])


def run(behind: Behind, acts: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """What came of the acts of ``hostile_exporter``, one after the other, in one parent that is alive at the end."""
    options = {**behind.options, **behind.prepare()}
    folder = Path(tempfile.mkdtemp(prefix="ptebot-hostile-", dir="/var/tmp"))
    try:
        folder.chmod(0o755)
        work = folder / "work"
        work.mkdir()
        if not behind.root:
            os.chown(work, behind.uid, behind.uid)
        spec = {
            "executor": behind.executor,
            "args": [],
            "options": options,
            "uid": 0 if behind.root else behind.uid,
            "work": str(work),
            "secret": SECRET,
            "report": json.loads(reports.dumps(report())),
            "facts": dict(behind.facts),
            "acts": acts,
        }
        asked = folder / "spec.json"
        asked.write_text(json.dumps(spec))
        env = {name: value for name, value in os.environ.items() if name not in ("PTEBOT_SANDBOX", "TMPDIR")}
        env |= {"HF_TOKEN": SECRET, "PYTHONPATH": str(ROOT), "HOME": str(work / "data/home"), "OMP_NUM_THREADS": "1"}
        env |= {"PTEBOT_EXPORT_USER": str(behind.uid)}
        command = [*passing(), sys.executable, "-m", "tests.bot.sandbox.hostile_parent", str(asked), SECRET]
        done = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, timeout=300, check=False)
        assert done.returncode == 0, f"the parent ended with {done.returncode}: {done.stderr[-5000:]}"
        found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
        return found
    finally:
        shutil.rmtree(folder, ignore_errors=True)
