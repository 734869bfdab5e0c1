"""Who sent a request: its cookie or bearer in, a ``Visitor`` out. An ASGI layer finds it out before any page runs.

A visitor is an administrator by the administrator's token, or by the name of the Hub account they signed in with; what
that means is looked up at each request, so that a changed setting or token counts at once.
"""

from __future__ import annotations

import secrets
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import PlainTextResponse, RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.errors import DatabaseUnavailable
from bot.server.sealing import Sealer
from bot.server.settings import Settings
from bot.web import security
from bot.web.attempts import Attempts
from bot.web.oauth import OPENS_PULL_REQUESTS
from bot.web.sessions import Session, Sessions

OPEN_PATHS = ("/login", "/logout", "/oauth/", "/static/", "/healthz", "/readyz", "/metrics", "/webhooks/")
"""Not held back by ``public_pages``: what is no page checks for itself."""
_KEY = "ptebot.visitor"


@dataclass(frozen=True, kw_only=True)
class Visitor:
    """Who sent a request."""

    kind: Literal["nobody", "token", "hub", "bearer"]
    name: str | None = None
    """The Hub account's name, of people who signed in with the Hub."""
    admin: bool = False
    csrf: str = ""
    """For the hidden field ``csrf`` of forms, or the header X-CSRF-Token."""
    may_see: bool = True
    """Whether pages show to them at all."""
    expires_at: float | None = None
    opens_pull_requests: bool = False
    """Whether ``Auth.token_of`` gives a token that opens pull requests in their name."""

    @property
    def signed_in(self) -> bool:
        return self.kind != "nobody"

    @property
    def by(self) -> str:
        """For records: who did something."""
        return self.name or ("administrator" if self.admin else "visitor")


@dataclass(frozen=True, kw_only=True)
class State:
    """What a request's cookie led to."""

    visitor: Visitor
    cookie: str = ""
    fresh: bool = False
    """The cookie is not with the browser yet."""
    session: Session | None = None


class Visitors:
    """Rules about who is who."""

    def __init__(self, settings: Settings, sessions: Sessions, sealer: Sealer) -> None:
        self.attempts = Attempts()
        self._settings = settings
        self._sessions = sessions
        self._sealer = sealer
        self._secure = settings.public_url.lower().startswith("https://")
        # Browsers take __Host- from this very host and over https only, so that no subdomain can plant one.
        self.cookie_name = "__Host-ptebot" if self._secure else "ptebot"

    @staticmethod
    def state(request: Request) -> State:
        """What the layer found out."""
        state = request.scope.get(_KEY)
        if not isinstance(state, State):
            raise RuntimeError("the app was built without Auth.middleware()")
        return state

    async def load(self, request: Request) -> State:
        """The request's state.

        Raises:
            HTTPException: 401 or 429, the bearer is not the administrator's token.
        """
        if self._bearer(request):
            return State(visitor=Visitor(kind="bearer", admin=True))
        value = cookie_of(request, self.cookie_name)
        if value is None or not self._sessions.is_ours(value):
            return self._stranger(self._sessions.visitor(), fresh=True)
        if not self._sessions.leads_somewhere(value):
            return self._stranger(value, fresh=False)
        session = await run_in_threadpool(self._sessions.find, value)
        if session is None or not self._still_good(session):
            return self._stranger(self._sessions.visitor(), fresh=True)
        return State(visitor=self._known(session, value), cookie=value, session=session)

    def _known(self, session: Session, cookie: str) -> Visitor:
        settings = self._settings
        admin = session.kind == "token" or _named(settings.admins, session.name)
        return Visitor(
            kind=session.kind,
            name=session.name,
            admin=admin,
            csrf=self._csrf(cookie),
            may_see=admin or settings.public_pages or _named(settings.users, session.name, *session.orgs),
            expires_at=session.expires_at,
            opens_pull_requests=session.token is not None and OPENS_PULL_REQUESTS in session.scopes,
        )

    def _stranger(self, value: str, *, fresh: bool) -> State:
        visitor = Visitor(kind="nobody", csrf=self._csrf(value), may_see=self._settings.public_pages)
        return State(visitor=visitor, cookie=value, fresh=fresh)

    def _csrf(self, cookie: str) -> str:
        return self._sealer.mark(cookie, context="csrf")

    def _still_good(self, session: Session) -> bool:
        if session.kind == "token":
            return session.mark == self.admin_mark()
        return bool(self._settings.oauth_client_id) and self.may_sign_in(session)

    def may_sign_in(self, session: Session) -> bool:
        """Whoever is named, themselves or by an organisation; everybody where nobody is."""
        settings = self._settings
        named = _named(settings.users, session.name, *session.orgs) or _named(settings.admins, session.name)
        return named or not settings.users

    def admin_mark(self) -> str:
        """What stands for the administrator's token of now in a session; '' where there is none."""
        token = self._settings.admin_token
        return self._sealer.mark(token.get_secret_value(), context="admin token") if token else ""

    def is_admin_token(self, given: str) -> bool:
        """In constant time, of whatever length: keyed hashes of both are compared."""
        ours, theirs = self.admin_mark(), self._sealer.mark(given, context="admin token")
        return ours != "" and secrets.compare_digest(ours, theirs)

    def before_trying(self, request: Request) -> None:
        """Refuse an address that failed too often.

        Raises:
            HTTPException: 429.
        """
        wait = self.attempts.wait(address_of(request))
        if wait:
            raise HTTPException(429, "Too many attempts to sign in: wait a while.", {"Retry-After": str(wait)})

    def _bearer(self, request: Request) -> bool:
        scheme, _, value = request.headers.get("authorization", "").partition(" ")
        value = value.strip()
        # A token of the Hub's is for the Hub, which asks for one before a private Space and may pass it on.
        if scheme.lower() != "bearer" or self._settings.admin_token is None or value.startswith("hf_"):
            return False
        self.before_trying(request)
        if self.is_admin_token(value):
            return True
        self.attempts.failed(address_of(request))
        raise HTTPException(401, "This is not the administrator's token.", {"WWW-Authenticate": "Bearer"})

    def set_cookie(
        self, response: Response | MutableHeaders, name: str, value: str, *, seconds: int | None = None, lax: bool
    ) -> None:
        """On a Space the pages stand in a frame of another site, which only ``SameSite=None`` reaches."""
        headers = response.headers if isinstance(response, Response) else response
        same_site = "Lax" if lax or not (self._settings.space_host and self._secure) else "None"
        age = f"; Max-Age={seconds}" if seconds is not None else ""
        secure = "; Secure" if self._secure else ""
        headers.append("set-cookie", f"{name}={value}; Path=/{age}; HttpOnly; SameSite={same_site}{secure}")


