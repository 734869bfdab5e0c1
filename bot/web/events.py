"""Server-sent events: what a job's page and the overview show live. In: requests; out: streams that end with the job.

A browser that comes back names the last event it saw (``Last-Event-ID``), whichever machine it comes back to.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

from bot.web.call import JOB_ID, Site, sees, sees_all
from bot.web.live import OVERVIEW, PUBLIC_OVERVIEW, Message, TooManyWatchers, encode

HEADERS = {
    "Cache-Control": "no-store",
    "X-Accel-Buffering": "no",  # nginx keeps what it proxies until there is more of it
}
SECONDS_UNTIL_BACK = 3
"""That a browser waits before it comes back."""


def routes(site: Site) -> list[Route]:
    async def job(request: Request) -> Response:
        """GET /jobs/{id}/events."""
        job_id = str(request.path_params["job_id"])
        record = await run_in_threadpool(site.store.job, job_id) if JOB_ID.fullmatch(job_id) else None
        if record is None or not sees(site, site.auth.who(request), record):
            raise HTTPException(404)
        return await _stream(site, request, job_id)

    async def overview(request: Request) -> Response:
        """GET /events."""
        return await _stream(site, request, OVERVIEW if sees_all(site, site.auth.who(request)) else PUBLIC_OVERVIEW)

    return [Route("/jobs/{job_id}/events", job, methods=["GET"]), Route("/events", overview, methods=["GET"])]


async def _stream(site: Site, request: Request, name: str) -> Response:
    try:
        watcher = site.live.join(name)
    except TooManyWatchers:
        headers = {"Retry-After": "30"}
        return JSONResponse({"error": "Too many watch at once; look again later."}, 503, headers)
    after = _after(request)

    async def pieces() -> AsyncIterator[bytes]:
        yield f"retry: {SECONDS_UNTIL_BACK * 1000}\n\n".encode()
        async for message in site.live.messages(name, watcher, after):
            yield encode(message)
        if not watcher.lost:
            yield encode(Message("end", {}))

    return StreamingResponse(pieces(), media_type="text/event-stream", headers=HEADERS)


def _after(request: Request) -> int:
    """The last event that the browser saw: its own word when it comes back, else the page's."""
    for told in (request.headers.get("last-event-id", ""), request.query_params.get("after", "")):
        if told.isascii() and told.isdigit() and len(told) <= 18:
            return int(told)
    return 0
