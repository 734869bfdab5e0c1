"""The paths of the Kubernetes API that ptebot asks, over real HTTP, and Jobs that really run.

It is no cluster: a container's command is run as a process of this machine with the container's own variables, and the
places where volumes are mounted are replaced in its arguments by the folders behind them. What it takes and what it
answers is held to the schemas of Kubernetes 1.37 (kubernetes-validate). Nothing of admission, scheduling, mounts,
security contexts or network policies is tried here.
"""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import kubernetes_validate
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route

VERSION = "1.37"
JOBS = "/apis/batch/v1/namespaces/{ns}/jobs"
PODS = "/api/v1/namespaces/{ns}/pods"


def now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")


@dataclass
class Running:
    """One Job with its pod."""

    body: dict[str, Any]
    log: Path
    process: subprocess.Popen[bytes] | None = None
    phase: str = "Pending"
    condition: dict[str, str] | None = None
    pod_reason: str = ""
    waiting: str = ""
    terminated: str = ""
    ended: threading.Event = field(default_factory=threading.Event)
    scratch: Path | None = None


@dataclass
class Fault:
    """What is answered instead: a status, or nothing at all (0). For requests whose "METHOD path" fits."""

    path: re.Pattern[str]
    status: int
    times: int
    after: bool = False
    """Whether the work is done first, so that only the answer is lost."""


class Cluster:
    """What the server has; tests look into it and disturb it."""

    def __init__(self, folder: Path, claims: dict[str, Path], namespace: str = "ptebot") -> None:
        self.folder, self.claims, self.namespace = folder, claims, namespace
        self.jobs: dict[str, Running] = {}
        self.asked: list[str] = []
        self.bodies: list[dict[str, Any]] = []
        self.faults: list[Fault] = []
        self.hold = threading.Event()
        self.hold.set()
        self.log_bytes: int | None = None
        """A followed log breaks off after so many bytes."""
        self.changed = threading.Condition()
        self.image_problem = ""
        self.deleted: list[str] = []

    def fail(self, path: str, status: int, times: int = 1, *, after: bool = False) -> None:
        self.faults.append(Fault(re.compile(path), status, times, after))

    def wait_for(self, what: Any, seconds: float = 30) -> None:
        """Until ``what()`` is true; it is asked whenever a request has been answered or a process has ended."""
        with self.changed:
            assert self.changed.wait_for(what, seconds), "it did not happen"

    def tell(self) -> None:
        with self.changed:
            self.changed.notify_all()

    def start(self, job: Running) -> None:
        threading.Thread(target=self._run, args=(job,), daemon=True).start()

    def _run(self, job: Running) -> None:
        if self.image_problem:
            job.waiting = self.image_problem
            return
        while not self.hold.wait(0.02):
            if job.ended.is_set():
                return
        spec = job.body["spec"]["template"]["spec"]
        container = spec["containers"][0]
        job.scratch = Path(tempfile.mkdtemp(prefix="tmp-", dir=self.folder))
        volumes = {one["name"]: one for one in spec["volumes"]}
        places = {}
        for mount in container["volumeMounts"]:
            claim = volumes[mount["name"]].get("persistentVolumeClaim")
            root = self.claims[claim["claimName"]] if claim else job.scratch
            places[mount["mountPath"]] = root / mount.get("subPath", "")
            if claim and not places[mount["mountPath"]].is_dir():
                job.waiting = "CreateContainerConfigError"
                return

        def here(text: str) -> str:
            for inside, outside in places.items():
                if inside.startswith("/ptebot/"):
                    text = text.replace(f'"{inside}/', f'"{outside}/')
            return text

        words = [*container["command"], *container.get("args", ())]
        command = [sys.executable if words[0] == "python" else words[0], *map(here, words[1:])]
        env = {one["name"]: one["value"] for one in container.get("env", ())}
        env = {"PATH": os.environ["PATH"], **env, "HOME": str(job.scratch), "TMPDIR": str(job.scratch)}
        with job.log.open("wb") as log:
            job.process = subprocess.Popen(
                command, stdout=log, stderr=log, stdin=subprocess.DEVNULL, env=env, cwd=job.scratch,
                start_new_session=True,
            )  # fmt: skip
        job.phase = "Running"
        self.tell()
        code = job.process.wait()
        job.phase = "Succeeded" if code == 0 else "Failed"
        job.condition = {"type": "Complete" if code == 0 else "Failed", "status": "True"}
        if code != 0:
            job.condition["reason"] = "BackoffLimitExceeded"
        job.ended.set()
        self.tell()

    def stop(self, job: Running) -> None:
        if job.process is not None and job.process.poll() is None:
            job.process.send_signal(signal.SIGTERM)
            try:
                job.process.wait(10)
            except subprocess.TimeoutExpired:
                os.killpg(job.process.pid, signal.SIGKILL)
                job.process.wait()
        job.ended.set()

    # What is told.

    def job_data(self, job: Running) -> dict[str, Any]:
        status: dict[str, Any] = {"ready": 0}
        if job.phase == "Running":
            status["active"] = 1
        if job.condition:
            status["conditions"] = [job.condition]
        return {**job.body, "status": status}

    def pod_data(self, name: str, job: Running) -> dict[str, Any]:
        template = job.body["spec"]["template"]
        state: dict[str, Any]
        if job.waiting:
            state = {"waiting": {"reason": job.waiting, "message": "back-off"}}
        elif job.phase == "Running":
            state = {"running": {"startedAt": now()}}
        elif job.phase == "Pending":
            state = {"waiting": {"reason": "ContainerCreating"}}
        else:
            code = job.process.returncode if job.process else 1
            state = {"terminated": {"exitCode": code, "reason": job.terminated or "Completed"}}
        container = template["spec"]["containers"][0]
        status = {
            "phase": job.phase,
            "containerStatuses": [
                {
                    "name": container["name"], "image": container["image"], "imageID": "", "ready": False,
                    "restartCount": 0, "state": state,
                }
            ],
        }  # fmt: skip
        if job.pod_reason:
            status["reason"], _, status["message"] = job.pod_reason.partition(": ")
        labels = {**template["metadata"]["labels"], "batch.kubernetes.io/job-name": name}
        metadata = {
            "name": f"{name}-x1",
            "namespace": self.namespace,
            "labels": labels,
            "creationTimestamp": job.body["metadata"]["creationTimestamp"],
        }
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": template["spec"], "status": status}


