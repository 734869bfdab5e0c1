"""What an export would put into a repository: its files, manifest and card, and the operations that get there.

Stage 5. In: a report and the directory with its files, and what a branch has. Out: the Hub's commit operations,
only for what differs. Reads files here, asks no Hub.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import CommitOperationAdd, CommitOperationDelete

from bot.errors import OutputNotTrusted
from bot.hashes import git_oid, git_oid_of
from bot.hubapi import TreeFile
from bot.publish import words
from bot.publish.card import FOLDER, MANIFEST, section
from bot.publish.markdown import SAFE_PATH
from bot.publish.splice import splice
from bot.publish.state import CARD, Branch
from exporter import report as reports
from exporter.report import Cell, Report

Operation = CommitOperationAdd | CommitOperationDelete


@dataclass(frozen=True)
class Offer:
    """One export, ready to be published."""

    report: Report
    section: str
    files: dict[str, tuple[Path, Cell]]
    """Path in the repository to the local file and its cell."""

    @property
    def size(self) -> str:
        """How much there is, in words."""
        total = sum(cell.size_bytes or 0 for _, cell in self.files.values())
        return f"{len(self.files)} file{'' if len(self.files) == 1 else 's'}, {words.size(total)}"

    @property
    def manifest(self) -> bytes:
        return reports.dumps(self.report).encode()

    def card(self, readme: bytes | None) -> bytes:
        """The owner's card with our section; raises CardInvalid."""
        return splice(readme, self.section)

    def operations(self, branch: Branch, card: bytes | None) -> list[Operation]:
        """What must change on ``branch``.

        Args:
            card: the README.md that the section goes into, which need not be the branch's own.

        Raises:
            CardInvalid: the card cannot take the section.
            OutputNotTrusted: a file changed since the export was checked.
        """
        wanted: list[Operation] = []
        for path, (local, cell) in self.files.items():
            if _has(branch.files.get(path), local, cell):
                continue
            add = CommitOperationAdd(path_in_repo=path, path_or_fileobj=local)
            if add.upload_info.sha256.hex() != cell.sha256:
                raise OutputNotTrusted(f"{cell.file} does not have the SHA-256 that the report states.")
            wanted.append(add)
        there = branch.files.get(MANIFEST)
        if there is None or there.oid != git_oid(self.manifest):
            wanted.append(CommitOperationAdd(path_in_repo=MANIFEST, path_or_fileobj=self.manifest))
        spliced = self.card(card)
        if spliced != branch.card:
            wanted.append(CommitOperationAdd(path_in_repo=CARD, path_or_fileobj=spliced))
        stale = sorted(branch.our_files() - self.files.keys())
        return wanted + [CommitOperationDelete(path_in_repo=path, is_folder=False) for path in stale]


def make_offer(report: Report, out_dir: Path, *, repo_id: str, command: str) -> Offer:
    """An offer of the good cells' files; raises OutputNotTrusted where one is not what the report says."""
    files = {}
    for cell in report.good_cells:
        name = cell.file or ""
        path = out_dir / name
        if not SAFE_PATH.fullmatch(name) or not name.startswith(f"{cell.backend}/") or not name.endswith(".pte"):
            raise OutputNotTrusted(f"The report names its file for {cell.backend} {cell.precision} {name[:200]!r}.")
        if path.is_symlink() or path.parent.is_symlink() or not path.is_file():
            raise OutputNotTrusted(f"{name} is missing in {out_dir}, or a link.")
        if path.stat().st_size != cell.size_bytes:
            raise OutputNotTrusted(f"{name} has {path.stat().st_size} bytes, not the report's {cell.size_bytes}.")
        files[f"{FOLDER}/{name}"] = (path, cell)
    return Offer(report, section(report, command=command, repo_id=repo_id), files)


def _has(there: TreeFile | None, local: Path, cell: Cell) -> bool:
    """Whether the branch has this file with this content."""
    if there is None or there.size_bytes != cell.size_bytes:
        return False
    return there.sha256 == cell.sha256 if there.sha256 is not None else there.oid == git_oid_of(local)
