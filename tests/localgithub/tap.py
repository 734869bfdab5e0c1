"""An ASGI layer around the application that records what passes and plays faults; the server has no switch for them."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Literal
from urllib.parse import parse_qsl

import uvicorn
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

RECORDED = 4 * 1024 * 1024
SECRET = ("authorization", "cookie", "x-amz-security-token")


@dataclass(frozen=True)
class Exchange:
    """One request and its reply.

    ``headers``: without secrets; ``auth``: at most the scheme and the token's kind; ``body`` and ``response``: decoded
    JSON, else None; ``size``: bytes of the body; ``port`` tells the API from the server; ``status`` 0: no reply.
    """

    method: str
    path: str
    query: list[tuple[str, str]]
    headers: dict[str, str]
    auth: str
    body: Any
    size: int
    port: int
    status: int
    response_headers: dict[str, str]
    response: Any


@dataclass
class Fault:
    """What happens to matching requests. ``drop`` loses the reply after the work was done, ``drop_before`` the
    request before it, a number is answered instead of doing it, ``slow`` waits ``seconds`` first, ``meanwhile``
    calls ``do`` first. ``skip`` requests pass, then ``times`` are hit."""

    method: str
    path: re.Pattern[str]
    action: Literal["drop", "drop_before", "slow", "meanwhile"] | int
    skip: int = 0
    times: int = 1
    headers: dict[str, str] = field(default_factory=dict)
    body: dict[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    do: Callable[[], object] | None = None
    hits: int = 0

    def takes(self, method: str, path: str) -> bool:
        if self.method not in ("*", method) or not self.path.search(path) or self.times == 0:
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        self.hits += 1
        return True


class Tap:
    def __init__(self, app: ASGIApp) -> None:
        self.app = app
        self.traffic: list[Exchange] = []
        self.faults: list[Fault] = []
        self.server: uvicorn.Server | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        path = scope["raw_path"].decode("ascii", "replace").split("?")[0]
        fault = next((item for item in self.faults if item.takes(scope["method"], path)), None)
        sent, got, size = bytearray(), bytearray(), 0
        start: dict[str, Any] = {"status": 0, "headers": []}

        async def reading() -> Message:
            nonlocal size
            message = await receive()
            piece = message.get("body", b"")
            size += len(piece)
            if len(sent) < RECORDED:
                sent.extend(piece)
            return message

        async def writing(message: Message) -> None:
            if message["type"] == "http.response.start":
                start.update(message)
            else:
                if len(got) < RECORDED:
                    got.extend(message.get("body", b""))
                if not message.get("more_body"):  # before the client has it all, and looks at what was recorded
                    self.traffic.append(_exchange(scope, path, bytes(sent), size, start, bytes(got)))
            if fault is None or fault.action != "drop":
                await send(message)

        if fault and fault.action == "slow":
            await asyncio.sleep(fault.seconds)
        if fault and fault.action == "meanwhile" and fault.do:
            await asyncio.to_thread(fault.do)
        if fault and fault.action == "drop_before":
            while (await reading()).get("more_body"):
                pass
            self.traffic.append(_exchange(scope, path, bytes(sent), size, start, b""))
            await self._abort(scope)
            return
        if fault and isinstance(fault.action, int):
            while (await reading()).get("more_body"):
                pass
            body = fault.body or {"message": "Server Error", "documentation_url": "https://docs.github.com/rest"}
            await JSONResponse(body, fault.action, fault.headers)(scope, receive, writing)
        else:
            await self.app(scope, reading, writing)
        if fault and fault.action == "drop":
            await self._abort(scope)

    async def _abort(self, scope: Scope) -> None:
        """Close the client's connection without a word."""
        for connection in list(self.server.server_state.connections) if self.server else []:
            if connection.client == scope["client"]:  # type: ignore[union-attr]
                connection.transport.abort()
        await asyncio.sleep(0.01)  # until uvicorn has noticed, or it would report an unanswered request


def _exchange(scope: Scope, path: str, sent: bytes, size: int, start: dict[str, Any], got: bytes) -> Exchange:
    asked = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in scope["headers"]}
    answered = {key.decode("latin-1").lower(): value.decode("latin-1") for key, value in start["headers"]}
    scheme, _, token = asked.get("authorization", "").partition(" ")
    kind = token.partition("_")[0] if token.startswith(("ghp_", "ghs_", "github_pat_", "ghu_", "gho_")) else ""
    return Exchange(
        method=scope["method"], path=path,
        query=parse_qsl(scope["query_string"].decode("latin-1"), keep_blank_values=True),
        headers={key: value for key, value in asked.items() if key not in SECRET},
        auth=f"{scheme} {kind}".strip(), body=_decode(asked.get("content-type", ""), sent), size=size,
        port=scope["server"][1] if scope.get("server") else 0, status=start["status"],
        response_headers=answered, response=_decode(answered.get("content-type", ""), got),
    )  # fmt: skip


def _decode(content_type: str, body: bytes) -> Any:
    if "json" not in content_type or not body:
        return None
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        return None  # what is not JSON is none of the recorder's business
