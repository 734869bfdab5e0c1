"""Repositories as records and directories: create, find, move, delete, and publishing new commits.

Each repository has one directory, named by its id (so a move renames nothing on disk): ``git`` (bare),
``lfs`` (large files by sha256) and ``xet`` (see xet.py).
"""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bot.localhub.accounts import Accounts, User, check_name
from bot.localhub.database import Database, new_id, now
from bot.localhub.errors import HubError, repo_not_found
from bot.localhub.gitrepo import GitRepo
from bot.localhub.rules import DEFAULT_GITATTRIBUTES


@dataclass(frozen=True)
class Repo:
    """A model repository; ``directory`` holds everything of it."""

    id: str
    owner: User
    name: str
    private: bool
    creator_id: str
    created: str
    directory: Path

    @property
    def full_name(self) -> str:
        return f"{self.owner.name}/{self.name}"

    def git(self) -> GitRepo:
        return GitRepo(self.directory / "git")


@dataclass(frozen=True)
class RefUpdate:
    """A ref that moves: ``old`` is None for a new ref, ``new`` is None for a removed one."""

    ref: str
    old: str | None
    new: str | None


class Repos:
    """The repository records, and their directories under ``root``."""

    def __init__(self, database: Database, accounts: Accounts, root: Path) -> None:
        self._db = database
        self._accounts = accounts
        self._root = root
        root.mkdir(parents=True, exist_ok=True)
        self._recover()

    def _recover(self) -> None:
        """Finish what a killed process had recorded, and drop what it had only begun. No other process is at work."""
        for git in self._root.glob("*/git/HEAD"):
            GitRepo(git.parent).drop_locks()
        for row in self._db.rows("SELECT * FROM ref_journal ORDER BY seq"):
            repo = self._root / row["repo_id"] / "git"
            if repo.is_dir():
                GitRepo(repo).set_ref(row["ref"], row["new_oid"])
            self._db.run("DELETE FROM ref_journal WHERE seq = ?", row["seq"])
        known = {row["id"] for row in self._db.rows("SELECT id FROM repos")}
        for directory in self._root.iterdir():
            if directory.name not in known:
                shutil.rmtree(directory)
            else:
                shutil.rmtree(directory / "incoming", ignore_errors=True)  # uploads that nobody will finish

    def find(self, owner: str, name: str) -> Repo | None:
        row = self._db.row(
            "SELECT r.* FROM repos r JOIN users u ON u.id = r.owner_id WHERE u.name = ? AND r.name = ?", owner, name
        )
        return self._repo(row) if row else None

    def by_id(self, repo_id: str) -> Repo | None:
        row = self._db.row("SELECT * FROM repos WHERE id = ?", repo_id)
        return self._repo(row) if row else None

    def all(self) -> list[Repo]:
        """Every repository, the newest first, whoever may see it."""
        return [self._repo(row) for row in self._db.rows("SELECT * FROM repos ORDER BY created DESC, id")]

    def _repo(self, row: sqlite3.Row) -> Repo:
        owner = self._accounts.by_id(row["owner_id"])
        directory = self._root / row["id"]
        return Repo(row["id"], owner, row["name"], bool(row["private"]), row["creator_id"], row["created"], directory)

    def create(self, owner: User, name: str, creator: User, *, private: bool) -> Repo:
        """A new repository with its first commit (.gitattributes, as on the Hub).

        Raises:
            HubError: 400 bad name; 409 it exists.
        """
        check_name(name, "repository name")
        repo_id = new_id()
        directory = self._root / repo_id
        with self._db.transaction():
            if self.find(owner.name, name):
                raise HubError(409, "You already created this model repo")
            values = (repo_id, owner.id, name, private, creator.id, now(), 1, "")
            self._db.run("INSERT INTO repos VALUES (?, ?, ?, ?, ?, ?, ?, ?)", *values)
            directory.mkdir()
            GitRepo.create(
                directory / "git", {".gitattributes": DEFAULT_GITATTRIBUTES.encode()}, creator.name, "initial commit"
            )
        found = self.by_id(repo_id)
        if found is None:
            raise repo_not_found()
        return found

    def delete(self, repo: Repo) -> None:
        self._db.run("DELETE FROM repos WHERE id = ?", repo.id)
        shutil.rmtree(repo.directory, ignore_errors=True)  # what stays behind goes at the next start

    def move(self, repo: Repo, owner: User, name: str) -> None:
        """Give the repository another owner or name.

        Raises:
            HubError: 400 bad name; 409 the name is taken.
        """
        check_name(name, "repository name")
        with self._db.transaction():
            other = self.find(owner.name, name)
            if other and other.id != repo.id:
                raise HubError(409, f"{owner.name}/{name} exists already")
            self._db.run("UPDATE repos SET owner_id = ?, name = ? WHERE id = ?", owner.id, name, repo.id)

    def set_private(self, repo: Repo, private: bool) -> None:
        self._db.run("UPDATE repos SET private = ? WHERE id = ?", private, repo.id)

    def take_number(self, repo: Repo) -> int:
        """The next discussion number; to be called inside the transaction that uses it."""
        row = self._db.row(
            "UPDATE repos SET next_num = next_num + 1 WHERE id = ? RETURNING next_num - 1 AS num", repo.id
        )
        if row is None:
            raise repo_not_found()
        return int(row["num"])

    def publish(self, repo: Repo, record: Callable[[], list[RefUpdate]]) -> list[RefUpdate]:
        """Write records and move refs as one step, also when the process is killed in the middle.

        ``record`` changes rows and says which refs move with them; one transaction holds both. Only when it
        stands are the refs moved, and a start after a crash moves those that were left (``_recover``). The
        caller holds the repository's lock, and the new commits are in git already.
        """
        with self._db.transaction():
            updates = record()
            for update in updates:
                self._db.run(
                    "INSERT INTO ref_journal (repo_id, ref, new_oid) VALUES (?, ?, ?)", repo.id, update.ref, update.new
                )
        git = repo.git()
        for update in updates:
            git.set_ref(update.ref, update.new)
        self._db.run("DELETE FROM ref_journal WHERE repo_id = ?", repo.id)
        return updates
