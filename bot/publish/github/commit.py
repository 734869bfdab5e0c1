"""One commit on GitHub: changes in, a commit on our branch out, by the git data API. Stage 5.

Blobs, tree and commit are nothing to anyone until a ref names them, so a run that ends in between leaves no trace
and every one of them may be made again. The branch then moves in one step, never backwards over others' commits.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from bot import pointers
from bot.errors import PublishFailed
from bot.githubapi import Client, asking
from bot.publish.github import names
from bot.publish.github.read import Reader, Repository
from bot.publish.offer import Change, Delete, Put

NEEDS = "contents: write"


@dataclass(frozen=True)
class Committer:
    """Makes commits in one repository."""

    client: Client
    reader: Reader
    repo: Repository

    def make(self, changes: Iterable[Change], *, base: str, parents: list[str], message: str) -> str:
        """A commit with the tree of ``base`` and these changes; its id. No branch moves.

        A file on this machine becomes the pointer to its Git LFS object, which is to be stored before.

        Args:
            changes: paths from the repository's root.
            base: the commit whose tree is changed.
        """
        tree = [self._entry(change) for change in changes]
        path = f"{self.repo.path}/git"
        with asking(f"committing to {self.repo.full_name}", self.client, needs=NEEDS):
            start = self.client.call("GET", f"{path}/commits/{base}")["tree"]["sha"]
            made = self.client.call("POST", f"{path}/trees", body={"base_tree": start, "tree": tree})
            body = {"message": message, "tree": made["sha"], "parents": parents}
            return str(self.client.call("POST", f"{path}/commits", body=body)["sha"])

    def start(self, branch: str, commit: str) -> None:
        """Make the branch; raises CommitConflict where it is there already."""
        with asking(f"making the branch {branch} of {self.repo.full_name}", self.client, needs=NEEDS):
            body = {"ref": f"refs/heads/{branch}", "sha": commit}
            self.client.call("POST", f"{self.repo.path}/git/refs", body=body)

    def advance(self, branch: str, commit: str, *, force: bool = False) -> None:
        """Move the branch to a commit; without ``force``, raises CommitConflict where that would lose others'."""
        with asking(f"moving the branch {branch} of {self.repo.full_name}", self.client, needs=NEEDS):
            body = {"sha": commit, "force": force}
            self.client.call("PATCH", f"{self.repo.path}/git/refs/heads/{quote(branch)}", body=body)

    def check_ours(self, branch: str, tip: str, base: str) -> None:
        """Refuse to move a branch without a pull request away from what others put there; raises PublishFailed."""
        if names.is_our_commit(self.reader.commit_message(self.repo, tip)) or self._contains(base, tip):
            return
        raise PublishFailed(
            f"The branch {branch} of {self.repo.full_name} has commits that are not ptebot's, and no pull request.",
            remedy=f"Rename or delete the branch {branch}; ptebot opens its pull request from a branch of this name.",
        )

    def others(self, base: str, tip: str, ours: tuple[str, ...]) -> list[str]:
        """Paths that a branch changed since it left ``base``, ours left out."""
        files = self._compare(base, tip).get("files") or []
        return sorted(one["filename"] for one in files if not one["filename"].startswith(ours))

    def _contains(self, base: str, tip: str) -> bool:
        """Whether ``tip`` is in the history of ``base``."""
        return self._compare(base, tip)["status"] in ("behind", "identical")

    def _compare(self, base: str, tip: str) -> dict[str, Any]:
        with asking(f"comparing commits of {self.repo.full_name}", self.client, needs="contents: read"):
            return dict(self.client.call("GET", f"{self.repo.path}/compare/{base}...{tip}"))

    def _entry(self, change: Change) -> dict[str, Any]:
        entry: dict[str, Any] = {"path": change.path, "mode": "100644", "type": "blob"}
        if isinstance(change, Delete):
            return entry | {"sha": None}
        if isinstance(change.content, Path):
            return entry | {"content": pointers.write(change.sha256 or "", change.size_bytes).decode()}
        return entry | {"sha": self._blob(change)}

    def _blob(self, change: Put) -> str:
        """As base64, so that every byte of an owner's card stays what it is."""
        assert isinstance(change.content, bytes)  # noqa: S101 - by the caller
        body = {"content": base64.b64encode(change.content).decode(), "encoding": "base64"}
        with asking(f"writing {change.path} of {self.repo.full_name}", self.client, needs=NEEDS):
            return str(self.client.call("POST", f"{self.repo.path}/git/blobs", body=body)["sha"])
