"""The ASGI application: routes, authentication, limits and error replies around the handlers.

Stage: outermost. A request is authenticated and its body read (within a limit) here; a handler then runs
in a worker thread and knows nothing of any of it.
"""

from __future__ import annotations

import base64
import binascii
import dataclasses
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import unquote_to_bytes

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import BaseRoute, Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Receive, Scope, Send

from bot.localhub import (
    branches,
    commits,
    consent,
    discussion_pages,
    discussion_routes,
    files,
    githttp,
    lfs,
    models,
    oauth,
    oidc,
    overviews,
    pages,
    webhooks,
)
from bot.localhub.accounts import Caller
from bot.localhub.context import SLASH, Call, Hub, reply
from bot.localhub.errors import HubError

Handler = Callable[[Call], Response]
LOCAL_NAMES = ["127.0.0.1", "localhost", "[::1]", "::1"]


def create_app(hub: Hub, *, hosts: list[str] | None = None) -> Starlette:
    """The application. ``hosts``: the Host headers that it answers to, against DNS rebinding (default: local names)."""

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        hub.deliveries.start()
        yield
        await run_in_threadpool(hub.deliveries.stop)
        hub.close()

    return Starlette(
        routes=_routes(hub),
        lifespan=lifespan,
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=hosts or LOCAL_NAMES, www_redirect=False),
            Middleware(SlashSafe),
        ],
        exception_handlers={HubError: _error_reply, 404: _plain_error, 405: _plain_error, Exception: _defect},  # type: ignore[dict-item]
    )


def _routes(hub: Hub) -> list[BaseRoute]:
    limits = hub.limits

    def api(method: str, path: str, handler: Handler, limit: int = limits.json_body) -> Route:
        async def endpoint(request: Request) -> Response:
            return await _serve(request, hub, handler, limit)

        endpoint.__name__ = f"{handler.__module__}.{handler.__name__}"
        return Route(path, endpoint, methods=[method])

    def streaming(method: str, path: str, handler: Callable[[Request, Hub], Awaitable[Response]]) -> Route:
        async def endpoint(request: Request) -> Response:
            return await handler(request, hub)

        return Route(path, endpoint, methods=[method])

    m, d = "/api/models/{ns}/{name}", "/api/models/{ns}/{name}/discussions"
    w = "/api/settings/webhooks"
    upload = "/_lfs/{repo_id}/{oid}/{size:int}"
    return [
        *(hub.jobs.routes() if hub.jobs else ()),
        api("GET", "/api/whoami-v2", models.whoami),
        api("GET", "/api/organizations/{name}/overview", overviews.organisation),
        api("GET", "/api/organizations/{name}/members", overviews.members),
        api("GET", "/api/users/{name}/overview", overviews.user),
        api("GET", "/.well-known/openid-configuration", oauth.metadata),
        api("GET", "/oauth/jwks", oauth.keys),
        api("GET", "/oauth/authorize", consent.authorize),
        api("POST", "/oauth/authorize", oauth.decide),
        api("POST", "/oauth/token", oauth.token),
        api("GET", "/oauth/userinfo", oauth.userinfo),
        api("POST", "/oauth/register", oauth.register),
        api("POST", "/api/localhub/users", models.create_user),
        api("POST", "/api/validate-yaml", models.validate_yaml),
        api("POST", "/api/repos/create", models.create),
        api("DELETE", "/api/repos/delete", models.delete),
        api("POST", "/api/repos/move", models.move),
        api("GET", "/api/models", models.listing),
        api("GET", m, models.info),
        api("GET", m + "/revision/{rev}", models.info),
        api("GET", m + "/auth-check", models.auth_check),
        api("GET", m + "/auth-check/{what}", models.auth_check),
        api("PUT", m + "/settings", models.settings),
        api("POST", m + "/branch/{rev}", branches.create_branch),
        api("DELETE", m + "/branch/{rev}", branches.delete_branch),
        api("POST", m + "/tag/{rev}", branches.create_tag),
        api("DELETE", m + "/tag/{rev}", branches.delete_tag),
        api("POST", m + "/lfs-files/duplicate", models.duplicate_files),
        api("GET", m + "/refs", branches.refs),
        api("GET", m + "/commits/{rev}", files.commits),
        api("GET", m + "/compare/{compare}", files.compare),
        api("GET", m + "/tree/{rev}", files.tree),
        api("GET", m + "/tree/{rev}/{path:path}", files.tree),
        api("POST", m + "/paths-info/{rev}", files.paths_info),
        api("GET", m + "/xet-{kind}-token/{rev}", files.xet_token),
        api("POST", m + "/preupload/{rev}", commits.preupload),
        api("POST", m + "/commit/{rev}", commits.commit, limits.commit_body),
        api("GET", d, discussion_routes.listing),
        api("POST", d, discussion_routes.create),
        api("GET", d + "/{num}", discussion_routes.details),
        api("DELETE", d + "/{num}", discussion_routes.delete),
        api("POST", d + "/{num}/comment", discussion_routes.comment),
        api("POST", d + "/{num}/comment/{event}/edit", discussion_routes.edit),
        api("POST", d + "/{num}/comment/{event}/hide", discussion_routes.hide),
        api("POST", d + "/{num}/title", discussion_routes.title),
        api("POST", d + "/{num}/status", discussion_routes.status),
        api("POST", d + "/{num}/merge", discussion_routes.merge),
        api("DELETE", d + "/{num}/ref", discussion_routes.delete_ref),
        api("GET", w, webhooks.listing),
        api("POST", w, webhooks.create),
        api("GET", w + "/{id}", webhooks.show),
        api("POST", w + "/{id}", webhooks.update),
        api("DELETE", w + "/{id}", webhooks.delete),
        api("GET", w + "/{id}/log", webhooks.log),
        api("POST", w + "/{id}/replay/{log_id}", webhooks.replay),
        api("POST", w + "/{id}/{action}", webhooks.switch),
        api("POST", "/{ns}/{name}.git/info/lfs/objects/batch", lfs.batch),
        api("POST", "/{ns}/{name}.git/info/lfs/objects/verify", lfs.verify),
        *(
            route
            for name in ("/{ns}/{name}.git", "/{ns}/{name}")
            for route in (
                api("GET", name + "/info/refs", githttp.advertise),
                api("POST", name + "/git-upload-pack", githttp.upload_pack, githttp.MAX_REQUEST),
            )
        ),
        streaming("PUT", upload, lfs.put),
        streaming("PUT", upload + "/{part:int}", lfs.put),
        streaming("GET", upload, lfs.get),
        api("POST", upload + "/complete", lfs.complete),
        Mount("/static", StaticFiles(directory=Path(__file__).parent / "static")),
        api("GET", "/{ns}/{name}/resolve/{rev}/{path:path}", files.resolve),
        api("GET", "/", pages.index),
        api("GET", "/login", pages.login),
        api("GET", "/{ns}", pages.index),
        api("GET", "/{ns}/{name}", pages.card),
        api("GET", "/{ns}/{name}/tree/{rev}", pages.tree),
        api("GET", "/{ns}/{name}/tree/{rev}/{path:path}", pages.tree),
        api("GET", "/{ns}/{name}/blob/{rev}/{path:path}", pages.blob),
        api("GET", "/{ns}/{name}/commits/{rev}", pages.commits),
        api("GET", "/{ns}/{name}/commit/{rev}", pages.commit),
        api("GET", "/{ns}/{name}/discussions", discussion_pages.listing),
        api("GET", "/{ns}/{name}/discussions/{num}", discussion_pages.show),
        api("POST", "/{ns}/{name}/discussions/{num}/merge", discussion_pages.merge),
    ]


