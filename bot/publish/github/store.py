"""Where the ``.pte`` files of a repository on GitHub lie: in its tree through Git LFS, or on a release. Stage 5.

In: an offer and the changes that a commit will make. Out: the files stored, before anything points to them; and what
of them a commit, its manifest and its card find there. To add a place, add a class and a line to ``STORES``.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, Protocol

from bot.errors import LargeFileRefused
from bot.export_process import OnProgress, Progress
from bot.githubapi import Client
from bot.hubapi import TreeFile
from bot.publish import words
from bot.publish.github import lfs, names
from bot.publish.github.lfs import Large
from bot.publish.github.read import Reader, Repository
from bot.publish.github.release import Attachment, Shelf
from bot.publish.offer import Change, Offer, Put
from bot.publish.places import FOLDER, InTheClone, OnARelease, Place
from bot.publish.state import Branch
from exporter.report import Report

Storing = Literal["lfs", "release"]


@dataclass(frozen=True, kw_only=True)
class Setting:
    """What every store works with."""

    client: Client
    reader: Reader
    folder: str
    progress: OnProgress


class Store(Protocol):
    """A place for files."""

    in_tree: bool
    """Whether the tree holds the files, or their pointers."""

    def __init__(self, setting: Setting) -> None: ...

    def words(self) -> str:
        """What storing changes in the repository, as Markdown inside a sentence."""

    def place(self, repo: Repository, report: Report) -> Place:
        """Where readers of the card find the files."""

    def seen(self, repo: Repository, branch: Branch) -> Branch:
        """A branch with what this store has of it."""

    def besides(self, repo: Repository, branch: Branch) -> list[Put]:
        """What a commit on ``branch`` needs besides the files, by paths from the model's folder."""

    def put(self, repo: Repository, head: str, branch: str, offer: Offer, changes: list[Change]) -> None:
        """Store the files.

        Args:
            head: the base branch's commit.
            branch: the name of the branch that gets the commit.
            changes: what the commit will change.
        """


class InLfs:
    """Git LFS: pointers in the tree, and a ``.gitattributes`` of their own that says so to git."""

    in_tree = True

    def __init__(self, setting: Setting) -> None:
        self._setting = setting

    def words(self) -> str:
        return "the files above through Git LFS, which a `.gitattributes` of their own folder says"

    def place(self, repo: Repository, report: Report) -> Place:
        return InTheClone(self._setting.folder)

    def seen(self, repo: Repository, branch: Branch) -> Branch:
        return branch

    def besides(self, repo: Repository, branch: Branch) -> list[Put]:
        listed = branch.files.get(names.ATTRIBUTES)
        have = self._setting.reader.blob(repo, listed.oid) if listed else b""
        if names.ATTRIBUTES_LINE.strip() in have.splitlines():
            return []
        wanted = have + (b"\n" if have and not have.endswith(b"\n") else b"") + names.ATTRIBUTES_LINE
        return [Put(path=names.ATTRIBUTES, content=wanted, size_bytes=len(wanted))]

    def put(self, repo: Repository, head: str, branch: str, offer: Offer, changes: list[Change]) -> None:
        large = [
            Large(path=one.path, local=one.content, sha256=one.sha256 or "", size_bytes=one.size_bytes)
            for one in changes
            if isinstance(one, Put) and isinstance(one.content, Path)
        ]
        if large and self._setting.reader.lfs_elsewhere(repo, head):
            raise LargeFileRefused(
                f"The .lfsconfig of {repo.full_name} sends Git LFS to another server than GitHub.",
                remedy="Set `storage: release` to attach the files to a release.",
            )
        storage = lfs.Storage(self._setting.client, repo.clone_url)
        storage.store(large, branch, telling(self._setting.progress, "uploading to Git LFS"))


class OnRelease:
    """A prerelease for each model; card and manifest alone are in the tree."""

    in_tree = False

    def __init__(self, setting: Setting) -> None:
        self._setting = setting
        self._tag = names.tag(setting.folder)
        self._shelf = Shelf(setting.client, self._tag)

    def words(self) -> str:
        return f"nothing for the files above, which are attached to the release `{self._tag}`"

    def place(self, repo: Repository, report: Report) -> Place:
        urls = {cell.file or "": names.asset_url(repo.html_url, self._tag, cell) for cell in report.good_cells}
        return OnARelease(self._setting.folder, self._tag, f"{repo.html_url}/releases/tag/{self._tag}", urls)

    def seen(self, repo: Repository, branch: Branch) -> Branch:
        if branch.manifest is None:
            return branch
        linked = branch.card is not None and f"/{self._tag}/".encode() in branch.card
        assets = self._shelf.assets(repo) if linked else {}
        attached = {}
        for cell in branch.manifest.good_cells:
            there = assets.get(names.asset(cell))
            if there is not None:
                path, sha256 = f"{FOLDER}/{cell.file}", there.sha256 or cell.sha256
                attached[path] = TreeFile(path=path, size_bytes=there.size_bytes, oid="", sha256=sha256)
        return replace(branch, attached=attached)

    def besides(self, repo: Repository, branch: Branch) -> list[Put]:
        return []

    def put(self, repo: Repository, head: str, branch: str, offer: Offer, changes: list[Change]) -> None:
        files = [
            Attachment(name=names.asset(cell), local=local, sha256=cell.sha256 or "", size_bytes=cell.size_bytes or 0)
            for local, cell in offer.files.values()
        ]
        title = repo.name if self._setting.folder == "." else self._setting.folder
        doing = f"attaching the files to the release {self._tag}"
        self._shelf.attach(repo, files, f"ExecuTorch files of {title}", telling(self._setting.progress, doing))


STORES: dict[Storing, type[Store]] = {"lfs": InLfs, "release": OnRelease}


def telling(progress: OnProgress, doing: str) -> Callable[[int, int], None]:
    """Tells how far an upload is, by bytes sent and bytes in all; each tenth once, for a log has a line for each."""
    told = -1

    def show(now: int, whole: int) -> None:
        nonlocal told
        tenth = 10 * now // whole if whole else 10
        if tenth > told:
            told = tenth
            progress(Progress(stage="publish", message=f"{doing}: {tenth * 10}% of {words.size(whole)}"))

    return show
