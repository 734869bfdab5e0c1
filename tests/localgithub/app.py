"""The ASGI application: routes, authentication, limits and error replies around the handlers.

Handlers are plain functions ``(Call) -> Response`` that run one after the other in a worker thread.
"""

from __future__ import annotations

import base64
import binascii
import time
from collections.abc import Awaitable, Callable

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Route

from tests.localgithub import lfs, smarthttp
from tests.localgithub.call import Call, Handler, reply
from tests.localgithub.errors import ApiError
from tests.localgithub.routes import ROUTERS
from tests.localgithub.state import State, Token

MAX_REQUEST = 160 * 1024 * 1024
RATE_LIMIT = 5000


def create_app(state: State) -> Starlette:
    """The application: the API, git and LFS on one address or on several."""
    routes: list[BaseRoute] = []
    for handler in [one for router in ROUTERS for one in router.handlers]:
        routes.append(Route(handler.path, _endpoint(state, handler), methods=[handler.method]))
        by_id = handler.path.replace("/repos/{owner}/{repo}", "/repositories/{repository_id}", 1)
        if by_id != handler.path:
            routes.append(Route(by_id, _endpoint(state, handler), methods=[handler.method]))
    routes += lfs.routes(state) + smarthttp.routes(state)
    return Starlette(routes=routes, exception_handlers={ApiError: _error, 404: _missing, 405: _missing})  # type: ignore[dict-item]


def _endpoint(state: State, handler: Handler) -> Callable[[Request], Awaitable[Response]]:
    async def endpoint(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > MAX_REQUEST:
                raise ApiError(413, "Payload too large")

        def work() -> Response:
            with state.lock:
                token = authenticate(state, request)
                call = Call(request, state, token, handler, bytes(body))
                if "{owner}" in handler.path:
                    _ = call.repo  # the right to it comes before everything else
                return handler.function(call)

        try:
            response = await run_in_threadpool(work)
        except ApiError as error:
            response = _error(request, error)
        response.headers.update(_headers(request, handler))
        return response

    return endpoint


def authenticate(state: State, request: Request) -> Token | None:
    """Who asks: a token as Bearer, as ``token``, or as the password of Basic.

    Raises:
        ApiError: 401, nobody has that token.
    """
    header = request.headers.get("authorization")
    if not header:
        return None
    scheme, _, value = header.partition(" ")
    if scheme.lower() == "basic":
        try:
            value = base64.b64decode(value.strip(), validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            value = ""
    found = state.tokens.get(value.strip()) if scheme.lower() in ("bearer", "token", "basic") else None
    if found is None:
        raise ApiError(401, "Bad credentials")
    return found


def _headers(request: Request, handler: Handler) -> dict[str, str]:
    headers = {
        "X-GitHub-Media-Type": "github.v3; format=json",
        "X-GitHub-Request-Id": "C0DE:1",
        "X-RateLimit-Limit": str(RATE_LIMIT),
        "X-RateLimit-Remaining": str(RATE_LIMIT - 1),
        "X-RateLimit-Reset": str(int(time.time()) + 3600),
        "X-RateLimit-Used": "1",
        "X-RateLimit-Resource": "core",
    }
    if handler.needs and request.headers.get("authorization"):
        headers["X-Accepted-GitHub-Permissions"] = handler.needs
    return headers


def _error(_request: Request, error: ApiError) -> Response:
    return reply(error.document(), error.status, error.headers)


def _missing(request: Request, error: Exception) -> Response:
    return _error(request, ApiError(404, "Not Found"))
