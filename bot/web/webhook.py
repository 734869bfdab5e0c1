"""The endpoint for the Hub's webhooks: a request in, ``202`` out once the delivery is on the disk. Stage 1.

Nothing is looked at before the secret is right. A payload is never believed: what it is about is asked of the Hub
later, by ``bot.server.intake``. Not the sender's fault and not ours is 503; the sweep finds what was not kept.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import logging
from collections.abc import Callable
from urllib.parse import parse_qs

from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response
from starlette.routing import BaseRoute, Route

from bot.errors import DatabaseUnavailable
from bot.publish.markdown import one_line
from bot.server.inbox import Inbox, InboxFull
from bot.server.records import Delivery
from bot.server.settings import Settings
from bot.server.watched import Watched
from bot.triggers import hub
from bot.triggers.hub_payload import Unreadable
from bot.triggers.request import Ignored

PATH = "/webhooks/hub"
MOST_BYTES = 1 << 20
"""Of a body; a webhook has a few kilobytes, and a comment in it 64."""
MOST_QUERY = 2_000
"""Bytes of the address's query that are looked at."""
BODY_SECONDS = 10.0
"""For the whole body to arrive."""
KEEP_SECONDS = 20.0
"""For the database to take it."""
MOST_AT_ONCE = 512
"""Requests whose body is read or kept; more are asked to come again."""
AGAIN_SECONDS = 5
HEADER = "x-webhook-secret"

OnResult = Callable[[str], None]
"""Told how each request ended, for counting: accepted, duplicate, ignored, unauthorized, too_large, too_slow,
unreadable, busy, unavailable, or gone."""

log = logging.getLogger(__name__)


def routes(settings: Settings, inbox: Inbox, *, on_result: OnResult = lambda _: None) -> list[BaseRoute]:
    """The endpoint, for the application to mount; without a secret in the settings it lets nobody in."""
    return [Route(PATH, Webhook(settings, inbox, on_result).receive, methods=["POST"], name="webhook")]


class Webhook:
    """What the endpoint needs to know, and its answers."""

    def __init__(self, settings: Settings, inbox: Inbox, on_result: OnResult) -> None:
        secret = settings.webhook_secret.get_secret_value() if settings.webhook_secret else ""
        self._secret = _digest(secret.encode()) if secret else None
        self._watched = Watched(settings.watch)
        self._inbox, self._on_result = inbox, on_result
        self._busy = 0

    async def receive(self, request: Request) -> Response:
        """POST /webhooks/hub."""
        outcome, response = await self._answer(request)
        self._on_result(outcome)
        return response

    async def _answer(self, request: Request) -> tuple[str, Response]:
        given = _given(request)
        if given is None:
            return "unauthorized", _error(401, "This needs the webhook's secret in X-Webhook-Secret.")
        if self._secret is None or not hmac.compare_digest(_digest(given), self._secret):
            return "unauthorized", _error(403, "That is not the webhook's secret.")
        if self._busy >= MOST_AT_ONCE:
            return "busy", _again("Too many requests at once.")
        self._busy += 1
        try:
            return await self._receive(request)
        finally:
            self._busy -= 1

    async def _receive(self, request: Request) -> tuple[str, Response]:
        try:
            async with asyncio.timeout(BODY_SECONDS):
                body = await _body(request)
        except TimeoutError:
            return "too_slow", _error(408, "The body took too long.")
        except ClientDisconnect:
            return "gone", _error(400, "The body is not whole.")
        if body is None:
            return "too_large", _error(413, f"The body has more than {MOST_BYTES:,} bytes.")
        try:
            found = hub.parse(body)
        except Unreadable:
            return "unreadable", _error(400, "The body is no JSON.")
        if not isinstance(found, Ignored) and found.repo_id not in self._watched:
            found = Ignored(reason=f"{found.repo_id} is not watched")
        if isinstance(found, Ignored):
            log.info("webhook ignored: %s", one_line(found.reason, 300))
            return "ignored", _said("ignored", found.reason)
        return await self._keep(_delivery(found))

    async def _keep(self, delivery: Delivery) -> tuple[str, Response]:
        try:
            async with asyncio.timeout(KEEP_SECONDS):
                new = await self._inbox.put(delivery)
        except (DatabaseUnavailable, TimeoutError) as error:
            log.warning("webhook not kept: %s", error if isinstance(error, DatabaseUnavailable) else "timed out")
            return "unavailable", _again("The database does not answer.")
        except InboxFull:
            return "busy", _again("Too many deliveries wait.")
        word = "accepted" if new else "duplicate"
        log.info("webhook %s: %s %s", word, delivery.kind, delivery.repo_id)
        return word, _said(word)


def _delivery(found: hub.Push | hub.Said) -> Delivery:
    if isinstance(found, hub.Push):
        return Delivery(key=found.key, kind="push", repo_id=found.repo_id, data={"sha": found.sha})
    data = {"discussion": found.discussion, "comment_id": found.comment_id, "author_id": found.author_id}
    return Delivery(key=found.key, kind="comment", repo_id=found.repo_id, data=data)


def _given(request: Request) -> bytes | None:
    """The secret that a request brings in its header or its address, where it is taken out: addresses are logged."""
    query, request.scope["query_string"] = request.scope["query_string"], b""
    header = request.headers.get(HEADER)
    if header is not None:
        return header.encode("latin-1")  # the bytes as they came
    try:
        named = parse_qs(query[:MOST_QUERY].decode("latin-1"), encoding="latin-1", max_num_fields=20).get("secret")
    except ValueError:  # too many fields
        return None
    return named[0].encode("latin-1") if named else None


def _digest(secret: bytes) -> bytes:
    """Of one length for all, so that comparing tells not even that."""
    return hashlib.sha256(secret).digest()


async def _body(request: Request) -> bytes | None:
    """The whole body, whether its length was announced or not; None where it is too large."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > MOST_BYTES:
        return None
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            return None
    return bytes(body)


def _said(status: str, reason: str = "") -> Response:
    return JSONResponse({"status": status, **({"reason": one_line(reason, 300)} if reason else {})}, 202)


def _error(status: int, said: str) -> Response:
    """The rest of the body is not waited for."""
    return JSONResponse({"error": said}, status, {"Connection": "close"})


def _again(said: str) -> Response:
    return JSONResponse({"error": said}, 503, {"Retry-After": str(AGAIN_SECONDS)})
