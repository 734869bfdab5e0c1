"""A repository with a tiny model on a running local Hub, and the bot's account beside its owner's."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any

from huggingface_hub import CommitOperationAdd, CommitOperationDelete, DiscussionComment, HfApi

from bot.localhub.testing import RunningHub
from bot.publish import hub as publishing
from bot.publish.loop import Published
from exporter.report import Cell, Report
from tests.bot import reports

CARD = b"---\nlicense: mit  # ours\n---\n# Tiny\n\nWritten by its owner.\n"
_NUMBERS = count(1)


@dataclass
class Repository:
    """One repository of the user ``acme``, and what its owner and the bot do there."""

    hub: RunningHub
    repo_id: str
    owner: HfApi
    bot_token: str
    scratch: Path

    @property
    def head(self) -> str:
        return str(self.owner.model_info(self.repo_id).sha)

    def push(self, files: dict[str, bytes], deleted: Iterable[str] = (), revision: str = "main") -> str:
        """A commit by the owner; its id."""
        operations: list[Any] = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=files[name]) for name in files]
        operations += [CommitOperationDelete(path_in_repo=name) for name in deleted]
        return self.owner.create_commit(self.repo_id, operations, commit_message="Edit", revision=revision).oid

    def report(self, cells: list[Cell] | None = None, **fields: Any) -> Report:
        """A report of the model that the repository holds when it is new."""
        fields = {"repo_id": self.repo_id, "revision": self.head, **fields}
        return reports.report(cells, **fields)

    def publish(self, report: Report, contents: dict[str, bytes] | None = None, **options: Any) -> Published:
        out = self.scratch / "out"
        shutil.rmtree(out, ignore_errors=True)
        reports.write(report, out, contents)
        given = {
            "repo_id": self.repo_id,
            "endpoint": self.hub.endpoint,
            "token": self.bot_token,
            "command": f"ptebot run {self.repo_id}",
        }
        return publishing.publish(report, out, **{**given, **options})

    def pulls(self) -> list[tuple[int, str]]:
        """Number and status of every pull request, oldest first."""
        found = self.owner.get_repo_discussions(self.repo_id, discussion_type="pull_request")
        return sorted((one.num, one.status) for one in found)

    def description(self, num: int = 1) -> str:
        events = self.owner.get_discussion_details(self.repo_id, num).events
        return next(event.content for event in events if isinstance(event, DiscussionComment))

    def commits(self, revision: str) -> list[str]:
        """Titles, newest first."""
        return [one.title for one in self.owner.list_repo_commits(self.repo_id, revision=revision)]

    def files(self, revision: str = "main") -> set[str]:
        return set(self.owner.list_repo_files(self.repo_id, revision=revision))

    def read(self, path: str, revision: str = "main") -> bytes:
        folder = self.scratch / f"read{next(_NUMBERS)}"
        name = self.owner.hf_hub_download(self.repo_id, path, revision=revision, local_dir=folder)
        return Path(name).read_bytes()


def repository(hub: RunningHub, scratch: Path, files: dict[str, bytes] | None = None) -> Repository:
    """A new public repository with ``files``, by default a tiny model and its card."""
    owner = HfApi(endpoint=hub.endpoint, token=hub.create_user("acme"))
    repo_id = f"acme/tiny-{next(_NUMBERS)}"
    owner.create_repo(repo_id)
    made = Repository(hub, repo_id, owner, hub.create_user("ptebot-user"), scratch)
    made.push({**reports.MODEL_FILES, "README.md": CARD} if files is None else files)
    return made
