"""Commands that tests need beside Python's packages, from Debian when they are missing."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest


def command(name: str, *packages: str) -> None:
    """Make sure of a command; without the right to install it, the test is skipped (which is a failure on CI)."""
    if shutil.which(name):
        return
    if os.geteuid() != 0 or not shutil.which("apt-get"):
        pytest.skip(f"{name} is missing and cannot be installed: Debian has it in {' '.join(packages)}")
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    wait = ["-o", "DPkg::Lock::Timeout=300"]
    subprocess.run(["apt-get", "update", "-qq"], check=True, capture_output=True, env=environment)
    install = ["apt-get", *wait, "install", "-y", "-qq", "--no-install-recommends", *packages]
    subprocess.run(install, check=True, capture_output=True, env=environment)
