"""The files that a step leaves in the workspace, owned by whoever owns the workspace. Stage 6.

In: a finished export's folder. Out: the same files below the ``output`` folder, whole or not at all. The runner
starts the Action's container as root, and the steps after it run as a plain user who has to be able to read,
upload and delete what was left.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from bot.errors import OutputNotTrusted
from bot.publish.markdown import SAFE_PATH
from exporter.errors import OutputNotWritable

MANIFEST_NAME = "manifest.json"


class Leaving:
    """The ``output`` folder of one step.

    Args:
        workspace: the folder that the runner shares with the other steps.
        output: a folder of it, new or empty.
    """

    def __init__(self, workspace: Path, output: Path) -> None:
        self._workspace, self._output = workspace, output

    def export(self, out_dir: Path, name: str) -> Path:
        """Put a finished export into its own folder; the folder. One that is there already is replaced.

        Args:
            name: one plain path component.

        Raises:
            OutputNotTrusted: the export holds something that is neither a folder nor a plain file.
            OutputNotWritable: the workspace does not take the files.
        """
        if not SAFE_PATH.fullmatch(name) or "/" in name or name in (".", ".."):
            raise OutputNotTrusted(f"{name[:200]!r} cannot name a folder.")
        with _told(self._output):
            self._output.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryDirectory(prefix=f".{name}.", suffix=".partial", dir=self._output) as scratch:
                made = Path(scratch, name)
                _copy(out_dir, made)
                target = self._output / name
                if target.is_symlink() or target.is_file():
                    target.unlink()
                shutil.rmtree(target, ignore_errors=True)
                made.replace(target)
            self._give_back()
        return target

    def manifest(self, name: str, text: bytes) -> Path:
        """Put a manifest beside an export's files; its path."""
        path = self._output / name / MANIFEST_NAME
        with _told(self._output):
            path.parent.mkdir(parents=True, exist_ok=True)
            partial = path.with_name(f".{MANIFEST_NAME}.partial")
            partial.write_bytes(text)
            partial.replace(path)
            self._give_back()
        return path

    def relative(self, path: Path) -> str:
        """The path as the steps after this one see it: a container's own paths mean nothing to them."""
        return path.relative_to(self._workspace).as_posix()

    def _give_back(self) -> None:
        """Everything below the output folder, and what was made above it, to the workspace's owner."""
        if os.geteuid() != 0:
            return
        owner = self._workspace.stat()
        paths = [path for path in (self._output, *self._output.parents) if self._workspace in path.parents]
        for path in (*paths, *self._output.rglob("*")):
            if path.lstat().st_uid == 0:
                os.chown(path, owner.st_uid, owner.st_gid, follow_symlinks=False)


def _copy(source: Path, target: Path) -> None:
    """A folder of plain files: linked where both are on one disk, else copied. What an export wrote is hostile."""
    target.mkdir()
    for entry in sorted(os.scandir(source), key=lambda one: one.name):
        there = target / entry.name
        if entry.is_dir(follow_symlinks=False):
            _copy(Path(entry.path), there)
        elif entry.is_file(follow_symlinks=False):
            try:
                os.link(entry.path, there, follow_symlinks=False)
            except OSError:
                shutil.copyfile(entry.path, there, follow_symlinks=False)
            there.chmod(0o644)
        else:
            raise OutputNotTrusted(
                f"The export holds {entry.name[:200]!r}, which is neither a folder nor a plain file."
            )


@contextmanager
def _told(folder: Path) -> Iterator[None]:
    """What the workspace does not take, as a failure that says where; a full disk stays one."""
    try:
        yield
    except (PermissionError, NotADirectoryError, FileExistsError) as error:
        raise OutputNotWritable(f"{folder} cannot be written to: {error.strerror}.") from None
