"""The web app: settings, the store and the engine in, one ASGI application out; every route is named here.

``ptebot serve`` starts it. Webhooks, health, signing in and security's headers are modules of their own.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from starlette.applications import Starlette
from starlette.routing import BaseRoute, Mount
from starlette.staticfiles import StaticFiles

from bot.server.actions import Actions
from bot.server.inbox import Inbox
from bot.server.settings import Settings
from bot.server.store import Store
from bot.web import events, forms, pages, webhook
from bot.web.auth import Auth
from bot.web.call import Handler, Site, failures, page
from bot.web.live import Live
from bot.web.view import HERE, View
from bot.web.webhook import OnResult

# To add a page: its address and its handler here.
SHOWN: tuple[tuple[str, Handler], ...] = (
    ("/", pages.overview),
    ("/jobs/{job_id}", pages.job),
    ("/jobs/{job_id}/log.txt", pages.log),
    ("/repos/{owner}/{name}", pages.repository),
    ("/new", forms.new),
    ("/api/jobs", pages.api_jobs),
    ("/api/jobs/{job_id}", pages.api_job),
)
DONE: tuple[tuple[str, Handler], ...] = (
    ("/new", forms.submit),
    ("/jobs/{job_id}/cancel", forms.cancel),
    ("/jobs/{job_id}/retry", forms.retry),
    ("/jobs/{job_id}/resume", forms.resume),
)


def routes(site: Site) -> list[BaseRoute]:
    """The pages' own routes."""
    found: list[BaseRoute] = [page(site, path, handler) for path, handler in SHOWN]
    found += [page(site, path, handler, post=True) for path, handler in DONE]
    found += events.routes(site)
    return [*found, Mount("/static", StaticFiles(directory=HERE / "static"), name="static")]


def build(
    settings: Settings,
    store: Store,
    actions: Actions,
    inbox: Inbox | None = None,
    *,
    more: Sequence[BaseRoute] = (),
    live: Live | None = None,
    on_webhook: OnResult = lambda _: None,
) -> Starlette:
    """The whole application; ``app.state.site`` has its parts.

    Before a server waits for its connections to end, let those who watch go: ``app.state.site.live.stop()``.

    Args:
        inbox: for webhooks; without one there is no endpoint for them.
        more: further routes, which go first: health and metrics.
        on_webhook: told how each webhook ended.
    """
    view = View(settings)
    auth = Auth(settings, store, show=view.show)
    site = Site(settings, store, actions, auth, view, live or Live(store))
    hooks = webhook.routes(settings, inbox, on_result=on_webhook) if inbox is not None else []

    @asynccontextmanager
    async def lifespan(_app: Starlette) -> AsyncIterator[None]:
        yield
        site.live.stop()

    app = Starlette(
        routes=[*more, *hooks, *auth.routes(), *routes(site)],
        middleware=auth.middleware(),
        exception_handlers=failures(site),
        lifespan=lifespan,
    )
    app.state.site = site
    return app
