"""What a person gets: ``git clone`` and ``git lfs pull`` of a repository on the local GitHub, with the real tools."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from urllib.parse import quote, urlsplit, urlunsplit

from tests.localgithub import debian
from tests.localgithub.testing import LocalRepo


def clone(repo: LocalRepo, folder: Path, *, token: str = "", branch: str = "", lfs: bool = True) -> Path:
    """A clone in ``folder``, with the LFS files fetched.

    Raises:
        subprocess.CalledProcessError: git or git-lfs could not; what it said is in ``stderr``.
    """
    debian.command("git-lfs", "git-lfs")
    parts = urlsplit(repo.github.server_url)
    host = f"x-access-token:{quote(token)}@{parts.netloc}" if token else parts.netloc
    address = urlunsplit((parts.scheme, host, f"/{repo.full_name}.git", "", ""))
    options = ["--branch", branch] if branch else []
    git(folder.parent, "clone", "-q", *options, address, str(folder))
    if lfs:
        git(folder, "lfs", "pull")
    return folder


def git(folder: Path, *arguments: str) -> str:
    """git without anybody's configuration but LFS's filter; what it printed."""
    filters = {
        "filter.lfs.smudge": "git-lfs smudge --skip -- %f",
        "filter.lfs.process": "git-lfs filter-process --skip",
    }
    filters |= {"filter.lfs.clean": "git-lfs clean -- %f", "filter.lfs.required": "true"}
    settings = [word for name, value in filters.items() for word in ("-c", f"{name}={value}")]
    environment = {"PATH": os.environ["PATH"], "HOME": str(folder), "GIT_TERMINAL_PROMPT": "0"}
    environment |= {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "LC_ALL": "C.UTF-8"}
    done = subprocess.run(
        ["git", *settings, *arguments], cwd=folder, env=environment, check=True, capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    return done.stdout
