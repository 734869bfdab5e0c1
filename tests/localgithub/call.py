"""One request on its way through a handler: who asks, for which repository, with which body; and the replies.

``Router`` collects the handlers of a module with the permission that each needs, in the form of GitHub's
header ``X-Accepted-GitHub-Permissions`` (``issues=write; pull_requests=write``: either will do).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlencode

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from tests.localgithub.errors import ApiError, invalid, not_found, too_long
from tests.localgithub.state import ROLES, Account, Repo, Role, State, Token

INTEGRATION = "Resource not accessible by integration"
PERSONAL = "Resource not accessible by personal access token"
MAX_BODY = 65_536


@dataclass
class Handler:
    method: str
    path: str
    needs: str
    role: Role
    function: Callable[[Call], Response]


class Router:
    """The routes of one module."""

    def __init__(self) -> None:
        self.handlers: list[Handler] = []

    def on(
        self, method: str, path: str, needs: str = "", *, role: Role | None = None
    ) -> Callable[[Callable[[Call], Response]], Callable[[Call], Response]]:
        """Register a handler. ``role``: what a person needs in the repository (write for a write, else read)."""
        needed: Role = role or ("write" if needs.endswith("=write") else "read")

        def register(function: Callable[[Call], Response]) -> Callable[[Call], Response]:
            self.handlers.append(Handler(method, path, needs, needed, function))
            return function

        return register


@dataclass
class Call:
    """One request. ``repo`` is set when the address names one that the caller may use in this way."""

    request: Request
    github: State
    token: Token | None
    handler: Handler
    body: bytes = b""
    _repo: Repo | None = field(default=None)

    @property
    def repo(self) -> Repo:
        if self._repo is None:
            self._repo = self._open()
        return self._repo

    @property
    def account(self) -> Account:
        """Who asks.

        Raises:
            ApiError: 401, nobody in particular.
        """
        if self.token is None:
            raise ApiError(401, "Requires authentication")
        return self.token.account

    @property
    def role(self) -> Role:
        """What the caller may do in the repository; an App's role follows from its permissions."""
        if self.token is not None and self.token.kind == "installation":
            return "write" if self.allowed("contents", "write") else self.repo.role_of(None)
        return self.repo.role_of(self.token.account if self.token else None)

    def allowed(self, permission: str, level: str) -> bool:
        """Whether the token has a permission in this repository."""
        token = self.token
        if token is None:
            return False
        here = token.repos is None or self._repo is None or self._repo.id in token.repos
        return here and token.allows(permission, level)

    def param(self, name: str) -> str:
        return str(self.request.path_params.get(name, ""))

    def number(self, name: str) -> int:
        """A number in the address.

        Raises:
            ApiError: 404, something else stands there.
        """
        text = self.param(name)
        if not text.isascii() or not text.isdigit():
            raise not_found()
        return int(text)

    def query(self, name: str, default: str = "") -> str:
        return self.request.query_params.get(name, default)

    @property
    def accept(self) -> str:
        return self.request.headers.get("accept", "")

    def json(self) -> dict[str, Any]:
        """The body, a JSON object.

        Raises:
            ApiError: 400, something else.
        """
        try:
            value = json.loads(self.body or b"{}")
        except ValueError:
            raise ApiError(400, "Problems parsing JSON") from None
        if not isinstance(value, dict):
            raise ApiError(400, "Body should be a JSON object")
        return value

    # -- the repository and the right to it --------------------------------------------------------------------

    def _open(self) -> Repo:
        repo = self._find()
        token, needs = self.token, self.handler.needs
        self._repo = repo
        writing = self.request.method not in ("GET", "HEAD")
        if not self._sees(repo):
            raise not_found()
        if token is None:
            if writing or self.handler.role != "read":
                raise ApiError(401, "Requires authentication")
            return repo
        if token.permissions is not None and needs and (writing or repo.private):
            parts = (need.split("=") for need in needs.split("; "))
            if not any(self.allowed(permission, level) for permission, level in parts):
                raise self.forbidden()
        if token.kind != "installation" and ROLES.index(repo.role_of(token.account)) < ROLES.index(self.handler.role):
            raise self.forbidden() if token.kind == "fine-grained" else self._hidden()
        if writing and repo.archived:
            raise ApiError(403, "Repository was archived so is read-only.")
        return repo

    def forbidden(self) -> ApiError:
        """403, the token lacks what the handler needs."""
        integration = self.token is not None and self.token.kind == "installation"
        return ApiError(403, INTEGRATION if integration else PERSONAL)

    def _hidden(self) -> ApiError:
        if self.request.url.path.endswith("/permission"):
            return ApiError(403, "Must have push access to view collaborator permission.")
        return not_found()

    def _sees(self, repo: Repo) -> bool:
        if not repo.private:
            return True
        token = self.token
        if token is None:
            return False
        if token.repos is not None:
            return repo.id in token.repos
        return repo.role_of(token.account) != "none"

    def _find(self) -> Repo:
        if self.param("repository_id"):
            found = self.github.repos.get(self.number("repository_id"))
            if found is None:
                raise not_found()
            return found
        name = f"{self.param('owner')}/{self.param('repo')}"
        repo = self.github.repo_named(name)
        if repo is not None:
            return repo
        moved = self.github.repos.get(self.github.moved.get(name.lower(), 0))
        if moved is None or not self._sees(moved):
            raise not_found()
        path = self.request.url.path
        rest = path.split("/", 4)[4:] if path.startswith("/repos/") else []
        location = "/".join([f"{self.github.api_url}/repositories/{moved.id}", *rest])
        if self.request.url.query:
            location += f"?{self.request.url.query}"
        raise Moved(location, get=self.request.method in ("GET", "HEAD"))


