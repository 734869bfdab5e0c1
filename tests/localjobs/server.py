"""The Hub's API for Jobs and buckets, as far as huggingface_hub and the OpenAPI document tell it, for the local Hub.

A job's command runs as a process of this machine with the job's own variables and secrets. Where volumes are mounted
is replaced in its arguments by folders: a model's files at the revision are fetched from the local Hub, a bucket's
are copied, and what was written to a mounted bucket is in it only when the process has ended. How the Hub mounts,
schedules, isolates and bills is not tried here. Bodies are held to the document by tests/bot/localhub/openapi.py.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import anyio
from huggingface_hub import HfApi
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import BaseRoute, Route

from bot.localhub.accounts import Caller, User
from bot.localhub.context import Hub
from bot.localhub.database import new_id
from tests.localjobs.buckets import Bucket, ndjson, now

TERMINAL = ("COMPLETED", "CANCELED", "ERROR", "DELETED")
TEMPLATE = ("dockerImage", "spaceId", "arguments", "command", "environment", "flavor", "timeoutSeconds", "labels")


@dataclass
class Job:
    """One job."""

    id: str
    owner: User
    user: User
    spec: dict[str, Any]
    token: str
    initiator: dict[str, str] | None
    log: Path
    created: str = field(default_factory=now)
    stage: str = "SCHEDULING"
    message: str | None = None
    process: subprocess.Popen[bytes] | None = None
    over: threading.Event = field(default_factory=threading.Event)

    def data(self) -> dict[str, Any]:
        spec = self.spec
        kind = "org" if self.owner.is_org else "user"
        owner = {"id": self.owner.id, "name": self.owner.name, "type": kind, "avatarUrl": "/static/avatar.svg"}
        shown = {key: spec[key] for key in ("dockerImage", "spaceId", "command", "arguments", "labels", "volumes")
                 if spec.get(key) is not None}  # fmt: skip
        return {
            "id": self.id,
            "createdAt": self.created,
            **shown,
            "environment": spec.get("environment", {}),
            "flavor": spec["flavor"],
            "createdBy": {"id": self.user.id, "name": self.user.name},
            "type": "job",
            "owner": owner,
            "initiator": self.initiator or owner,
            "status": {"stage": self.stage, "message": self.message},
            "secrets": sorted(spec.get("secrets", {})),
        }


class LocalJobs:
    """What tests look into and disturb; ``bot.localhub.context.JobRunner``."""

    def __init__(self, hub: Hub, folder: Path) -> None:
        self._hub, self.folder = hub, folder
        self.endpoint = ""
        self.jobs: dict[str, Job] = {}
        self.buckets: dict[str, Bucket] = {}
        self.hold = threading.Event()
        self.hold.set()
        self.programs: dict[str, list[str]] = {"python": [sys.executable], "ptebot": [sys.executable, "-m", "bot.cli"]}
        self.environment: dict[str, str] = {}
        """For every job, on top of its own: where its image would have its caches."""
        self.log_events: int | None = None
        """A followed log breaks off after so many lines, once."""
        self._webhook_secrets: dict[str, dict[str, str]] = {}

    # The webhooks' side.

    def source(self, job_id: str, user_id: str) -> dict[str, Any] | None:
        job = self.jobs.get(job_id)
        if job is None or job.user.id != user_id:
            return None
        spec = {key: job.spec[key] for key in TEMPLATE if job.spec.get(key) is not None}
        return {"environment": {}, "timeoutSeconds": None, **spec}

    def keep_secrets(self, webhook_id: str, secrets: dict[str, str]) -> None:
        kept = {**self._webhook_secrets.get(webhook_id, {}), **secrets}
        self._webhook_secrets[webhook_id] = {name: value for name, value in kept.items() if value}

    def secrets_of(self, webhook_id: str) -> list[str]:
        return sorted(self._webhook_secrets.get(webhook_id, {}))

    def start(self, webhook_id: str, user_id: str, job_id: str, environment: dict[str, str]) -> None:
        old = self.jobs[job_id]
        spec = {**old.spec, "environment": {**old.spec.get("environment", {}), **environment}}
        spec["secrets"] = self._webhook_secrets.get(webhook_id, {})
        self._start(old.owner, old.user, spec, old.token, {"type": "webhook", "id": webhook_id})

    # Running.

    def _start(self, owner: User, user: User, spec: dict[str, Any], token: str, initiator: Any) -> Job:
        job_id = new_id()
        job = Job(job_id, owner, user, spec, token, initiator, self.folder / f"{job_id}.log")
        job.log.touch()
        self.jobs[job_id] = job
        threading.Thread(target=self._run, args=(job,), daemon=True).start()
        return job

    def _run(self, job: Job) -> None:
        while not self.hold.wait(0.02):
            if job.over.is_set():
                return
        scratch = Path(tempfile.mkdtemp(prefix="job-", dir=self.folder))
        try:
            places = {volume["mountPath"]: self._mount(job, volume, scratch) for volume in job.spec.get("volumes", ())}
        except Exception as error:
            self._end(job, "ERROR", f"{type(error).__name__}: {error}"[:500])
            return

        def here(text: str) -> str:
            for inside, outside in places.items():
                text = text.replace(f'"{inside}', f'"{outside}')
            return text

        words = [*job.spec.get("command", ()), *job.spec.get("arguments", ())]
        command = [*self.programs.get(words[0], [words[0]]), *map(here, words[1:])]
        env = {"PATH": os.environ["PATH"], "HOME": str(scratch), "TMPDIR": str(scratch), **self.environment}
        env |= job.spec.get("environment", {}) | job.spec.get("secrets", {})
        with job.log.open("wb") as log:
            job.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, cwd=scratch, start_new_session=True
            )
        job.stage = "RUNNING"
        code = job.process.wait()
        for volume in job.spec.get("volumes", ()):
            if volume["type"] == "bucket" and not volume.get("readOnly"):
                self._store(volume, places[volume["mountPath"]])
        if job.stage == "RUNNING":
            self._end(job, "COMPLETED" if code == 0 else "ERROR", None if code == 0 else f"exit code {code}")
        job.over.set()

    def _end(self, job: Job, stage: str, message: str | None) -> None:
        job.stage, job.message = stage, message
        job.over.set()

    def _mount(self, job: Job, volume: dict[str, Any], scratch: Path) -> Path:
        place = scratch / f"mount-{len(list(scratch.iterdir()))}"
        place.mkdir()
        if volume["type"] == "model":
            api = HfApi(endpoint=self.endpoint, token=job.token)
            api.snapshot_download(volume["source"], revision=volume.get("revision"), local_dir=place)
            shutil.rmtree(place / ".cache", ignore_errors=True)
        else:
            bucket, prefix = self.buckets[volume["source"]], volume.get("path", "")
            for path in bucket.files:
                if path.startswith(f"{prefix}/"):
                    target = place / path.removeprefix(f"{prefix}/")
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(bucket.content(path), target)
        return place

    def _store(self, volume: dict[str, Any], place: Path) -> None:
        bucket, prefix = self.buckets[volume["source"]], volume.get("path", "")
        for path in sorted(place.rglob("*")):
            if path.is_file():
                bucket.put(path, f"{prefix}/{path.relative_to(place)}".lstrip("/"))

    def cancel(self, job: Job) -> None:
        if job.stage in TERMINAL:
            return
        if job.process is None:
            self._end(job, "CANCELED", None)
            return
        job.stage = "CANCELED"
        job.process.send_signal(signal.SIGTERM)
        try:
            job.process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(job.process.pid, signal.SIGKILL)

    def close(self) -> None:
        self.hold.set()
        for job in list(self.jobs.values()):
            self.cancel(job)
            if job.process is not None:
                job.over.wait(10)

    # The API.

    def routes(self) -> list[BaseRoute]:
        j, b = "/api/jobs/{ns}", "/api/buckets/{ns}/{name}"
        table: list[tuple[str, str, Any]] = [
            ("POST", j, self._post),
            ("GET", j, self._list),
            ("GET", j + "/{id}", self._show),
            ("GET", j + "/{id}/logs", self._logs),
            ("POST", j + "/{id}/cancel", self._cancel),
            ("PUT", j + "/{id}/labels", self._labels),
            ("POST", b, self._make_bucket),
            ("GET", b, self._show_bucket),
            ("GET", b + "/xet-{kind}-token", self._token),
            ("POST", b + "/batch", self._batch),
            ("GET", b + "/tree", self._tree),
            ("GET", b + "/tree/{path:path}", self._tree),
            ("POST", b + "/paths-info", self._paths),
            ("GET", "/buckets/{ns}/{name}/resolve/{path:path}", self._resolve),
        ]
        return [Route(path, handler, methods=[method]) for method, path, handler in table]

    def _caller(self, request: Request) -> tuple[User, Caller] | JSONResponse:
        """The namespace and who acts in it."""
        kind, _, token = request.headers.get("authorization", "").partition(" ")
        caller = self._hub.accounts.caller(token) if kind == "Bearer" else None
        if caller is None:
            return JSONResponse({"error": "Invalid username or password."}, 401)
        name = request.path_params["ns"]
        owner = caller.user if name == "me" else self._hub.accounts.by_name(name)
        if owner is None:
            return JSONResponse({"error": "No such namespace"}, 404)
        role = self._hub.accounts.namespace_role(caller.user, owner.id)
        writes = request.method not in ("GET", "HEAD")
        if role not in ("admin", "write") or (writes and caller.token_role != "write"):
            return JSONResponse({"error": "You have no right to do this here"}, 403)
        return owner, caller

    async def _post(self, request: Request) -> Response:
        found = self._caller(request)
        if isinstance(found, JSONResponse):
            return found
        spec = await request.json()
        token = request.headers["authorization"].partition(" ")[2]
        return JSONResponse(self._start(found[0], found[1].user, spec, token, None).data())

    async def _list(self, request: Request) -> Response:
        found = self._caller(request)
        if isinstance(found, JSONResponse):
            return found
        stages = request.query_params.getlist("stage")
        labels = [one.partition("=")[::2] for one in request.query_params.getlist("label")]
        jobs = [
            job.data()
            for job in self.jobs.values()
            if job.owner.id == found[0].id
            and (not stages or job.stage in stages)
            and all(job.spec.get("labels", {}).get(key) == value for key, value in labels)
        ]
        return JSONResponse(jobs)

    def _job(self, request: Request) -> Job | JSONResponse:
        found = self._caller(request)
        if isinstance(found, JSONResponse):
            return found
        job = self.jobs.get(request.path_params["id"])
        return job if job is not None and job.owner.id == found[0].id else JSONResponse({"error": "No such job"}, 404)

    async def _show(self, request: Request) -> Response:
        job = self._job(request)
        return job if isinstance(job, JSONResponse) else JSONResponse(job.data())

    async def _cancel(self, request: Request) -> Response:
        job = self._job(request)
        if isinstance(job, JSONResponse):
            return job
        await run_in_threadpool(self.cancel, job)
        return JSONResponse(job.data())

    async def _labels(self, request: Request) -> Response:
        job = self._job(request)
        if isinstance(job, JSONResponse):
            return job
        job.spec["labels"] = (await request.json())["labels"]
        return JSONResponse(job.data())

    async def _logs(self, request: Request) -> Response:
        job = self._job(request)
        if isinstance(job, JSONResponse):
            return job
        return StreamingResponse(self._events(job), media_type="text/event-stream")

    async def _events(self, job: Job) -> AsyncIterator[str]:
        yield _event("===== Job started at 2026-11-23 00:00:00 =====")
        with job.log.open("rb") as stream:
            rest, sent = b"", 0
            while True:
                over = job.over.is_set()
                *lines, rest = (rest + stream.read()).split(b"\n")
                for line in lines:
                    if self.log_events is not None and sent >= self.log_events:
                        self.log_events = None
                        return
                    sent += 1
                    yield _event(line.decode("utf-8", "replace"))
                if over and not lines:
                    return
                if not lines:
                    await anyio.sleep(0.01)

    def _bucket(self, request: Request) -> Bucket | JSONResponse:
        found = self._caller(request)
        if isinstance(found, JSONResponse):
            return found
        bucket = self.buckets.get(f"{found[0].name}/{request.path_params['name']}")
        return bucket or JSONResponse({"error": "No such bucket"}, 404)

    async def _make_bucket(self, request: Request) -> Response:
        found = self._caller(request)
        if isinstance(found, JSONResponse):
            return found
        name = f"{found[0].name}/{request.path_params['name']}"
        url = f"{request.base_url}buckets/{name}"
        if name in self.buckets:
            body = {"error": "You already created this bucket", "url": url, "id": self.buckets[name].object_id}
            return JSONResponse(body, 409)
        private = (await request.json()).get("visibility") == "private"
        made = Bucket(name, Path(tempfile.mkdtemp(prefix="bucket-", dir=self.folder)), new_id(), private)
        self.buckets[name] = made
        return JSONResponse({"url": url, "name": name, "id": made.object_id})

    async def _show_bucket(self, request: Request) -> Response:
        bucket = self._bucket(request)
        if isinstance(bucket, JSONResponse):
            return bucket
        sizes = [size for _, size in bucket.files.values()]
        return JSONResponse(
            {
                "author": bucket.id.split("/")[0], "id": bucket.id, "private": bucket.private,
                "createdAt": bucket.created, "updatedAt": now(), "size": sum(sizes), "totalFiles": len(sizes),
                "repoType": "bucket", "cdnRegions": [],
            }
        )  # fmt: skip

    async def _token(self, request: Request) -> Response:
        bucket = self._bucket(request)
        if isinstance(bucket, JSONResponse):
            return bucket
        value = await run_in_threadpool(bucket.token, request.path_params["kind"])
        headers = {
            "X-Xet-Cas-Url": value["casUrl"],
            "X-Xet-Access-Token": value["accessToken"],
            "X-Xet-Token-Expiration": str(value["exp"]),
        }
        return JSONResponse(value, headers=headers)

    async def _batch(self, request: Request) -> Response:
        bucket = self._bucket(request)
        if isinstance(bucket, JSONResponse):
            return bucket
        lines = ndjson(await request.body())
        failed = await run_in_threadpool(bucket.batch, lines)
        body = {"success": not failed, "processed": len(lines), "succeeded": len(lines) - len(failed), "failed": failed}
        return JSONResponse(body, 200 if len(failed) < len(lines) or not lines else 422)

    async def _tree(self, request: Request) -> Response:
        bucket = self._bucket(request)
        if isinstance(bucket, JSONResponse):
            return bucket
        prefix = request.path_params.get("path", "").replace("\x1f", "/")
        inside = [path for path in sorted(bucket.files) if not prefix or path.startswith(f"{prefix}/")]
        return JSONResponse([bucket.entry(path) for path in inside])

    async def _paths(self, request: Request) -> Response:
        bucket = self._bucket(request)
        if isinstance(bucket, JSONResponse):
            return bucket
        return JSONResponse([bucket.entry(path) for path in (await request.json())["paths"] if path in bucket.files])

    async def _resolve(self, request: Request) -> Response:
        bucket = self._bucket(request)
        if isinstance(bucket, JSONResponse):
            return bucket
        xet_hash, size = bucket.files[request.path_params["path"].replace("\x1f", "/")]
        link = f'<{request.base_url}api/buckets/{bucket.id}/xet-read-token>; rel="xet-auth"'
        return Response(headers={"X-Xet-Hash": xet_hash, "X-Linked-Size": str(size), "Link": link})


def _event(text: str) -> str:
    return f"data: {json.dumps({'data': text, 'timestamp': now()})}\n\n"
