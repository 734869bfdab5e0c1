"""What an export would put into a repository: its files, manifest and card, and the changes that get there.

Stage 5. In: a report and the directory with its files, and what a branch has. Out: files to write and to delete,
only where something differs. Reads files here, asks no host.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bot.errors import OutputNotTrusted
from bot.hashes import git_oid, git_oid_of
from bot.hubapi import TreeFile
from bot.publish import quality_plot, quality_svg, words
from bot.publish.card import FOLDER, MANIFEST, section
from bot.publish.markdown import SAFE_PATH
from bot.publish.places import Place
from bot.publish.quality import PLOT
from bot.publish.splice import splice
from bot.publish.state import CARD, Branch
from exporter import report as reports
from exporter.report import Cell, Report


@dataclass(frozen=True, kw_only=True)
class Put:
    """A file to write."""

    path: str
    content: Path | bytes
    size_bytes: int
    sha256: str | None = None
    """What the content must have, where it was proven before; whoever sends it compares."""


@dataclass(frozen=True, kw_only=True)
class Delete:
    """A file of ours to take away."""

    path: str


Change = Put | Delete


@dataclass(frozen=True)
class Offer:
    """One export, ready to be published."""

    report: Report
    section: str
    files: dict[str, tuple[Path, Cell]]
    """Path in the repository to the local file and its cell."""
    front_matter: bool = True
    """Whether a card without front matter gets one, for the tag ``executorch``."""
    in_tree: bool = True
    """False where the files lie beside the tree, on a release."""

    @property
    def size(self) -> str:
        """How much there is, in words."""
        total = sum(cell.size_bytes or 0 for _, cell in self.files.values())
        return f"{len(self.files)} file{'' if len(self.files) == 1 else 's'}, {words.size(total)}"

    @property
    def manifest(self) -> bytes:
        return reports.dumps(self.report).encode()

    @property
    def plot(self) -> bytes | None:
        """What the section shows as ``PLOT``; None where it shows none."""
        drawing = quality_plot.scatter(self.report)
        return quality_svg.document(drawing) if drawing is not None else None

    def card(self, readme: bytes | None) -> bytes:
        """The owner's card with our section; raises CardInvalid."""
        return splice(readme, self.section, front_matter=self.front_matter)

    def changes(self, branch: Branch, card: bytes | None) -> list[Change]:
        """What must change on ``branch``.

        Args:
            card: the README.md that the section goes into, which need not be the branch's own.

        Raises:
            CardInvalid: the card cannot take the section.
        """
        wanted: list[Change] = []
        files = self.files if self.in_tree else {}
        for path, (local, cell) in files.items():
            if not _has(branch.files.get(path), local, cell):
                wanted.append(Put(path=path, content=local, size_bytes=cell.size_bytes or 0, sha256=cell.sha256))
        for path, content in ((PLOT, self.plot), (MANIFEST, self.manifest)):
            there = branch.files.get(path)
            if content is not None and (there is None or there.oid != git_oid(content)):
                wanted.append(Put(path=path, content=content, size_bytes=len(content)))
        spliced = self.card(card)
        if spliced != branch.card:
            wanted.append(Put(path=CARD, content=spliced, size_bytes=len(spliced)))
        kept = {*files, *([PLOT] if self.plot is not None else [])}
        stale = sorted(branch.our_files() - kept)
        return wanted + [Delete(path=path) for path in stale]


def make_offer(report: Report, out_dir: Path, *, place: Place, command: str) -> Offer:
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
    return Offer(report, section(report, command=command, place=place), files)


def _has(there: TreeFile | None, local: Path, cell: Cell) -> bool:
    """Whether the branch has this file with this content."""
    if there is None or there.size_bytes != cell.size_bytes:
        return False
    return there.sha256 == cell.sha256 if there.sha256 is not None else there.oid == git_oid_of(local)
