"""A running local GitHub for tests: real HTTP on free ports, its traffic recorded, faults on demand.

``running_github()`` gives a ``RunningGitHub``: accounts, tokens and repositories are made on it directly, the rest
goes over HTTP (``api_url`` for PyGithub, ``server_url`` for git and LFS, as api.github.com and github.com).
"""

from __future__ import annotations

import asyncio
import re
import secrets
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pygit2
import uvicorn

from bot.localhub.server import bind, endpoint_of
from tests.localgithub import git as gits
from tests.localgithub import lfs, refs
from tests.localgithub.app import create_app
from tests.localgithub.git import Who
from tests.localgithub.state import ACTIONS_BOT, Asset, Comment, Issue, Repo, Role, Rule, State, Token, TokenKind, now
from tests.localgithub.tap import Exchange, Fault, Tap

READ_ONLY = dict.fromkeys(("contents", "metadata", "issues", "pull_requests", "checks", "statuses"), "read")
PRIMARY = "API rate limit exceeded for installation ID 1."
SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."


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
        return [one.message for one in git.walk(self._commit(rev).id, pygit2.enums.SortMode.TOPOLOGICAL)]

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


@dataclass
class RunningGitHub:
    """A local GitHub that answers at ``api_url`` (REST), ``server_url`` (git, LFS) and ``upload_url`` (assets)."""

    state: State
    tap: Tap

    @property
    def api_url(self) -> str:
        return self.state.api_url

    @property
    def server_url(self) -> str:
        return self.state.server_url

    @property
    def upload_url(self) -> str:
        return self.state.upload_url

    @property
    def requests(self) -> list[Exchange]:
        """Every exchange so far, in the order of their ends."""
        return self.tap.traffic

    def api_requests(self, method: str = "", path: str = "") -> list[Exchange]:
        """Those to the API, filtered by method and by a regular expression on the path."""
        port = int(self.api_url.rpartition(":")[2])
        return [
            one for one in self.tap.traffic
            if one.port == port and method in ("", one.method) and re.search(path, one.path)
        ]  # fmt: skip

    # -- accounts and repositories -------------------------------------------------------------------------------------

    def create_user(self, login: str) -> str:
        """A classic personal token of the user ``login`` (made when new): it may all that the user may."""
        return self._token("ghp_", login, "classic", None, None)

    def fine_grained_token(self, login: str, permissions: dict[str, str], *repos: LocalRepo) -> str:
        """A fine-grained personal token, for ``repos`` only when some are given."""
        allowed = {one.id for one in repos} or None
        return self._token("github_pat_", login, "fine-grained", {"metadata": "read", **permissions}, allowed)

    def installation_token(
        self, repo: LocalRepo | str, permissions: dict[str, str] | None = None, *, login: str = ACTIONS_BOT
    ) -> str:
        """What a job gets as GITHUB_TOKEN (``permissions`` as in the workflow, with underscores; default: contents,
        issues, pull_requests, checks and statuses, all write)."""
        names = ("contents", "issues", "pull_requests", "checks", "statuses")
        given = dict.fromkeys(names, "write") if permissions is None else permissions
        found = self.repo(repo) if isinstance(repo, str) else repo
        return self._token("ghs_", login, "installation", {"metadata": "read", **given}, {found.id})

    def fork_token(self, repo: LocalRepo | str) -> str:
        """The token of a job that a forked pull request started: it only reads."""
        return self.installation_token(repo, READ_ONLY)

    def _token(
        self, prefix: str, login: str, kind: TokenKind, permissions: dict[str, str] | None, repos: set[int] | None
    ) -> str:
        value = prefix + secrets.token_hex(18)
        self.state.tokens[value] = Token(value, self.state.account(login), kind, permissions, repos)
        return value

    def create_repo(
        self, owner: str, name: str, files: dict[str, bytes] | None = None, *, private: bool = False,
        default_branch: str = "main", organization: bool = False,
    ) -> LocalRepo:  # fmt: skip
        """A repository whose default branch holds one commit with ``files`` (None: a README; {}: no commit at all)."""
        with self.state.lock:
            number = next(self.state.ids)
            directory = self.state.data / str(number)
            directory.mkdir()
            who = self.state.account(owner, "Organization" if organization else "User")
            git = gits.create(directory / "git", default_branch)
            self.state.repos[number] = Repo(
                number, who, name, directory, private=private, default_branch=default_branch
            )  # fmt: skip
            if files is None:
                files = {"README.md": f"# {name}\n".encode()}
            if files:
                sha = gits.commit_files(git, dict(files), [], Who(owner, f"{owner}@example.invalid"), "First")
                gits.set_ref(git, f"refs/heads/{default_branch}", sha)
            return LocalRepo(self, number)

    def fork(self, repo: LocalRepo, owner: str) -> LocalRepo:
        """A fork: a copy of the repository that ``owner`` may write."""
        with self.state.lock:
            made = self.create_repo(owner, repo.repo.name, {}, default_branch=repo.repo.default_branch)
            shutil.rmtree(made.repo.directory / "git")
            shutil.copytree(repo.repo.directory / "git", made.repo.directory / "git")
            made.repo.parent = repo.id
            return made

    def repo(self, full_name: str) -> LocalRepo:
        found = self.state.repo_named(full_name)
        if found is None:
            raise KeyError(full_name)
        return LocalRepo(self, found.id)

    # -- faults --------------------------------------------------------------------------------------------------------

    def fail(
        self, path: str, action: Literal["drop", "drop_before"] | int, *, method: str = "*", skip: int = 0,
        times: int = 1, headers: dict[str, str] | None = None, body: dict[str, Any] | None = None,
    ) -> Fault:  # fmt: skip
        """Inject a fault into requests whose raw path matches the regular expression ``path``: an HTTP status before
        the work, ``drop`` (the reply is lost after it) or ``drop_before``. ``times=-1``: for ever."""
        fault = Fault(method, re.compile(path), action, skip, times, headers or {}, body or {})
        return self._inject(fault)

    def slow(self, path: str, seconds: float, *, method: str = "*", times: int = 1) -> Fault:
        return self._inject(Fault(method, re.compile(path), "slow", times=times, seconds=seconds))

    def meanwhile(self, path: str, do: Callable[[], object], *, method: str = "*", skip: int = 0) -> Fault:
        """Do something (a push, a rename) right before a matching request is worked on."""
        return self._inject(Fault(method, re.compile(path), "meanwhile", skip=skip, do=do))

    def secondary_limit(
        self, path: str, retry_after: int | None = None, *, status: int = 403, method: str = "*", skip: int = 0,
        times: int = 1,
    ) -> Fault:  # fmt: skip
        """GitHub's answer to too much at once, with or without ``Retry-After`` (seconds)."""
        headers = {} if retry_after is None else {"Retry-After": str(retry_after)}
        body = {
            "message": SECONDARY,
            "documentation_url": "https://docs.github.com/rest/overview/rate-limits-for-the-rest-api",
        }
        return self.fail(path, status, method=method, skip=skip, times=times, headers=headers, body=body)

    def primary_limit(
        self, path: str, reset_in: int = 60, *, status: int = 403, method: str = "*", skip: int = 0, times: int = 1
    ) -> Fault:  # fmt: skip
        """The hour's requests are spent; they come back in ``reset_in`` seconds."""
        headers = {"X-RateLimit-Limit": "1000", "X-RateLimit-Remaining": "0", "X-RateLimit-Used": "1000"}
        headers |= {"X-RateLimit-Reset": str(int(time.time()) + reset_in), "X-RateLimit-Resource": "core"}
        body = {"message": PRIMARY, "documentation_url": "https://docs.github.com/rest"}
        return self.fail(path, status, method=method, skip=skip, times=times, headers=headers, body=body)

    def _inject(self, fault: Fault) -> Fault:
        self.tap.faults.append(fault)
        return fault

    def clear(self) -> None:
        """Forget faults and records."""
        self.tap.faults.clear()
        self.tap.traffic.clear()


@contextmanager
def running_github(data: Path | None = None, *, host: str = "127.0.0.1", name: str = "") -> Iterator[RunningGitHub]:
    """A local GitHub in a thread of this process, on two free ports of ``host`` (``name``: how clients call it)."""
    with tempfile.TemporaryDirectory(prefix="localgithub-") as fallback:
        state = State(data or Path(fallback))
        tap = Tap(create_app(state))
        listeners = [bind(host, 0), bind(host, 0)]
        state.api_url, state.server_url = (endpoint_of(one, name or host) for one in listeners)
        config = uvicorn.Config(tap, log_level="warning", access_log=False, timeout_graceful_shutdown=2, lifespan="off")
        tap.server = uvicorn.Server(config)
        thread = threading.Thread(target=asyncio.run, args=(tap.server.serve(sockets=listeners),), daemon=True)
        thread.start()
        try:
            yield RunningGitHub(state, tap)
        finally:
            tap.server.should_exit = True
            thread.join(15)
            for listener in listeners:
                listener.close()
