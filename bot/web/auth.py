"""Signing in and out, and who may do what: the door between the pages and everything about accounts.

Two ways lead in: the administrator's token, and the Hub's OAuth (``bot.web.oauth``). A cookie tells who came back
(``bot.web.visitors``); programs send the administrator's token as a bearer. Every form carries a mark that only the
browser that it was shown to can bring back.
"""

from __future__ import annotations

import json
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import RedirectResponse, Response
from starlette.routing import Route

from bot.errors import SignInFailed
from bot.server.sealing import Sealer
from bot.server.settings import Settings
from bot.server.store import Store
from bot.web import security
from bot.web.oauth import SECONDS_TO_SIGN_IN, Attempt, Provider
from bot.web.sessions import ADMIN_SECONDS, Session, Sessions
from bot.web.visitors import Layer, Visitor, Visitors, address_of, cookie_of

__all__ = ["Auth", "Visitor"]
CSRF_FIELD = "csrf"
CSRF_HEADER = "x-csrf-token"
Show = Callable[[Request, str, dict[str, Any], int], Response]
"""Renders a page: request, a template's name, its values, the status."""


class Auth:
    """Everything about who asks. ``show`` renders the page for signing in, ``login.html``."""

    def __init__(self, settings: Settings, store: Store, *, show: Show | None = None) -> None:
        self._settings = settings
        self._sealer = Sealer.of(settings)
        self._sessions = Sessions(store, self._sealer)
        self._visitors = Visitors(settings, self._sessions, self._sealer)
        self._begun = f"{self._visitors.cookie_name}-signin"
        self.show = show
        self._provider: Provider | None = None
        if settings.oauth_client_id:
            secret = settings.oauth_client_secret
            self._provider = Provider(
                security.provider_of(settings),
                settings.oauth_client_id,
                secret.get_secret_value() if secret else None,
                settings.oauth_scopes,
            )

    # --- for the pages

    def who(self, request: Request) -> Visitor:
        """Who sent a request: the layers of ``middleware`` found it out."""
        return self._visitors.state(request).visitor

    def token_of(self, request: Request) -> str | None:
        """The person's own token for the Hub, to open a pull request in their name; None where they have none.

        Look with it at whatever they name: what the bot's own token may read is not for everybody.
        """
        state = self._visitors.state(request)
        return state.session.token if state.session is not None and state.visitor.opens_pull_requests else None

    async def form(self, request: Request) -> FormData:
        """A posted form's fields, of a form that this browser was shown.

        Raises:
            HTTPException: 403 as ``check_csrf``; 400, 413, 415 it cannot be read.
        """
        bare = self.who(request).kind == "bearer" and "content-type" not in request.headers
        form = FormData() if bare else await security.read_form(request)
        self.check_csrf(request, form)
        return form

    def check_csrf(self, request: Request, form: Mapping[str, Any] | None = None) -> None:
        """Refuse a POST that none of our pages sent: by the header X-CSRF-Token, else by the field ``csrf``.

        Raises:
            HTTPException: 403.
        """
        visitor = self.who(request)
        if visitor.kind == "bearer":
            return  # no browser sends that by itself
        security.check_origin(request, self._settings.public_url)
        mark = request.headers.get(CSRF_HEADER) or (form or {}).get(CSRF_FIELD)
        given = mark if isinstance(mark, str) else ""
        if not secrets.compare_digest(given.encode("utf-8", "replace"), visitor.csrf.encode()):
            away = "Open these pages in a tab of their own: here the browser keeps their cookie back."
            hint = away if self.new_tab else "Load the page again."
            raise HTTPException(403, f"This form is not the one that you were shown last. {hint}")

    @property
    def new_tab(self) -> bool:
        """Whether links to sign in open a tab: a Space stands in a frame, where browsers may refuse its cookies."""
        return bool(self._settings.space_host)

    def routes(self) -> list[Route]:
        return [
            Route("/login", self._login_page, methods=["GET"]),
            Route("/login", self._login, methods=["POST"]),
            Route("/logout", self._logout, methods=["POST"]),
            Route("/oauth/start", self._oauth_start, methods=["GET"]),
            Route("/oauth/callback", self._oauth_callback, methods=["GET"]),
        ]

    def middleware(self) -> list[Middleware]:
        """Every layer that the pages need, in order: hosts, headers, who asks."""
        return [*security.layers(self._settings), Middleware(Layer, visitors=self._visitors)]

    # --- signing in and out

    def _page(self, request: Request, status: int = 200, *, error: str = "", next_path: str = "/") -> Response:
        if self.show is None:
            raise RuntimeError("Auth.show was not set")
        by_hub = f"/oauth/start?next={quote(next_path, safe='')}" if self._provider else ""
        by_token = self._settings.admin_token is not None
        values = {
            "error": error,
            "next": next_path,
            "by_hub": by_hub,
            "by_token": by_token,
            "new_tab": self.new_tab,
            "visitor": self.who(request),
        }
        return self.show(request, "login.html", values, status)

    async def _login_page(self, request: Request) -> Response:
        return self._page(request, next_path=security.local_path(request.query_params.get("next")))

    async def _login(self, request: Request) -> Response:
        form = await self.form(request)
        next_path = security.local_path(str(form.get("next", "")))
        try:
            self._visitors.before_trying(request)
        except HTTPException as error:
            response = self._page(request, error.status_code, error=error.detail, next_path=next_path)
            response.headers.update(error.headers or {})
            return response
        if not self._visitors.is_admin_token(str(form.get("token", ""))):
            self._visitors.attempts.failed(address_of(request))
            return self._page(request, 403, error="That is not the administrator’s token.", next_path=next_path)
        until = time.time() + ADMIN_SECONDS
        session = Session(kind="token", mark=self._visitors.admin_mark(), expires_at=until)
        return await self._enter(request, session, next_path)

    async def _logout(self, request: Request) -> Response:
        await self.form(request)
        await self._leave(request)
        response = RedirectResponse("/", 303)
        self._visitors.set_cookie(response, self._visitors.cookie_name, "", seconds=0, lax=False)
        return response

    async def _oauth_start(self, request: Request) -> Response:
        """GET, for a link may be opened in a tab of its own; it does nothing but lead to the Hub."""
        if self._provider is None:
            raise HTTPException(404)
        next_path = security.local_path(request.query_params.get("next"))
        base = self._settings.public_url.rstrip("/") or f"{request.url.scheme}://{request.url.netloc}"
        try:
            url, attempt = await self._provider.begin(f"{base}/oauth/callback", next_path)
        except SignInFailed as error:
            return self._page(request, 502, error=f"{error.what} {error.advice}", next_path=next_path)
        sealed = self._sealer.seal(json.dumps(asdict(attempt)).encode(), context="sign-in")
        response = RedirectResponse(url, 303)
        # Lax, on a Space too: the way back is a whole page's, never a frame's.
        self._visitors.set_cookie(response, self._begun, sealed.hex(), seconds=int(SECONDS_TO_SIGN_IN), lax=True)
        return response

    async def _oauth_callback(self, request: Request) -> Response:
        if self._provider is None:
            raise HTTPException(404)
        attempt = self._attempt(cookie_of(request, self._begun))
        next_path = attempt.next if attempt else "/"
        try:
            session = await self._signed_in(request, self._provider, attempt)
            response = await self._enter(request, session, next_path)
        except SignInFailed as error:
            response = self._page(request, 403, error=f"{error.what} {error.advice}", next_path=next_path)
        self._visitors.set_cookie(response, self._begun, "", seconds=0, lax=True)  # good for one answer
        return response

    async def _signed_in(self, request: Request, provider: Provider, attempt: Attempt | None) -> Session:
        if attempt is None:
            raise SignInFailed("This browser did not begin to sign in here.")
        person = await provider.finish(attempt, dict(request.query_params))
        session = Session(
            kind="hub",
            name=person.name,
            subject=person.subject,
            orgs=person.orgs,
            token=person.token,
            scopes=person.scopes,
            expires_at=person.expires_at,
        )
        if not self._visitors.may_sign_in(session):
            remedy = "Ask the administrator to name you in PTEBOT_USERS."
            raise SignInFailed(f"{person.name} may not sign in here.", remedy=remedy)
        return session

    def _attempt(self, value: str | None) -> Attempt | None:
        try:
            data = self._sealer.open(bytes.fromhex(value or ""), context="sign-in")
        except ValueError:
            return None
        return Attempt(**json.loads(data)) if data is not None else None

    async def _enter(self, request: Request, session: Session, next_path: str) -> Response:
        await self._leave(request)
        value = await run_in_threadpool(self._sessions.begin, session)
        response = RedirectResponse(next_path, 303)
        seconds = int(session.expires_at - time.time())
        self._visitors.set_cookie(response, self._visitors.cookie_name, value, seconds=seconds, lax=False)
        return response

    async def _leave(self, request: Request) -> None:
        state = self._visitors.state(request)
        if state.session is not None:
            await run_in_threadpool(self._sessions.end, state.cookie)
