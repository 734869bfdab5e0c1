"""A repository with a tiny model on a local GitHub, and what its owner and the bot do there."""

from __future__ import annotations

import hashlib
import shutil
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from bot import githubapi, pointers
from bot.githubapi import Client
from bot.publish.github.store import Storing
from bot.publish.loop import Published
from bot.publish.target import GitHubTarget
from exporter.report import Cell, Report
from tests.bot import reports
from tests.localgithub import lfs
from tests.localgithub.testing import LocalRepo, RunningGitHub

CARD = b"# Tiny\n\nWritten by its owner.\r\n"
ATTRIBUTES = b"*.safetensors filter=lfs diff=lfs merge=lfs -text\n"
_NUMBERS = count(1)


@dataclass
class Repository:
    """One repository of the user ``acme`` with a model in ``folder``."""

    github: RunningGitHub
    there: LocalRepo
    token: str
    scratch: Path
    folder: str
    storage: Storing = "lfs"

    @property
    def head(self) -> str:
        return str(self.there.head())

    @property
    def branch(self) -> str:
        return f"ptebot/{'executorch' if self.folder == '.' else self.folder.replace('/', '--')}"

    def client(self, token: str | None = "") -> Client:
        return githubapi.connect(self.token if token == "" else token, api_url=self.github.api_url)

    def target(self, **options: Any) -> GitHubTarget:
        given = {"client": self.client(), "repository": self.there.full_name, "folder": self.folder}
        return GitHubTarget(**{**given, "storage": self.storage, **options})

    def below(self, path: str) -> str:
        return path if self.folder == "." else f"{self.folder}/{path}"

    def push(self, files: dict[str, bytes | None], **options: Any) -> str:
        """A commit by the owner, paths from the model's folder; weights become Git LFS pointers."""
        stored = {
            self.below(name): pointer(self.there, data) if data and name.endswith(".safetensors") else data
            for name, data in files.items()
        }
        return self.there.commit(stored, **options)

    def report(self, cells: list[Cell] | None = None, **fields: Any) -> Report:
        """A report of the model that the repository holds when it is new."""
        fields = {"repo_id": None, "revision": self.head, **fields}
        return reports.report(cells, **fields)

    def publish(
        self,
        report: Report,
        contents: dict[str, bytes] | None = None,
        *,
        dry_run: bool = False,
        said: list[str] | None = None,
        **options: Any,
    ) -> Published:
        out = self.scratch / "out"
        shutil.rmtree(out, ignore_errors=True)
        reports.write(report, out, contents)
        return self.target(**options).publish(
            report,
            out,
            command="ptebot export MODEL_DIRECTORY --precision fp32",
            dry_run=dry_run,
            progress=lambda one: said.append(one.message) if said is not None else None,
        )

    def pulls(self) -> list[tuple[int, str]]:
        """Number and state of every pull request, oldest first."""
        return sorted(
            (one.number, "merged" if one.pull and one.pull.merged_at else one.state) for one in self.there.pulls()
        )

    def description(self, number: int = 1) -> str:
        return self.there.repo.issues[number].body or ""

    def files(self, rev: str | None = None) -> set[str]:
        return set(self.there.files(rev))

    def read(self, path: str, rev: str | None = None) -> bytes:
        """A file below the model's folder, from LFS where it is a pointer."""
        return self.there.read(self.below(path), rev)

    def merge(self, number: int, method: str = "merge") -> None:
        """Merge a pull request, as its owner."""
        client = self.client(self.github.create_user("acme"))
        path = f"/repos/{self.there.full_name}/pulls/{number}/merge"
        client.call("PUT", path, body={"merge_method": method})

    def writes(self) -> list[str]:
        """What was sent to change something, in order: method and path without the repository."""
        return [
            f"{one.method} {one.path.removeprefix(f'/repos/{self.there.full_name}')}"
            for one in self.github.requests
            if one.method not in ("GET", "HEAD") and one.path != "/graphql"
        ]


def pointer(there: LocalRepo, data: bytes) -> bytes:
    """The Git LFS pointer of some bytes, which the repository's storage then has."""
    sha256 = hashlib.sha256(data).hexdigest()
    path = lfs.path_of(there.repo, sha256)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return pointers.write(sha256, len(data))


def repository(
    github: RunningGitHub,
    scratch: Path,
    *,
    folder: str = "models/tiny",
    files: dict[str, bytes] | None = None,
    storage: Storing = "lfs",
) -> Repository:
    """A new public repository with ``files`` in ``folder``, by default a tiny model and its card."""
    there = github.create_repo("acme", f"tiny-{next(_NUMBERS)}", {"README.md": b"# All\n", "train.py": b"pass\n"})
    made = Repository(github, there, github.installation_token(there), scratch, folder, storage)
    model = {**reports.MODEL_FILES, "README.md": CARD, ".gitattributes": ATTRIBUTES}
    made.push(dict(model if files is None else files))
    github.clear()
    return made