class Layer:
    """Finds out who asks before a page runs, and gives a stranger who was shown a page a cookie for its forms."""

    def __init__(self, app: ASGIApp, visitors: Visitors) -> None:
        self.app = app
        self._visitors = visitors

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request = Request(scope)
        try:
            state = await self._visitors.load(request)
        except HTTPException as error:
            await PlainTextResponse(f"{error.detail}\n", error.status_code, error.headers)(scope, receive, send)
            return
        except DatabaseUnavailable as error:
            await PlainTextResponse(f"{error.what}\n", 503, {"Retry-After": "10"})(scope, receive, send)
            return
        scope[_KEY] = state
        if not state.visitor.may_see and not _open(scope["path"]):
            await _door(request, state.visitor)(scope, receive, send)
            return

        async def writing(message: Message) -> None:
            # Never after a POST: one from another site brings no cookie, and a new one would end the session of now.
            if message["type"] == "http.response.start" and state.fresh and request.method == "GET":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith("text/html") and "set-cookie" not in headers:
                    name = self._visitors.cookie_name
                    self._visitors.set_cookie(headers, name, state.cookie, lax=False)
            await send(message)

        await self.app(scope, receive, writing)


def _open(path: str) -> bool:
    return any(path == one.rstrip("/") or (one.endswith("/") and path.startswith(one)) for one in OPEN_PATHS)


def _door(request: Request, visitor: Visitor) -> Response:
    """For who may not see the pages."""
    if visitor.signed_in:
        return PlainTextResponse("These pages are not shown to this account.\n", 403)
    if request.method != "GET" or "text/html" not in request.headers.get("accept", ""):
        return PlainTextResponse("Sign in first.\n", 401, {"WWW-Authenticate": "Bearer"})
    query = f"?{request.url.query}" if request.url.query else ""
    wanted = security.local_path(request.url.path + query)
    return RedirectResponse(f"/login?next={quote(wanted, safe='')}", 303)


def _named(names: tuple[str, ...], *own: str | None) -> bool:
    """As the Hub has it, names differ by more than the case of their letters."""
    known = {name.lower() for name in names}
    return any(name is not None and name.lower() in known for name in own)


def address_of(request: Request) -> str:
    """The client's; of a proxy's client only where ``trusted_proxies`` names the proxy."""
    return request.client.host if request.client else ""


def cookie_of(request: Request, name: str) -> str | None:
    """One cookie; None where two have its name, since one of them was planted."""
    parts = [part.strip().partition("=") for part in request.headers.get("cookie", "").split(";")]
    found = [value for key, _, value in parts if key == name]
    return found[0] if len(found) == 1 else None
