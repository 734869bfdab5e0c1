"""One request and what it may use: the hub's parts, the caller, the body; and JSON replies.

Handlers are plain functions ``(Call) -> Response`` that run in a worker thread, since git and SQLite block.
"""

from __future__ import annotations

import json
import os
import threading
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute

from bot.localhub import scopes
from bot.localhub.accounts import Accounts, Caller, Level, User
from bot.localhub.database import Database
from bot.localhub.errors import HubError, bad_request, forbidden, repo_not_found
from bot.localhub.oauth_apps import OAuthState

if TYPE_CHECKING:
    from bot.localhub.deliveries import Deliveries
    from bot.localhub.oidc import Publisher
    from bot.localhub.repos import Repo, Repos

MIB = 1024 * 1024
LIFETIME_SECONDS = 3600
SLASH = "\x1f"
"""Stands for an encoded slash while routes are matched: ``refs%2Fpr%2F1`` is one part of an address."""


@dataclass(frozen=True, kw_only=True)
class Limits:
    """Sizes in bytes beyond which a request is refused with 413, before it fills memory or disk."""

    json_body: int = 8 * MIB
    commit_body: int = 256 * MIB
    regular_file: int = 10 * MIB
    lfs_file: int = 64 * 1024 * MIB
    multipart_from: int = 100 * MIB
    """LFS files from this size on are taken in parts of ``part_size``."""
    part_size: int = 32 * MIB


class JobRunner(Protocol):
    """What runs Jobs for this Hub. None comes with it: Jobs are anybody's commands; tests bring one."""

    def routes(self) -> list[BaseRoute]:
        """Of the Hub's API for Jobs and buckets."""

    def source(self, job_id: str, user_id: str) -> dict[str, Any] | None:
        """A job of the user's as a webhook's template, in the API's terms; None where there is none."""

    def keep_secrets(self, webhook_id: str, secrets: dict[str, str]) -> None:
        """For the jobs that a webhook starts; an empty value takes a secret away."""

    def secrets_of(self, webhook_id: str) -> list[str]:
        """Their names."""

    def start(self, webhook_id: str, user_id: str, job_id: str, environment: dict[str, str]) -> None:
        """Start a job like that one, for a webhook."""


@dataclass
class Hub:
    """Everything that outlives a request."""

    data: Path
    limits: Limits
    database: Database
    accounts: Accounts
    repos: Repos
    deliveries: Deliveries
    signing_key: bytes
    lock_file: int
    publishers: list[Publisher] = field(default_factory=list)
    """Trusted publishers of repositories; kept in memory only."""
    jobs: JobRunner | None = None
    token_seconds: int = LIFETIME_SECONDS
    """How long a token lives that one of them was given."""
    tells_publishers: bool = False
    """Whether such a token is told who it is; what the Hub does there is not documented."""
    oauth: OAuthState = field(default_factory=OAuthState)
    locks: defaultdict[str, threading.RLock] = field(default_factory=lambda: defaultdict(threading.RLock))
    """One lock per repository id (and per purpose): the writers of one repository take turns."""

    def close(self) -> None:
        """Let go of the data directory; the hub is of no use afterwards."""
        self.database.close()
        os.close(self.lock_file)


@dataclass
class Call:
    """One request on its way through a handler."""

    request: Request
    hub: Hub
    caller: Caller | None
    body: bytes = b""

    @property
    def endpoint(self) -> str:
        """This server's address as the client named it, without a slash at its end."""
        return str(self.request.base_url).rstrip("/")

    @property
    def user(self) -> User | None:
        return self.caller.user if self.caller else None

    @property
    def is_local(self) -> bool:
        """Whether the client runs on this machine, so that it can reach directories named to it."""
        host = self.request.client.host if self.request.client else ""
        return host.startswith("127.") or host in ("::1", "::ffff:127.0.0.1", "localhost")

    def param(self, name: str) -> str:
        """A part of the address; slashes that were encoded in it are slashes again."""
        return str(self.request.path_params.get(name, "")).replace(SLASH, "/")

    def query(self, name: str, default: str = "") -> str:
        return self.request.query_params.get(name, default)

    def flag(self, name: str) -> bool:
        return self.query(name).lower() in ("1", "true", "yes")

    def number(self, name: str, default: int, low: int, high: int) -> int:
        """An integer in the query, held to ``low`` .. ``high``.

        Raises:
            HubError: 400, not a number.
        """
        text = self.query(name, str(default))
        if not text.isascii() or not text.isdigit() or len(text) > 9:
            raise bad_request(f"{name} must be a number")
        return max(low, min(high, int(text)))

    def json(self) -> dict[str, Any]:
        """The body as a JSON object.

        Raises:
            HubError: 400, not JSON or not an object.
        """
        value = parse_json(self.body or b"{}")
        if not isinstance(value, dict):
            raise bad_request("The body must be a JSON object")
        return value

    def signed_in(self, *, writing: bool = False) -> User:
        """The caller's account.

        Raises:
            HubError: 401 nobody is signed in; 403 the token only reads.
        """
        if self.caller is None:
            raise HubError(401, "Please sign in: this needs a token")
        if writing and self.caller.token_role != "write":  # noqa: S105 - a role, not a secret
            raise forbidden("This token is read-only; use one with the role write")
        if self.caller.only_repo is not None and not self._in_its_repo():
            raise forbidden("This token is for another repository")
        if writing or self.request.url.path.startswith("/api/settings/"):
            lacking = scopes.missing_scope(
                self.caller, self.request.url.path, in_repo="name" in self.request.path_params
            )
            if lacking:
                raise forbidden(f"This token lacks the scope {lacking}")
        return self.caller.user

    def repo(self, need: Level = Level.READ, *, writing: bool | None = None) -> Repo:
        """The repository that the address names, when the caller may do ``need`` in it.

        ``writing`` asks for a write token also where reading the repository is right enough (a pull request).

        Raises:
            HubError: 404 no such repository for this caller; 401 or 403 when the right is missing.
        """
        repo = self.hub.repos.find(self.param("ns"), self.param("name"))
        level = self.level(repo) if repo else Level.NONE
        if repo is None or level == Level.NONE:
            raise repo_not_found()
        if writing or need > Level.READ:
            self.signed_in(writing=True)
        if level < need:
            raise forbidden("You have no write access to this repository" if need == Level.WRITE else "Owners only")
        return repo

    def _in_its_repo(self) -> bool:
        repo = self.hub.repos.find(self.param("ns"), self.param("name"))
        return repo is not None and self.caller is not None and repo.id == self.caller.only_repo

    def level(self, repo: Repo) -> Level:
        if self.caller is not None and self.caller.only_repo == repo.id:
            return Level.WRITE
        level = self.hub.accounts.level(
            self.user, owner_id=repo.owner.id, creator_id=repo.creator_id, private=repo.private
        )
        return level if self.caller is None else scopes.held_to(self.caller, level, repo.owner.id, private=repo.private)


def parse_json(data: bytes) -> Any:
    """Decoded JSON.

    Raises:
        HubError: 400, not UTF-8 JSON, or nested too deeply.
    """
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        raise bad_request("The body is not valid JSON") from None


def text_field(data: dict[str, Any], name: str, low: int, high: int) -> str:
    """A string field of a JSON body with its length checked (characters).

    Raises:
        HubError: 400.
    """
    value = data.get(name)
    if not isinstance(value, str) or not low <= len(value.strip()) or len(value) > high:
        raise bad_request(f"{name} must be text of {low} to {high} characters")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise bad_request(f"{name} is not Unicode text") from None
    return value


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(value, status, headers)
