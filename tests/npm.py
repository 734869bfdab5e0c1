"""Single files of packages on npm, which pages in tests load; each is fetched once."""

from __future__ import annotations

import os
import subprocess
import tarfile
import tempfile
from pathlib import Path, PurePosixPath

from filelock import FileLock

from tests.localgithub import debian

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ptebot" / "tests"


def file_of(package: str, version: str, path: str) -> Path:
    """A file of one version of a package."""
    name = PurePosixPath(path)
    kept = CACHE / f"{name.stem}-{version}{name.suffix}"
    CACHE.mkdir(parents=True, exist_ok=True)
    with FileLock(f"{kept}.lock"):
        if not kept.exists():
            debian.command("npm", "npm", "nodejs")
            with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
                command = ["npm", "pack", "--silent", f"{package}@{version}"]
                packed = subprocess.run(command, cwd=scratch, check=True, capture_output=True, text=True, timeout=300)
                with tarfile.open(Path(scratch, packed.stdout.split()[-1])) as archive:
                    member = archive.extractfile(f"package/{path}")
                    assert member is not None
                    whole = Path(scratch, name.name)
                    whole.write_bytes(member.read())
                whole.replace(kept)
    return kept
