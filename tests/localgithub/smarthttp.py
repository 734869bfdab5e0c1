"""``git clone`` of a repository: the local Hub's smart HTTP, behind GitHub's addresses and tokens. Reading only."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from bot.localhub import githttp
from bot.localhub.errors import HubError
from tests.localgithub.errors import ApiError
from tests.localgithub.state import Repo, State, Token


@dataclass
class _GitCall:
    """As much of the local Hub's ``Call`` as its git handlers use."""

    request: Request
    state: State
    user: Token | None
    body: bytes = b""

    def query(self, name: str, default: str = "") -> str:
        return self.request.query_params.get(name, default)

    def repo(self) -> Repo:
        try:
            return readable(self.state, self.request, self.user)
        except ApiError as error:
            raise HubError(error.status, error.message) from None


def readable(state: State, request: Request, token: Token | None) -> Repo:
    """The repository of a git or LFS address, also by a former name, when the token may read it.

    Raises:
        ApiError: 404, there is none, or not for this caller.
    """
    name = f"{request.path_params['owner']}/{request.path_params['repo']}"
    repo = state.repo_named(name) or state.repos.get(state.moved.get(name.lower(), 0))
    if repo is None:
        raise ApiError(404, "Not Found")
    if repo.private:
        inside = token is not None and (token.repos is None or repo.id in token.repos)
        member = token is not None and (token.kind == "installation" or repo.role_of(token.account) != "none")
        if not inside or not member or (token and not token.allows("contents", "read")):
            raise ApiError(404, "Not Found")
    return repo


def routes(state: State) -> list[Route]:
    def route(method: str, path: str, handler: Callable[[Any], Response]) -> Route:
        async def endpoint(request: Request) -> Response:
            from tests.localgithub.app import authenticate

            body = await request.body()

            def work() -> Response:
                try:
                    return handler(_GitCall(request, state, authenticate(state, request), body))
                except HubError as error:
                    raise ApiError(error.status, error.message, headers=error.headers) from None

            return await run_in_threadpool(work)

        return Route(path, endpoint, methods=[method])

    return [
        route(method, base + end, handler)
        for base in ("/{owner}/{repo}.git", "/{owner}/{repo}")
        for method, end, handler in (
            ("GET", "/info/refs", githttp.advertise),
            ("POST", "/git-upload-pack", githttp.upload_pack),
        )
    ]
