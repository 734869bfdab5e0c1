"""The pages that show: all jobs, one job, one repository, and the same as JSON. Stage 6: where the request came from.

Each handler reads the store and gives a page. What a job says of itself is as hostile as its model: templates escape
it, ``View`` cleans it.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any, cast, get_args
from urllib.parse import urlencode

from starlette.responses import JSONResponse, Response, StreamingResponse

from bot.errors import JobNotFound
from bot.publish.card import REPO_ID
from bot.server.heartbeat import alive
from bot.server.records import LIVE, JobRecord, State, Worker
from bot.web import shown
from bot.web.call import JOB_ID, Call, sees
from bot.web.view import tidy

PER_PAGE = 50
MOST_PER_PAGE = 500
"""Of the JSON list."""
MOST_RUNNING = 60
MOST_WAITING = 20
LOG_LINES = 300
"""Shown on the page; the whole log can be downloaded."""
MOST_STEPS = 200
ENDED: tuple[State, ...] = tuple(state for state in get_args(State) if state not in LIVE)


def overview(call: Call) -> Response:
    """GET /: what runs, what waits, what ended, and who works."""
    state, repo, before = _state(call), call.query("repo"), _number(call.query("before"))
    public = call.only_public
    narrowed = bool(state or repo or before)
    states: tuple[State, ...] | None = (state,) if state else None if narrowed else ENDED
    jobs = call.store.jobs(states=states, search=repo or None, before=before, limit=PER_PAGE + 1, public=public)
    running, waiting = [], []
    if not narrowed:
        running = call.store.jobs(states=("running",), limit=MOST_RUNNING, public=public)
        waiting = call.store.jobs(states=("queued",), limit=MOST_PER_PAGE, oldest_first=True, public=public)
        waiting.sort(key=lambda one: (one.priority, one.created_at))
    counts = call.store.counts(public=public)
    living = alive(call.store, call.site.settings)
    return call.render(
        "overview.html",
        counts=[(name, count) for name in get_args(State) if (count := counts.get(name, 0)) or name in LIVE],
        total=sum(counts.values()),
        running=running,
        waiting=waiting[:MOST_WAITING],
        more_waiting=max(counts.get("queued", 0) - MOST_WAITING, 0),
        jobs=jobs[:PER_PAGE],
        older=jobs[PER_PAGE - 1].created_at if len(jobs) > PER_PAGE else None,
        narrowed=narrowed,
        state=state or "",
        repo=repo,
        before=before,
        query=urlencode([(name, value) for name, value in (("repo", repo), ("state", state or "")) if value]),
        workers=[_worker(one, living) for one in call.store.workers()],
        now=time.time(),
    )


def job(call: Call) -> Response:
    """GET /jobs/{id}: everything about one job."""
    record = _find(call)
    now = time.time()
    stages = call.store.events(record.id, kinds=("stage",), limit=MOST_STEPS, last=True)
    log = call.store.events(record.id, kinds=("log",), limit=LOG_LINES, last=True)
    newest = call.store.events(record.id, limit=1, last=True)
    earlier, current = shown.tries(stages, begun=record.started_at is not None)
    others = [
        one
        for one in call.store.jobs(repo_id=record.asked.repo_id, limit=6, public=call.only_public)
        if one.id != record.id
    ]
    return call.render(
        "job.html",
        job=record,
        matrix=shown.matrix(call.store.reports(record.id)),
        steps=shown.steps(current, now, record.ended_at),
        earlier=earlier[-20:],
        log=log,
        log_cut=len(log) == LOG_LINES,
        last_number=newest[-1].number if newest else 0,
        others=others[:5],
        may=_may(call, record),
    )


def log(call: Call) -> Response:
    """GET /jobs/{id}/log.txt: the whole log, page by page from the store."""
    record = _find(call)

    def lines() -> Iterator[str]:
        after = 0
        while found := call.store.events(record.id, after=after, kinds=("log", "stage")):
            after = found[-1].number
            yield "".join(_line(event) for event in found)

    headers = {"Content-Disposition": f'attachment; filename="{record.id}.log.txt"', "Cache-Control": "no-store"}
    return StreamingResponse(lines(), headers=headers, media_type="text/plain")


def repository(call: Call) -> Response:
    """GET /repos/{owner}/{name}: a repository's jobs and its last result."""
    repo_id = f"{call.param('owner')}/{call.param('name')}"
    if not REPO_ID.fullmatch(repo_id):
        raise JobNotFound(f"{repo_id[:200]!r} is not a repository's id.", remedy="Give OWNER/NAME as on the Hub.")
    before = _number(call.query("before"))
    jobs = call.store.jobs(repo_id=repo_id, before=before, limit=PER_PAGE + 1, public=call.only_public)
    if not jobs and before is None:
        raise JobNotFound(f"There is no job of {repo_id}.", remedy="Start one with the form, or push to the model.")
    made: tuple[State, ...] = ("passed", "partial", "failed")
    last = next(iter(call.store.jobs(repo_id=repo_id, states=made, limit=1, public=call.only_public)), None)
    return call.render(
        "repo.html",
        repo_id=jobs[0].asked.repo_id if jobs else repo_id,
        jobs=jobs[:PER_PAGE],
        older=jobs[PER_PAGE - 1].created_at if len(jobs) > PER_PAGE else None,
        before=before,
        last=last,
        matrix=shown.matrix(call.store.reports(last.id)) if last else None,
    )