class Moved(ApiError):
    """The repository has another name now: 301 for reading, 307 for the rest, with its lasting address."""

    def __init__(self, location: str, *, get: bool) -> None:
        super().__init__(301 if get else 307, "Moved Permanently", headers={"Location": location})
        self.location = location

    def document(self) -> dict[str, Any]:
        return {
            "message": self.message,
            "url": self.location,
            "documentation_url": super().document()["documentation_url"],
        }


def reply(value: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    return JSONResponse(value, status, headers)


def no_content() -> Response:
    return Response(status_code=204)


def page(call: Call, items: Sequence[Any], key: str = "", total: bool = False) -> Response:
    """One page of a list with its Link header; under ``key`` (and with a total) where GitHub does that."""
    size = max(1, min(100, _positive(call.query("per_page"), 30)))
    number = max(1, _positive(call.query("page"), 1))
    last = max(1, -(-len(items) // size))
    links = []
    for relation, target in (("prev", number - 1), ("next", number + 1), ("last", last), ("first", 1)):
        wanted = target < number if relation in ("prev", "first") else target > number
        if wanted and 1 <= target <= last:
            query = urlencode({**dict(call.request.query_params), "page": target})
            links.append(f'<{call.github.api_url}{call.request.url.path}?{query}>; rel="{relation}"')
    part = list(items[(number - 1) * size : number * size])
    value: Any = {"total_count": len(items), key: part} if total else part
    return reply(value, headers={"Link": ", ".join(links)} if links else None)


def _positive(text: str, default: int) -> int:
    return int(text) if text.isascii() and text.isdigit() and len(text) < 9 else default


def text(
    data: dict[str, Any], name: str, resource: str, limit: int = MAX_BODY, *, required: bool = False
) -> str | None:  # fmt: skip
    """A text field of a body, checked as GitHub does.

    Raises:
        ApiError: 422, missing though required, not text, or longer than ``limit`` characters.
    """
    value = data.get(name)
    if value is None or (required and value == ""):
        if required:
            raise invalid(resource, name, "missing_field")
        return None
    if not isinstance(value, str):
        raise ApiError(422, f"Invalid request.\n\nFor 'properties/{name}', {json.dumps(value)[:100]} is not a string.")
    if len(value) > limit:
        raise too_long(resource, name, limit)
    return value
