"""Commands that tests need beside Python's packages, from Debian when they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path

import pytest
from filelock import FileLock


def command(name: str, *packages: str) -> None:
    """Make sure of a command; without the right to install it, the test is skipped (which is a failure on CI)."""
    if shutil.which(name):
        return
    with FileLock(Path(tempfile.gettempdir()) / "ptebot-tests-apt.lock"):
        if not shutil.which(name):
            _install(name, packages)


def _install(name: str, packages: tuple[str, ...]) -> None:
    root = os.geteuid() == 0
    if not shutil.which("apt-get") or not (root or shutil.which("sudo")):
        pytest.skip(f"{name} is missing and cannot be installed: Debian has it in {' '.join(packages)}")
    apt = [*([] if root else ["sudo", "-n"]), "apt-get", "-qq", "-o", "DPkg::Lock::Timeout=300"]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    for arguments in (["update"], ["install", "-y", "--no-install-recommends", *packages]):
        done = subprocess.run([*apt, *arguments], check=False, capture_output=True, text=True, env=environment)
        if done.returncode:
            raise RuntimeError(f"apt-get {arguments[0]} for {name}: {done.stderr.strip()[-1000:]}")
