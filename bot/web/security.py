"""What surrounds every page: host names, headers, where a form may come from. Requests in, refusals or headers out.

The rules follow OWASP's cheat sheets for CSRF and HTTP headers, and Fetch Metadata. ASGI layers here are plain ones
that hold nothing back, so that server-sent events pass as they come.
"""

from __future__ import annotations

import asyncio
import ipaddress
from urllib.parse import parse_qsl, urlsplit

from starlette.datastructures import FormData, MutableHeaders
from starlette.datastructures import Headers as RequestHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import PlainTextResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware

from bot.server.settings import Settings

_LOCAL = frozenset({"localhost"})
_PERMISSIONS = (
    "accelerometer", "autoplay", "camera", "clipboard-read", "display-capture", "encrypted-media", "fullscreen",
    "geolocation", "gyroscope", "magnetometer", "microphone", "midi", "payment", "picture-in-picture",
    "publickey-credentials-get", "screen-wake-lock", "usb", "xr-spatial-tracking",
)  # fmt: skip
FORM_SECONDS = 15.0
FORM_BYTES = 64 * 1024
FORM_FIELDS = 100
_YEAR = 31_536_000


def origin_of(url: str) -> str:
    """``scheme://host[:port]`` of an address; '' where it has none."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}".lower() if parts.scheme and parts.netloc else ""


def provider_of(settings: Settings) -> str:
    """The address of whoever signs people in, without a slash at its end."""
    return (settings.oauth_provider or settings.endpoint).rstrip("/")


def local_path(value: str | None) -> str:
    """Where to go after signing in: a path of these pages, or ``/`` for everything else.

    Browsers take ``//host``, ``/\\host`` and both with tabs in between for other sites (WHATWG URL, special schemes).
    """
    if not value or len(value) > 1024 or not value.startswith("/") or value.startswith("//") or "\\" in value:
        return "/"
    return value if all("!" <= char <= "~" for char in value) else "/"


def layers(settings: Settings) -> list[Middleware]:
    """The outermost layers of the app, in order."""
    found = [Middleware(Headers, settings=settings), Middleware(Hosts, settings=settings)]
    if settings.trusted_proxies:
        found.insert(0, Middleware(ProxyHeadersMiddleware, trusted_hosts=list(settings.trusted_proxies)))
    return found


def check_origin(request: Request, public_url: str) -> None:
    """Refuse what another site's page sends.

    Raises:
        HTTPException: 403.
    """
    if request.headers.get("sec-fetch-site", "same-origin") not in ("same-origin", "none"):
        raise HTTPException(403, "This form was sent from another site.")
    origin = request.headers.get("origin")
    if origin is None:
        return  # older browsers; the form's mark is there to be checked
    host = request.headers.get("host", "").lower()
    ours = {origin_of(public_url), f"{request.url.scheme}://{host}"}
    if origin.lower() not in ours - {""}:
        raise HTTPException(403, "This form was sent from another site.")


async def read_form(request: Request) -> FormData:
    """The fields of a form without files.

    Raises:
        HTTPException: 408 too slow, 415 another kind of body, 413 too large, 400 not UTF-8 or too many fields.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/x-www-form-urlencoded":
        raise HTTPException(415, "A form is expected.")
    body = bytearray()
    try:
        async with asyncio.timeout(FORM_SECONDS):
            async for part in request.stream():
                body += part
                if len(body) > FORM_BYTES:
                    raise HTTPException(413, "The form is too large.")
    except TimeoutError:
        raise HTTPException(408, "The form did not arrive in time.") from None
    try:
        text = body.decode("ascii")
        pairs = parse_qsl(text, keep_blank_values=True, max_num_fields=FORM_FIELDS, errors="strict")
        return FormData([(name, value) for name, value in pairs])
    except ValueError:
        raise HTTPException(400, "The form cannot be read.") from None


class Hosts:
    """Answer to our own names only: no other site's name may lead a browser here (DNS rebinding).

    Addresses in numbers pass, for probes and for machines without a name: no name can be made to lead to a number
    that a browser then sends as Host.
    """

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        public = urlsplit(settings.public_url).hostname
        self._names = _LOCAL | {name.lower() for name in settings.hosts} | ({public.lower()} if public else set())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] in ("http", "websocket") and not self._is_ours(RequestHeaders(scope=scope).getlist("host")):
            text = "This name is not one of this server's: set PTEBOT_PUBLIC_URL or PTEBOT_HOSTS.\n"
            await PlainTextResponse(text, 400)(scope, receive, send)
            return
        await self.app(scope, receive, send)

    def _is_ours(self, hosts: list[str]) -> bool:
        if len(hosts) != 1:
            return False
        try:
            parts = urlsplit(f"//{hosts[0]}")
            name, _ = parts.hostname or "", parts.port
        except ValueError:
            return False
        if parts.netloc != hosts[0] or "@" in hosts[0]:
            return False
        if name in self._names:
            return True
        try:
            ipaddress.ip_address(name)
        except ValueError:
            return False
        return True


class Headers:
    """Headers of every reply; one that a page set itself stays."""

    def __init__(self, app: ASGIApp, settings: Settings) -> None:
        self.app = app
        self._always = headers_of(settings)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return

        async def writing(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in self._always.items():
                    headers.setdefault(name, value)
            await send(message)

        await self.app(scope, receive, writing)


def headers_of(settings: Settings) -> dict[str, str]:
    """What every reply carries; replies made outside of the layers (a 500) set it themselves."""
    provider = origin_of(provider_of(settings))
    # Chromium holds redirects after a form to form-action too: signing in leads to the provider.
    target = f" {provider}" if provider and settings.oauth_client_id else ""
    # The Hub shows a Space in a frame of its own page.
    frames = f"'self' {provider}" if settings.space_host else "'none'"
    values = {
        "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; "
        f"font-src 'self'; connect-src 'self'; manifest-src 'self'; form-action 'self'{target}; base-uri 'none'; "
        f"frame-ancestors {frames}",
        "X-Content-Type-Options": "nosniff",
        "Referrer-Policy": "same-origin",
        "Permissions-Policy": ", ".join(f"{name}=()" for name in _PERMISSIONS),
        "Cross-Origin-Opener-Policy": "same-origin",
        "Cross-Origin-Resource-Policy": "cross-origin" if settings.space_host else "same-origin",
        "X-Robots-Tag": "noindex",
        "Cache-Control": "no-store",
    }
    if not settings.space_host:
        values["X-Frame-Options"] = "DENY"
    if settings.public_url.lower().startswith("https://"):
        values["Strict-Transport-Security"] = f"max-age={_YEAR}"
    return values
