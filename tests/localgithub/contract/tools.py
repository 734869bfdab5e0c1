"""prism and GitHub's OpenAPI description from npm, installed once into the user's cache.

In: nothing. Out: their paths. The folder is named by the versions, so new versions install beside old ones.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path

from filelock import FileLock

from tests.localgithub import debian

PRISM = "5.14.2"
OPENAPI = "23.0.2"


@dataclass(frozen=True)
class Tools:
    """``prism``: the command; ``openapi``: the description of api.github.com (OpenAPI 3.0, JSON)."""

    prism: Path
    openapi: Path


def cache() -> Path:
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "ptebot" / "tests" / f"prism-{PRISM}-openapi-{OPENAPI}"


def tools() -> Tools:
    """The tools, installed when they are not there yet (16 s and 475 MB on the machine where this was written)."""
    folder = cache()
    folder.parent.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{folder}.lock"):
        if not (folder / "package.json").is_file():
            _install(folder)
    modules = folder / "node_modules"
    return Tools(
        modules / "@stoplight" / "prism-cli" / "dist" / "index.js",
        modules / "@octokit" / "openapi" / "generated" / "api.github.com.json",
    )


def _install(folder: Path) -> None:
    """Install into a folder beside, then rename: what stands under the name is whole."""
    debian.command("npm", "npm", "nodejs")
    wanted = [f"@stoplight/prism-cli@{PRISM}", f"@octokit/openapi@{OPENAPI}"]
    staged = Path(tempfile.mkdtemp(prefix="installing-", dir=folder.parent))
    try:
        (staged / "package.json").write_text(json.dumps({"private": True}))
        command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--save-exact", *wanted]
        subprocess.run(command, cwd=staged, check=True, capture_output=True, timeout=600)
        shutil.rmtree(folder, ignore_errors=True)
        staged.rename(folder)
    finally:
        shutil.rmtree(staged, ignore_errors=True)
