"""What a GitHub repository holds of a model and of ours: reads only. Stages 2 and 5.

In: a client, a repository, the model's folder. Out: the repository as it is called now, the files of a commit by
content (a Git LFS pointer counts as the file that it stands for), what is published at a commit, and our pull
requests. Whatever a commit holds never changes, so it is read once.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Collection
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from pydantic import ValidationError

from bot import plan, pointers
from bot.errors import GitHubNotFound, GitHubRefused, RepositoryReadOnly, UnsafeRepository
from bot.githubapi import Client, asking, same_account
from bot.hubapi import MOST_FILES, SHA, TreeFile, check_path
from bot.publish import marker
from bot.publish.github import names
from bot.publish.places import FOLDER
from bot.publish.splice import MAX_CARD_BYTES
from bot.publish.state import CARD, MAX_MANIFEST_BYTES, Branch, Pull
from exporter import report as reports
from exporter.report import Report

MANIFEST = f"{FOLDER}/manifest.json"
MOST_PULLS = 100
"""From one branch; the newest count."""
MERGEABLE_LOOKS = 4
MERGEABLE_SECONDS = 1.0
"""Between looks at whether a pull request can be merged, which GitHub works out in the background."""
_LFS_URL = re.compile(r"^\s*(?:url|pushurl)\s*=", re.MULTILINE)
_FILE_MODES = ("100644", "100755")


@dataclass(frozen=True, kw_only=True)
class Repository:
    """A repository as GitHub tells it now."""

    id: int
    full_name: str
    default_branch: str
    archived: bool
    html_url: str
    clone_url: str

    @property
    def owner(self) -> str:
        return self.full_name.split("/")[0]

    @property
    def name(self) -> str:
        return self.full_name.split("/")[1]

    @property
    def path(self) -> str:
        """Of its API."""
        return f"/repos/{quote(self.full_name)}"


@dataclass
class Reader:
    """Reads of one model's folder; keeps what it read of commits."""

    client: Client
    folder: str
    _blobs: dict[str, bytes] = field(default_factory=dict)
    _listed: dict[str, dict[str, dict[str, Any]]] = field(default_factory=dict)
    _branches: dict[str, Branch] = field(default_factory=dict)

    def repository(self, full_name: str) -> Repository:
        """Follows a rename.

        Raises:
            GitHubNotFound, GitHubNotAuthorized, GitHubUnreachable: as GitHub answers.
        """
        with asking(f"reading {full_name}", self.client, needs="metadata: read"):
            data = self.client.call("GET", f"/repos/{quote(full_name)}")
            return Repository(
                id=int(data["id"]),
                full_name=str(data["full_name"]),
                default_branch=str(data["default_branch"]),
                archived=bool(data.get("archived")),
                html_url=str(data["html_url"]).rstrip("/"),
                clone_url=str(data["clone_url"]),
            )

    def tip(self, repo: Repository, branch: str) -> str | None:
        """The commit of a branch; None where there is no such branch."""
        try:
            with asking(f"reading the branch {branch} of {repo.full_name}", self.client, needs="contents: read"):
                data = self.client.call("GET", f"{repo.path}/git/ref/heads/{quote(branch)}")
        except GitHubNotFound:
            return None
        sha = str(data["object"]["sha"])
        if not SHA.fullmatch(sha):
            raise GitHubRefused(f"GitHub gives the branch {branch} of {repo.full_name} no commit.")
        return sha

    def commit_message(self, repo: Repository, commit: str) -> str:
        with asking(f"reading commit {commit} of {repo.full_name}", self.client, needs="contents: read"):
            return str(self.client.call("GET", f"{repo.path}/git/commits/{commit}")["message"])

    def source(self, repo: Repository, commit: str) -> dict[str, TreeFile]:
        """The files in the model's folder, by name, each with the content that a checkout has.

        Raises:
            GitHubNotFound: the commit has no such folder.
        """
        entries = self._folder(repo, commit)
        read = {*plan.small_files(entries), *(name for name in entries if name.endswith(".safetensors"))}
        return {
            name: self._file(repo, name, entry, resolve=name in read)
            for name, entry in entries.items()
            if entry["mode"] in _FILE_MODES
        }

    def published(self, repo: Repository, commit: str) -> Branch:
        """What a commit holds of ours; nothing where it has no such folder."""
        if commit not in self._branches:
            try:
                entries = self._folder(repo, commit)
            except GitHubNotFound:
                entries = {}
            files = self._ours(repo, entries.get(FOLDER))
            manifest = self._manifest(repo, files.get(MANIFEST))
            card = self._card(repo, entries.get(CARD))
            self._branches[commit] = Branch(commit=commit, manifest=manifest, files=files, card=card)
        return self._branches[commit]

    def lfs_elsewhere(self, repo: Repository, commit: str) -> bool:
        """Whether the repository's ``.lfsconfig`` sends Git LFS to another server than GitHub."""
        entry = self._tree(repo, commit).get(".lfsconfig")
        if entry is None or entry["mode"] not in _FILE_MODES or int(entry.get("size", 0)) > pointers.LARGEST * 16:
            return False
        return _LFS_URL.search(self.blob(repo, entry["sha"]).decode("utf-8", "replace")) is not None

    def blob(self, repo: Repository, sha: str) -> bytes:
        """A file's bytes, by its git blob id."""
        if sha not in self._blobs:
            with asking(f"reading a file of {repo.full_name}", self.client, needs="contents: read"):
                data = self.client.call("GET", f"{repo.path}/git/blobs/{sha}")
            try:
                self._blobs[sha] = base64.b64decode(data["content"])
            except (binascii.Error, ValueError):
                raise GitHubRefused(f"GitHub gives the blob {sha} of {repo.full_name} in no base64.") from None
        return self._blobs[sha]

    def _folder(self, repo: Repository, commit: str) -> dict[str, dict[str, Any]]:
        """The entries of the model's folder at a commit, by name."""
        if commit not in self._listed:
            sha = commit
            for part in [] if self.folder == "." else self.folder.split("/"):
                found = self._tree(repo, sha).get(part)
                if found is None or found["type"] != "tree":
                    raise GitHubNotFound(
                        f"{repo.full_name} has no folder {self.folder} at commit {commit}.",
                        remedy="Push the model's folder first, or name the folder that the repository has.",
                    )
                sha = found["sha"]
            self._listed[commit] = self._tree(repo, sha)
        return self._listed[commit]

    def _tree(self, repo: Repository, sha: str, *, recursive: bool = False) -> dict[str, dict[str, Any]]:
        query = {"recursive": 1} if recursive else None
        with asking(f"listing the files of {repo.full_name}", self.client, needs="contents: read"):
            data = self.client.call("GET", f"{repo.path}/git/trees/{sha}", query=query)
        if data.get("truncated") or len(data["tree"]) > MOST_FILES:
            raise UnsafeRepository(f"{repo.full_name} has more than {MOST_FILES:,} entries in one folder.")
        for entry in data["tree"]:
            check_path(entry["path"], repo.full_name)
        return {entry["path"]: entry for entry in data["tree"]}

    def _file(self, repo: Repository, path: str, entry: dict[str, Any], *, resolve: bool) -> TreeFile:
        size, sha256 = int(entry.get("size", 0)), None
        if resolve and size <= pointers.LARGEST and (found := pointers.read(self.blob(repo, entry["sha"]))):
            size, sha256 = found.size_bytes, found.sha256
        return TreeFile(path=path, size_bytes=size, oid=entry["sha"], sha256=sha256)

    def _ours(self, repo: Repository, entry: dict[str, Any] | None) -> dict[str, TreeFile]:
        """Everything below ``executorch/``, by path from the model's folder."""
        if entry is None:
            return {}
        if entry["type"] != "tree":
            raise UnsafeRepository(
                f"{FOLDER} in {repo.full_name} is no folder.",
                remedy=f"Give what is called {FOLDER} another name; ptebot's files go into a folder of this name.",
            )
        return {
            f"{FOLDER}/{path}": self._file(repo, f"{FOLDER}/{path}", item, resolve=path.endswith(".pte"))
            for path, item in self._tree(repo, entry["sha"], recursive=True).items()
            if item["mode"] in _FILE_MODES
        }

    def _manifest(self, repo: Repository, listed: TreeFile | None) -> Report | None:
        """The published report; None for one that another schema wrote or a person broke: it is written anew."""
        if listed is None or listed.size_bytes > MAX_MANIFEST_BYTES:
            return None
        try:
            return reports.loads(self.blob(repo, listed.oid))
        except ValidationError:
            return None

    def _card(self, repo: Repository, entry: dict[str, Any] | None) -> bytes | None:
        if entry is None:
            return None
        if entry["mode"] not in _FILE_MODES or int(entry.get("size", 0)) > MAX_CARD_BYTES:
            raise UnsafeRepository(
                f"{CARD} of {repo.full_name} is no plain file of at most {MAX_CARD_BYTES:,} bytes.",
                remedy=f"Make {CARD} a plain file; ptebot writes a section into it.",
            )
        return self.blob(repo, entry["sha"])

    # -- pull requests -------------------------------------------------------------------------------------------------

    def pulls(
        self, repo: Repository, branch: str, author: str, known: Collection[int]
    ) -> tuple[list[Pull], dict[int, dict[str, Any]]]:
        """Our pull requests from ``branch``, oldest first, merged ones left out; and what GitHub says of each.

        Ours are those from this branch with our marker that our account opened, or another one with our commit on
        top (a repository's token may change); and those in ``known``.
        """
        head = f"{repo.owner}:{branch}"
        with asking(f"listing the pull requests of {repo.full_name}", self.client, needs="pull-requests: read"):
            query = {"state": "all", "head": head, "sort": "created", "direction": "desc", "per_page": MOST_PULLS}
            listed = self.client.call("GET", f"{repo.path}/pulls", query=query)
        found: list[Pull] = []
        details: dict[int, dict[str, Any]] = {}
        for item in sorted(listed, key=lambda one: int(one["number"])):
            pull = self._pull(repo, branch, item, author, known)
            if pull is not None:
                details[pull.num] = item
                found.append(pull)
        return found, details

    def _pull(
        self, repo: Repository, branch: str, item: dict[str, Any], author: str, known: Collection[int]
    ) -> Pull | None:
        source = item["head"].get("repo") or {}
        if source.get("id") != repo.id or item["head"]["ref"] != branch or item.get("merged_at"):
            return None
        body, num = item.get("body") or "", int(item["number"])
        told = marker.parse(body) or (marker.MISSING if num in known else None)
        if told is None or not self._by_us(repo, item, author):
            return None
        is_open = item["state"] == "open"
        return Pull(
            num=num,
            status="open" if is_open else "closed",
            url=str(item["html_url"]),
            title=str(item["title"]),
            marker=told,
            comment_id="",
            closed_by_us=not is_open and marker.CLOSED in body,
            conflicts=is_open and self._conflicts(repo, num),
        )

    def _by_us(self, repo: Repository, item: dict[str, Any], author: str) -> bool:
        if same_account((item.get("user") or {}).get("login"), author):
            return True
        return names.is_our_commit(self.commit_message(repo, str(item["head"]["sha"])))

    def _conflicts(self, repo: Repository, num: int) -> bool:
        """Whether GitHub cannot merge it; False too where it has not worked that out after a few looks."""
        for look in range(MERGEABLE_LOOKS):
            if look:
                time.sleep(MERGEABLE_SECONDS)
            with asking(f"reading pull request {num} of {repo.full_name}", self.client, needs="pull-requests: read"):
                data = self.client.call("GET", f"{repo.path}/pulls/{num}")
            if data["state"] != "open" or data.get("mergeable") is not None:
                return data["state"] == "open" and data.get("mergeable") is False
        return False


def refuse_archived(repo: Repository) -> None:
    """Raises RepositoryReadOnly."""
    if repo.archived:
        raise RepositoryReadOnly(f"{repo.full_name} is archived; nothing can be written to it.")
