"""Around every request: an id, a line in the log, a measurement, a span. An ASGI application in, one out.

The query of an address is never logged: it may hold the webhook's secret. Of the path, the route's own pattern goes to
the metrics; what was asked for only to the log, where it can do no harm.
"""

from __future__ import annotations

import logging
import re
import secrets
import time

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from bot.server import logs, tracing
from bot.server.metrics import Metrics

HEADER = "x-request-id"
QUIET = ("/healthz", "/readyz", "/metrics", "/static/")
"""Asked every few seconds by machines, or many times for one page: logged at level debug."""
_SANE = re.compile(r"[A-Za-z0-9._-]{8,64}")
log = logging.getLogger(__name__)


class Access:
    """The outermost layer of the web app."""

    def __init__(self, app: ASGIApp, metrics: Metrics | None = None) -> None:
        self._app, self._metrics = app, metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        given = Headers(scope=scope).get(HEADER, "")
        request_id = given if _SANE.fullmatch(given) else secrets.token_hex(16)
        began, status, streamed = time.monotonic(), 500, False

        async def answer(message: Message) -> None:
            nonlocal status, streamed
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers[HEADER] = request_id
                streamed = headers.get("content-type", "").startswith("text/event-stream")
            await send(message)

        with logs.about(request_id=request_id), tracing.request(scope) as span:
            try:
                await self._app(scope, receive, answer)
            finally:
                seconds = time.monotonic() - began
                route = str(getattr(scope.get("route"), "path", "") or "none")
                span.end(route, status)
                if self._metrics is not None and not streamed:  # a stream is open for as long as somebody watches
                    self._metrics.request(route, scope["method"], status, seconds)
                self._tell(scope, status, seconds)

    def _tell(self, scope: Scope, status: int, seconds: float) -> None:
        path = scope["path"]
        level = logging.DEBUG if path.startswith(QUIET) and status < 400 else logging.INFO
        client = scope.get("client")
        fields = {
            "method": scope["method"][:20],
            "path": path[:400],
            "status": status,
            "milliseconds": round(seconds * 1000, 1),
            "client": client[0] if client else "",
        }
        log.log(
            logging.WARNING if status >= 500 else level,
            "%s %s %d",
            fields["method"],
            fields["path"],
            status,
            extra={"fields": fields},
        )
