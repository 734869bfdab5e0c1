"""Around a request: an id that comes back, a line without the query, a measurement by route."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response, StreamingResponse
from starlette.routing import Route

from bot.server import logs
from bot.server.metrics import Metrics
from bot.web.access import Access
from tests.bot.server.serving import serving
from tests.bot.server.test_metrics import scraped


async def ok(request: Request) -> Response:
    logging.getLogger("inner").info("inside")
    await asyncio.to_thread(logging.getLogger("inner").info, "in a thread")
    return PlainTextResponse(f"hello {request.query_params.get('secret')}", headers={"X-Request-ID": "not mine"})


async def broken(_: Request) -> Response:
    raise ValueError("a defect")


async def stream(_: Request) -> Response:
    async def events() -> AsyncIterator[bytes]:
        yield b"data: 1\n\n"

    return StreamingResponse(events(), media_type="text/event-stream")


def app(metrics: Metrics | None = None) -> Access:
    routes = [
        Route("/repos/{owner}/{name}", ok),
        Route("/broken", broken),
        Route("/stream", stream),
        Route("/healthz", ok),
    ]
    return Access(Starlette(routes=routes), metrics)


def fields(caplog: pytest.LogCaptureFixture, path: str) -> dict[str, object]:
    """What the line about one request says; it is written behind the reply, so the server's end is waited for."""
    caplog.clear()
    with caplog.at_level(logging.DEBUG), serving(app()) as served:
        served.get(path)
    (record,) = [one for one in caplog.records if one.name == "bot.web.access"]
    return {**record.fields, "level": record.levelname}  # type: ignore[attr-defined]


def test_an_id_goes_through_everything(caplog: pytest.LogCaptureFixture) -> None:
    seen: list[str] = []

    class Look(logging.Filter):
        def filter(self, record: logging.LogRecord) -> bool:
            seen.append(logs._context.get().get("request_id", ""))
            return True

    looking = Look()
    caplog.handler.addFilter(looking)
    with caplog.at_level(logging.INFO), serving(app()) as served:
        reply = served.get("/repos/acme/tiny", {"X-Request-ID": "given-by-a-proxy.1"})
    caplog.handler.removeFilter(looking)
    assert reply.headers["x-request-id"] == "given-by-a-proxy.1"
    assert [one for one in seen if one] == ["given-by-a-proxy.1"] * 3


@pytest.mark.parametrize("given", ["", "short", "x" * 65, "with space in", "semi;colon;;", "%0d%0aSet-Cookie"])
def test_an_id_that_is_none_is_made_anew(given: str) -> None:
    with serving(app()) as served:
        first = served.get("/healthz", {"X-Request-ID": given}).headers["x-request-id"]
        second = served.get("/healthz").headers["x-request-id"]
    assert len(first) == len(second) == 32 and first != second


def test_the_line_of_a_request(caplog: pytest.LogCaptureFixture) -> None:
    found = fields(caplog, "/repos/acme/tiny?secret=hunter2&x=1")
    assert "hunter2" not in caplog.text
    assert (found["method"], found["path"], found["status"]) == ("GET", "/repos/acme/tiny", 200)
    assert (found["level"], found["client"]) == ("INFO", "127.0.0.1")
    assert fields(caplog, "/healthz")["level"] == "DEBUG"
    assert fields(caplog, "/broken")["level"] == "WARNING"
    assert len(str(fields(caplog, f"/{'a' * 5000}")["path"])) == 400


def test_measurements_by_route_and_never_by_address() -> None:
    metrics = Metrics()
    with serving(app(metrics)) as served:
        for number in range(3):
            served.get(f"/repos/acme/m{number}")
            served.get(f"/nowhere/{number}")
        served.get("/broken")
        served.get("/stream")
    found = scraped(metrics)["ptebot_http_request_seconds_count"]
    assert found == {
        ("/repos/{owner}/{name}", "2xx", "GET"): 3,
        ("4xx", "GET", "none"): 3,
        ("/broken", "5xx", "GET"): 1,
    }
