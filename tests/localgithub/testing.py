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

import uvicorn

from bot.localhub.server import bind, endpoint_of
from tests.localgithub import git as gits
from tests.localgithub.app import create_app
from tests.localgithub.errors import DOCS
from tests.localgithub.git import Who
from tests.localgithub.localrepo import LocalRepo
from tests.localgithub.state import ACTIONS_BOT, Repo, State, Token, TokenKind
from tests.localgithub.tap import Exchange, Fault, Tap

__all__ = ["LocalRepo", "RunningGitHub", "running_github"]

READ_ONLY = dict.fromkeys(("contents", "metadata", "issues", "pull_requests", "checks", "statuses"), "read")
PRIMARY = "API rate limit exceeded for installation ID 1."
SECONDARY = "You have exceeded a secondary rate limit. Please wait a few minutes before you try again."


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
        fault = Fault(
            method,
            re.compile(path),
            action,
            skip,
            times,
            headers or {},
            {"documentation_url": DOCS, **body} if body else {},
        )
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
