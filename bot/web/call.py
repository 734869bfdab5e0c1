"""Around every page: what a handler gets, its form, and failures as pages or JSON.

A handler is a plain function that runs in a worker thread; it gets a ``Call`` and gives a reply. What it raises as a
``PtebotError`` is shown with its title, what happened and what to do. Who may see pages at all, ``bot.web.auth`` has
decided before.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from bot.errors import DatabaseUnavailable, HubUnreachable, JobNotFound, NotAuthorized, NotOfThisState, RepoNotFound
from bot.server.actions import Actions
from bot.server.records import JobRecord
from bot.server.settings import Settings
from bot.server.store import Store
from bot.web.auth import Auth
from bot.web.live import Live
from bot.web.view import View
from bot.web.visitors import Visitor
from exporter.errors import PtebotError

STATUS: dict[type[PtebotError], int] = {
    JobNotFound: 404,
    RepoNotFound: 404,
    NotOfThisState: 409,
    NotAuthorized: 403,
    HubUnreachable: 502,
    DatabaseUnavailable: 503,
}
"""What a browser is told; any other failure is 500."""
JOB_ID = re.compile(r"[0-9a-f]{32}")
TITLES = {403: "Not allowed", 404: "No such page", 405: "Not that way"}
DEFECT_HEADERS = {"Content-Security-Policy": "default-src 'none'; style-src 'self'; img-src 'self'"}
"""A page about a defect is made outside of the layer that gives every other page its headers."""


@dataclass(frozen=True)
class Site:
    """Everything that a page may need."""

    settings: Settings
    store: Store
    actions: Actions
    auth: Auth
    view: View
    live: Live


@dataclass(frozen=True)
class Call:
    """One request for a page."""

    site: Site
    request: Request
    visitor: Visitor
    form: FormData = field(default_factory=FormData)

    @property
    def store(self) -> Store:
        return self.site.store

    @property
    def only_public(self) -> bool:
        """Whether lists leave out jobs of private repositories."""
        return not sees_all(self.site, self.visitor)

    def param(self, name: str) -> str:
        return str(self.request.path_params[name])

    def query(self, name: str) -> str:
        """Of the address; without the one character that PostgreSQL refuses in a text."""
        return self.request.query_params.get(name, "").replace("\0", "").strip()[:300]

    def render(self, template: str, status: int = 200, /, **values: Any) -> Response:
        return self.site.view.render(self.request, template, status, visitor=self.visitor, **values)


def sees_all(site: Site, visitor: Visitor) -> bool:
    """Whether jobs of private repositories are for this visitor too: pages that are not public show them all."""
    return visitor.admin or not site.settings.public_pages


def sees(site: Site, visitor: Visitor, record: JobRecord) -> bool:
    """Whether this job is for this visitor; who asked for it sees it too."""
    # Of the command line, the name is an account of that machine, not of the Hub.
    own = visitor.name is not None and visitor.name == record.asker.name and record.asker.trigger != "cli"
    return own or not record.private or sees_all(site, visitor)


Handler = Callable[[Call], Response]


def page(site: Site, path: str, handler: Handler, *, post: bool = False) -> Route:
    """A route to a handler; a form is refused where it is not one of ours."""

    async def endpoint(request: Request) -> Response:
        try:
            form = await site.auth.form(request) if post else FormData()
        except ClientDisconnect:
            return Response(status_code=400)
        return await run_in_threadpool(handler, Call(site, request, site.auth.who(request), form))

    endpoint.__name__ = handler.__name__
    return Route(path, endpoint, methods=["POST" if post else "GET"])


def is_api(request: Request) -> bool:
    """Whether a program asks."""
    return request.url.path.startswith("/api/") or request.url.path.endswith("/events")


def failures(site: Site) -> dict[Any, Any]:
    """Starlette's exception handlers: pages for people, JSON for programs."""

    def known(request: Request, error: PtebotError) -> Response:
        status = next((code for kind, code in STATUS.items() if isinstance(error, kind)), 500)
        return shown(request, status, error.title, error.what, error.advice)

    def http(request: Request, error: HTTPException) -> Response:
        standard = error.status_code in (404, 405)
        what = "" if standard else str(error.detail)
        response = shown(request, error.status_code, TITLES.get(error.status_code, "That did not work"), what, "")
        response.headers.update(error.headers or {})
        return response

    def defect(request: Request, _error: Exception) -> Response:
        response = shown(request, 500, "Something broke here", "The server's log has what happened.", "")
        response.headers.update(DEFECT_HEADERS)
        return response

    def shown(request: Request, status: int, title: str, what: str, advice: str) -> Response:
        if is_api(request):
            return JSONResponse({"error": title, "what": what, "advice": advice}, status)
        values = {"status": status, "title": title, "what": what, "advice": advice}
        try:
            visitor = site.auth.who(request)
        except RuntimeError:  # nobody has asked yet who it is
            visitor = Visitor(kind="nobody")
        return site.view.render(request, "error.html", status, visitor=visitor, **values)

    return {PtebotError: known, HTTPException: http, Exception: defect}
