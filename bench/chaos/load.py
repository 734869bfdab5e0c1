"""How much the bot takes at once: webhooks in flight, jobs asked for. No process is killed here.

In: a fresh database. Out: figures, times in milliseconds.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.chaos.hub import OWNER
from bench.chaos.processes import Process
from bench.chaos.scenario import free_port, server_settings
from bot.localhub.testing import running_hub
from bot.server.records import Asked, Asker
from bot.server.settings import Settings
from bot.server.store import Store, open_engine
from bot.workflow.queue import Queue

IN_FLIGHT = 100


@contextmanager
def serving(database: str, folder: Path, secret: str, port: int) -> Iterator[None]:
    """A server process that works, with a Hub that knows no model."""
    with running_hub(folder / "hub") as hub:
        settings = server_settings(hub.endpoint, hub.create_user("ptebot-user"), secret, database)
        process = Process("one", folder, settings, folder, port)
        process.start()
        try:
            yield
        finally:
            process.kill()


def webhooks(database: str, folder: Path, requests: int) -> dict[str, Any]:
    """A real server process with its engine, on real connections; each webhook is another push."""
    secret, port = secrets.token_hex(32), free_port()
    with serving(database, folder, secret, port):
        times, statuses, seconds = asyncio.run(_send(port, secret, requests))
    ordered = sorted(times)
    return {
        "in flight": IN_FLIGHT,
        "requests": len(ordered),
        "answers": ", ".join(f"{count} x {status}" for status, count in sorted(statuses.items())),
        "a second": round(len(ordered) / seconds),
        "p50 ms": round(statistics.median(ordered), 1),
        "p99 ms": round(ordered[int(len(ordered) * 0.99)], 1),
        "most ms": round(ordered[-1], 1),
    }


async def _send(port: int, secret: str, requests: int) -> tuple[list[float], dict[int, int], float]:
    """Over connections that stay; a library for HTTP would cost more than the server that is measured."""
    times: list[float] = []
    statuses: dict[int, int] = {}
    waiting = iter(range(requests))
    head = f"POST /webhooks/hub HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nX-Webhook-Secret: {secret}\r\n"

    async def sender() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for number in waiting:
            body = _body(number)
            began = time.perf_counter()
            writer.write(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
            reply = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = reply.partition(b"content-length: ")[2].split(b"\r\n", 1)[0]
            await reader.readexactly(int(length))
            times.append((time.perf_counter() - began) * 1000)
            status = int(reply.split(b" ", 2)[1])
            statuses[status] = statuses.get(status, 0) + 1
        writer.close()

    began = time.perf_counter()
    await asyncio.gather(*(sender() for _ in range(IN_FLIGHT)))
    return times, statuses, time.perf_counter() - began


def _body(number: int) -> bytes:
    sha = f"{number + 1:040x}"
    repo = {
        "type": "model",
        "name": f"{OWNER}/model-{number}",
        "id": f"{number:024x}",
        "private": False,
        "headSha": sha,
    }
    body = {
        "event": {"action": "update", "scope": "repo.content"},
        "repo": {**repo, "private": False, "owner": {"id": "0" * 24}},
        "updatedRefs": [{"ref": "refs/heads/main", "oldSha": "0" * 40, "newSha": sha}],
        "webhook": {"id": "0" * 24, "version": 3},
    }
    return json.dumps(body).encode()


def enqueue(database: str, folder: Path, jobs: int) -> dict[str, Any]:
    """Jobs asked for one after the other by one process: our row, and the engine's."""
    with serving(database, folder, secrets.token_hex(32), free_port()):
        pass  # the engine has made its tables
    store = Store(open_engine(database))
    queue = Queue(Settings(data=folder, database=database), store)
    began = time.perf_counter()
    for number in range(jobs):
        queue.submit(Asked(repo_id=f"{OWNER}/model-{number}", sha=f"{number:040x}"), Asker(trigger="cli"))
    seconds = time.perf_counter() - began
    queue.close()
    store.close()
    return {"jobs": jobs, "a second": round(jobs / seconds, 1), "ms each": round(seconds / jobs * 1000, 2)}
