"""A ptebot that root runs, for tests: a process of its own with secrets in its environment and an account for exports.

Python may lie where only root can go (a home directory). Then the process gets a mount namespace of its own, in which
that directory may be passed through; nothing outside of the namespace changes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]
UID = 47_123
"""No account's number."""
SECRET = "hf_parentsOwnSecret"
TRY = "\nfor act in acts:\n try:\n  print('did', act())\n except OSError as e:\n  print(type(e).__name__)"
"""Ends a child's code that has ``acts``: prints what became of each."""
OUT = "Writes(Path('out'))"
"""The folder that a child writes, as one of its ``args``."""
LOOK = (
    "out = Path('out'); there = [out, *out.rglob('*')] if out.exists() else []\n"
    "found['out'] = {str(p): [p.stat().st_uid, oct(p.stat().st_mode)] for p in there}"
)
"""What is there of it ``after`` the child."""

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")


def _closed() -> Path | None:
    """The topmost directory above Python that other users may not pass."""
    python = Path(sys.base_prefix).resolve()
    return next((above for above in reversed(python.parents) if not above.stat().st_mode & 0o001), None)


def _passable(closed: Path) -> list[str]:
    """A command that runs another one where ``closed`` is replaced by a directory with nothing but Python in it."""
    python = Path(sys.base_prefix).resolve()
    script = (
        'mount --bind "$1" /mnt && mount -t tmpfs -o mode=0711 none "$0" '
        '&& mkdir -p "$1" && mount --move /mnt "$1" && shift && exec "$@"'
    )
    return ["unshare", "--mount", "--propagation", "private", "sh", "-c", script, str(closed), str(python)]


def passing() -> list[str]:
    """What a command begins with so that every user can start Python in it."""
    closed = _closed()
    return _passable(closed) if closed else []


def ptebot(code: str, *, cwd: Path, user: str | None = str(UID), **environ: str) -> dict[str, Any]:
    """Run ``code`` as root's ptebot; what it puts into ``found`` comes back.

    ``user`` None leaves PTEBOT_EXPORT_USER unset.
    """
    whole = f"found = {{}}\n{textwrap.dedent(code)}\nimport json, sys\njson.dump(found, sys.stdout, default=str)\n"
    env = {name: value for name, value in os.environ.items() if name != "PTEBOT_EXPORT_USER"}
    env |= {"HF_TOKEN": SECRET, "PYTHONPATH": str(ROOT), **environ} | (
        {} if user is None else {"PTEBOT_EXPORT_USER": user}
    )
    command = [*passing(), sys.executable, "-c", whole]
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


def open_folder() -> tempfile.TemporaryDirectory[str]:
    """A folder that every user may look into (pytest's own are closed)."""
    folder = tempfile.TemporaryDirectory(prefix="ptebot-test-", dir="/var/tmp")
    Path(folder.name).chmod(0o755)
    return folder


def child(code: str, *, cwd: Path, args: str = "", after: str = "", **environ: Any) -> dict[str, Any]:
    """``code`` in a child; what it printed, its exit code and its log. ``args``: more arguments, as Python.

    cProfile is a module of Python's own that runs a script with arguments.
    """
    script = cwd / "script.py"
    script.write_text(f"import os, signal, sys, time\nargs = sys.argv[1:]\n{code}\n")
    script.chmod(0o644)
    whole = f"""
from pathlib import Path
from bot.child import run_module
from bot.sandbox.call import Reads, Writes
lines = []
try:
    ended = run_module("cProfile", ["-o", "/dev/null", Reads(Path({str(script)!r})), {args}],
                       on_line=lambda line: lines.append(line.decode("utf-8", "replace")))
    found.update(code=ended.code, log=ended.log_tail)
except Exception as error:
    found.update(error=type(error).__name__, text=str(error))
found["lines"] = lines
{after}
"""
    return ptebot(whole, cwd=cwd, **environ)