def status(code: int, reason: str, message: str) -> JSONResponse:
    body = {"apiVersion": "v1", "kind": "Status", "status": "Failure", "reason": reason, "code": code}
    return JSONResponse({**body, "message": message, "metadata": {}}, code)


def told(data: dict[str, Any]) -> JSONResponse:
    kubernetes_validate.validate(data, VERSION)
    return JSONResponse(data)


def application(cluster: Cluster) -> Starlette:
    async def create(request: Request) -> Response:
        body = await request.json()
        try:
            kubernetes_validate.validate(body, VERSION, strict=True)
        except kubernetes_validate.ValidationError as error:
            return status(422, "Invalid", f"{error.message[:300]}")
        if request.path_params["ns"] != cluster.namespace:
            return status(404, "NotFound", "no such namespace")
        name = body["metadata"]["name"]
        if name in cluster.jobs:
            return status(409, "AlreadyExists", f"jobs.batch {name!r} already exists")
        body["metadata"] |= {"creationTimestamp": now(), "uid": os.urandom(8).hex()}
        cluster.bodies.append(body)
        cluster.jobs[name] = job = Running(body, cluster.folder / f"{name}-{len(cluster.bodies)}.log")
        job.log.touch()
        cluster.start(job)
        return told(cluster.job_data(job))

    async def read(request: Request) -> Response:
        name = request.path_params["name"]
        job = cluster.jobs.get(name)
        return told(cluster.job_data(job)) if job else status(404, "NotFound", f"jobs.batch {name!r} not found")

    async def delete(request: Request) -> Response:
        name = request.path_params["name"]
        job = cluster.jobs.get(name)
        if job is None:
            return status(404, "NotFound", f"jobs.batch {name!r} not found")
        await asyncio.to_thread(cluster.stop, job)
        cluster.jobs.pop(name, None)
        cluster.deleted.append(name)
        return JSONResponse({"apiVersion": "v1", "kind": "Status", "status": "Success", "metadata": {}})

    async def pods(request: Request) -> Response:
        key, _, wanted = request.query_params.get("labelSelector", "").partition("=")
        found = [cluster.pod_data(name, job) for name, job in cluster.jobs.items()]
        items = [pod for pod in found if not key or pod["metadata"]["labels"].get(key) == wanted]
        for item in items:
            kubernetes_validate.validate(item, VERSION)
        return JSONResponse({"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": items})

    async def log(request: Request) -> Response:
        job = cluster.jobs.get(request.path_params["name"].removesuffix("-x1"))
        if job is None:
            return status(404, "NotFound", "no such pod")
        if job.phase == "Pending":
            return status(400, "BadRequest", "container is waiting to start: ContainerCreating")
        follow = request.query_params.get("follow") in ("true", "True")
        return StreamingResponse(_followed(cluster, job, follow), media_type="text/plain")

    return Starlette(
        routes=[
            Route(JOBS, create, methods=["POST"]),
            Route(JOBS + "/{name}", read, methods=["GET"]),
            Route(JOBS + "/{name}", delete, methods=["DELETE"]),
            Route(PODS, pods, methods=["GET"]),
            Route(PODS + "/{name}/log", log, methods=["GET"]),
        ]
    )


async def _followed(cluster: Cluster, job: Running, follow: bool) -> AsyncIterator[bytes]:
    sent = 0
    with job.log.open("rb") as stream:
        while True:
            over = job.ended.is_set()
            chunk = stream.read(64 * 1024)
            if chunk:
                if follow and cluster.log_bytes is not None and sent + len(chunk) > cluster.log_bytes:
                    yield chunk[: cluster.log_bytes - sent]
                    return
                sent += len(chunk)
                yield chunk
            elif over or not follow:
                return
            else:
                await asyncio.sleep(0.01)


class Tap:
    """Around the application: what was asked, and faults."""

    def __init__(self, cluster: Cluster) -> None:
        self.cluster, self.app = cluster, application(cluster)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        asked = f"{scope['method']} {scope['path']}"
        self.cluster.asked.append(asked)
        fault = next((one for one in self.cluster.faults if one.times > 0 and one.path.search(asked)), None)
        if fault is None:
            await self.app(scope, receive, send)
        else:
            fault.times -= 1
            if fault.after:

                async def nowhere(message: Any) -> None: ...

                await self.app(scope, receive, nowhere)
            await status(fault.status, "Injected", "injected fault")(scope, receive, send)
        self.cluster.tell()


@contextmanager
def running(cluster: Cluster) -> Iterator[str]:
    """The address of the server."""
    listener = socket.socket()
    listener.bind(("127.0.0.1", 0))
    listener.listen(64)
    server = uvicorn.Server(
        uvicorn.Config(Tap(cluster), log_level="warning", access_log=False, timeout_graceful_shutdown=1, lifespan="off")
    )
    thread = threading.Thread(target=asyncio.run, args=(server.serve(sockets=[listener]),), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for job in list(cluster.jobs.values()):
            cluster.stop(job)
        server.should_exit = True
        thread.join(10)
        listener.close()