def api_jobs(call: Call) -> Response:
    """GET /api/jobs: jobs as JSON, the newest first; ``state``, ``repo``, ``limit`` and ``before`` as on the page."""
    state, before = _state(call), _number(call.query("before"))
    limit = int(min(max(_number(call.query("limit")) or PER_PAGE, 1), MOST_PER_PAGE))
    states = (state,) if state else None
    public = call.only_public
    jobs = call.store.jobs(states=states, search=call.query("repo") or None, before=before, limit=limit, public=public)
    return _json({"jobs": [_plain(one) for one in jobs], "counts": call.store.counts(public=public)})


def api_job(call: Call) -> Response:
    """GET /api/jobs/{id}: one job as JSON with its reports."""
    record = _find(call)
    parts: dict[str, Any] = {}
    for part, text in call.store.reports(record.id).items():
        try:
            parts[part] = json.loads(text)
        except (ValueError, RecursionError):
            parts[part] = None
    return _json({**_plain(record), "reports": parts})


def _find(call: Call) -> JobRecord:
    job_id = call.param("job_id")
    record = call.store.job(job_id) if JOB_ID.fullmatch(job_id) else None
    if record is None or not sees(call.site, call.visitor, record):
        raise JobNotFound(f"There is no job {job_id[:64]}.", remedy="It may have been removed with its age.")
    return record


def _may(call: Call, record: JobRecord) -> list[tuple[str, str]]:
    """What this visitor may do with the job: the action's name in its address, and on its button."""
    if not call.visitor.admin:
        return []
    if record.live:
        return [("cancel", "Cancel")]
    resume = [("resume", "Resume")] if record.state in ("cancelled", "error") else []
    return [*resume, ("retry", "Run again")]


def _worker(one: Worker, living: set[str]) -> dict[str, Any]:
    return {"worker": one, "alive": one.id in living}


def _state(call: Call) -> State | None:
    name = call.query("state")
    return cast(State, name) if name in get_args(State) else None


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _plain(record: JobRecord) -> dict[str, Any]:
    return {**asdict(record), "live": record.live}


def _json(data: Any) -> Response:
    response = JSONResponse(data, headers={"Cache-Control": "no-store"})
    # Escaped, so that no terminal and no page is moved by what a model's file is called.
    response.body = json.dumps(data, ensure_ascii=True, indent=1, allow_nan=True).encode()
    response.headers["Content-Length"] = str(len(response.body))
    return response


def _line(event: Any) -> str:
    stamp = datetime.fromtimestamp(event.at, UTC).strftime("%Y-%m-%d %H:%M:%S")
    told = (
        f"== {shown.where(event)}{f': {event.message}' if event.message else ''}"
        if event.kind == "stage"
        else event.message
    )
    return f"{stamp}  {tidy(told)}\n"
