"""A repository of the local GitHub from the test's side: what its people do, and what became of it."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import pygit2
from pygit2.enums import SortMode

from tests.localgithub import git as gits
from tests.localgithub import lfs, refs
from tests.localgithub.git import Who
from tests.localgithub.state import Asset, Comment, Issue, Repo, Role, Rule, now

if TYPE_CHECKING:
    from tests.localgithub.testing import RunningGitHub


@dataclass
class LocalRepo:
    """A repository from the test's side: what its people do, and what became of it."""

    github: RunningGitHub
    id: int

    @property
    def repo(self) -> Repo:
        """The state itself, to be read and changed (``archived``, ``lfs.quota``, ``actions_may_open_pulls`` ...)."""
        return self.github.state.repos[self.id]

    @property
    def full_name(self) -> str:
        return self.repo.full_name

    # -- git -----------------------------------------------------------------------------------------------------------

    def head(self, branch: str | None = None) -> str | None:
        """The commit at a branch's tip, None when there is no such branch."""
        return gits.branch(self.repo.git, branch or self.repo.default_branch)

    def commit(
        self, files: dict[str, bytes | None], message: str = "Edit", *, branch: str | None = None, login: str = "",
        parent: str | None = None,
    ) -> str:  # fmt: skip
        """A commit pushed by the owner: files written or (None) removed. ``parent`` rewrites the branch from there."""
        with self.github.state.lock:
            name = branch or self.repo.default_branch
            tip = parent or self.head(name) or self.head()
            who = Who(login or self.repo.owner.login, f"{login or self.repo.owner.login}@example.invalid")
            sha = gits.commit_files(self.repo.git, files, [tip] if tip else [], who, message)
            refs.move(self.github.state, self.repo, name, sha)
            return sha

    def delete_branch(self, branch: str) -> None:
        with self.github.state.lock:
            refs.move(self.github.state, self.repo, branch, None)

    def branches(self) -> list[str]:
        names = (name for name in self.repo.git.references if name.startswith("refs/heads/"))
        return sorted(name.removeprefix("refs/heads/") for name in names)

    def files(self, rev: str | None = None) -> dict[str, bytes]:
        """Every file's git blob (LFS files: their pointers) by path."""
        commit = self._commit(rev)
        found = gits.walk(commit.tree)
        return {path: item.data for path, item in found if isinstance(item, pygit2.Blob)}

    def read(self, path: str, rev: str | None = None) -> bytes:
        """A file's content, from LFS storage when it is a pointer.

        Raises:
            KeyError: there is no such file.
            FileNotFoundError: its LFS object was never uploaded.
        """
        data = self.files(rev)[path]
        found = re.search(rb"^oid sha256:([0-9a-f]{64})$", data, re.MULTILINE)
        if data.startswith(b"version https://git-lfs") and found:
            return lfs.path_of(self.repo, found[1].decode()).read_bytes()
        return data

    def log(self, rev: str | None = None) -> list[str]:
        """Commit messages, newest first."""
        git = self.repo.git
        return [one.message for one in git.walk(self._commit(rev).id, SortMode.TOPOLOGICAL)]

    def _commit(self, rev: str | None) -> pygit2.Commit:
        found = gits.find(self.repo.git, rev or self.repo.default_branch)
        if found is None:
            raise KeyError(rev)
        return found

    # -- people --------------------------------------------------------------------------------------------------------

    def set_role(self, login: str, role: Role) -> None:
        self.github.state.account(login)
        self.repo.roles[login] = role

    def open_issue(self, login: str, title: str = "Question", body: str = "") -> int:
        return self._add(Issue(0, 0, self.github.state.account(login), title, body)).number

    def _add(self, issue: Issue) -> Issue:
        with self.github.state.lock:
            issue.id, issue.number = next(self.github.state.ids), max(self.repo.issues, default=0) + 1
            self.repo.issues[issue.number] = issue
            return issue

    def add_comment(self, number: int, login: str, body: str) -> int:
        """A comment by somebody; its id."""
        with self.github.state.lock:
            one = Comment(next(self.github.state.ids), self.github.state.account(login), body, issue=number)
            self.repo.comments[one.id] = one
            return one.id

    def lock(self, number: int, reason: str | None = None) -> None:
        issue = self.repo.issues[number]
        issue.locked, issue.lock_reason = True, reason

    def comments(self, number: int) -> list[Comment]:
        return [one for one in self.repo.comments.values() if one.issue == number]

    def commit_comments(self, sha: str) -> list[Comment]:
        return [one for one in self.repo.comments.values() if one.commit == sha]

    def reactions(self, subject: Literal["issue", "comment", "commit comment"], number: int) -> list[tuple[str, str]]:
        """(login, content) of the reactions to an issue or a comment, in order."""
        found = (one for one in self.repo.reactions.values() if one.subject == (subject, number))
        return [(one.author.login, one.content) for one in found]

    def pulls(self, state: str = "all") -> list[Issue]:
        return [one for one in self.repo.issues.values() if one.pull and state in ("all", one.state)]

    def protect(
        self, pattern: str, *forbids: str, bypass: frozenset[str] = frozenset(), tags: bool = False,
        classic: bool = False,
    ) -> Rule:  # fmt: skip
        """A rule for branches or ``tags``: forbid ``creation``, ``update``, ``deletion``, ``force`` (default: all)."""
        rule = Rule(pattern, frozenset(forbids) or Rule(pattern).forbids, bypass, tags, classic)
        self.repo.rules.append(rule)
        return rule

    def break_off_upload(self, tag: str, name: str) -> None:
        """What an upload leaves that was broken off: a file of that name, in the state ``starter``."""
        release = next(one for one in self.repo.releases.values() if one.tag == tag)
        number = next(self.github.state.ids)
        path = self.repo.directory / "assets" / str(number)
        path.parent.mkdir(exist_ok=True)
        path.touch()
        owner = self.repo.owner
        release.assets.append(Asset(number, name, None, "application/octet-stream", 0, "", owner, path, "starter"))

    def rename(self, name: str, owner: str | None = None) -> None:
        """Give the repository another name (or owner); the old one redirects."""
        with self.github.state.lock:
            self.github.state.moved[self.full_name.lower()] = self.id
            self.repo.name = name
            self.repo.owner = self.github.state.account(owner) if owner else self.repo.owner
            self.github.state.moved.pop(self.full_name.lower(), None)

    def close(self, number: int) -> None:
        issue = self.repo.issues[number]
        issue.state, issue.closed_at = "closed", now()