async def _serve(request: Request, hub: Hub, handler: Handler, limit: int) -> Response:
    body = bytearray()
    if request.method not in ("GET", "HEAD"):
        announced = request.headers.get("content-length", "0")
        if not announced.isdigit() or int(announced) > limit:
            raise HubError(413, f"The body is larger than {limit} bytes")
        async for chunk in request.stream():
            body += chunk
            if len(body) > limit:
                raise HubError(413, f"The body is larger than {limit} bytes")

    def work() -> Response:
        return handler(Call(request, hub, _authenticate(request, hub), bytes(body)))

    return await run_in_threadpool(work)


def _authenticate(request: Request, hub: Hub) -> Caller | None:
    """Who asks: a bearer token, or (git and browsers) Basic with the token as its password, for reading only.

    Raises:
        HubError: 401, the header is there but names nobody.
    """
    header = request.headers.get("authorization")
    if not header or request.url.path == "/oauth/token":  # there an application says who it is
        return None
    scheme, _, value = header.partition(" ")
    token = value.strip()
    if scheme.lower() == "basic":
        try:
            token = base64.b64decode(token, validate=True).decode().partition(":")[2]
        except (binascii.Error, ValueError):
            token = ""
    kinds = {oidc.PREFIX: oidc.caller, oauth.PREFIX: oauth.caller}
    made = next((kind for prefix, kind in kinds.items() if token.startswith(prefix)), None)
    known = made(hub, token) if made else hub.accounts.caller(token)
    caller = known if scheme.lower() in ("bearer", "basic") else None
    if caller is None:
        raise HubError(401, "Invalid credentials in Authorization header")
    if scheme.lower() == "basic" and request.method not in ("GET", "HEAD"):
        # A browser sends Basic along with what other sites make it send; no change may come of that.
        return dataclasses.replace(caller, token_role="read")  # noqa: S106 - a role, not a secret
    return caller


class SlashSafe:
    """Match routes on the address as it was sent, so that an encoded slash does not part it."""

    def __init__(self, app: ASGIApp) -> None:
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        try:
            parts = [unquote_to_bytes(part).decode() for part in scope["raw_path"].split(b"/")]
        except UnicodeDecodeError:
            await reply({"error": "The address is not UTF-8"}, 400)(scope, receive, send)
            return
        if any(ord(char) < 32 or ord(char) == 127 for part in parts for char in part):
            await reply({"error": "The address has control characters"}, 400)(scope, receive, send)
            return
        scope = dict(scope, path="/".join(part.replace("/", SLASH) for part in parts))
        await self.app(scope, receive, send)


def _error_reply(_request: Request, error: HubError) -> Response:
    headers = {"X-Error-Message": re.sub(r"[^ -~]", "?", error.message)[:500]}
    if error.code:
        headers["X-Error-Code"] = error.code
    return reply({"error": error.message, **error.extra}, error.status, headers | error.headers)


def _plain_error(_request: Request, error: Exception) -> Response:
    status = getattr(error, "status_code", 404)
    return reply(
        {"error": "Sorry, we can't find the page you are looking for." if status == 404 else "Not allowed"}, status
    )


def _defect(_request: Request, error: Exception) -> Response:
    if isinstance(error, ClientDisconnect):
        return Response(status_code=499)
    return reply({"error": "Internal error of the local Hub; its log says more"}, 500)
