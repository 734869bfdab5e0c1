"""One process of the bot as ``ptebot serve`` or ``ptebot worker`` run it, but for the exporter, which is quick.

    python -m bench.chaos.server SETTINGS.json JOURNAL PORT

PORT 0: a worker without a web server. It says ``ready`` on standard output once it works.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import sys
import threading
from pathlib import Path

import uvicorn
from starlette.applications import Starlette

from bench.chaos.executor import QuickExporter
from bot import export_process
from bot.server import migrate
from bot.server.heartbeat import Heartbeat
from bot.server.inbox import Inbox
from bot.server.intake import Intake
from bot.server.leases import Leases
from bot.server.settings import Settings
from bot.server.steps import Steps
from bot.server.store import Store, open_engine
from bot.server.takeover import Takeover
from bot.web import webhook
from bot.workflow.engine import Engine
from bot.workflow.queue import Queue


def main(settings_path: str, journal: str, port: str) -> None:
    """Work until the process ends; it is not expected to end by itself."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(process)d %(name)s %(levelname)s %(message)s")
    logging.getLogger("httpx2").setLevel(logging.WARNING)
    settings = Settings(**json.loads(Path(settings_path).read_text()))
    # A process of the real exporter for each plan: it belongs to what is quick here.
    export_process.check_spec = lambda spec, **_: None
    store = Store(open_engine(str(settings.database)))
    migrate.upgrade(store.engine)
    heartbeat = Heartbeat(store, settings)
    heartbeat.start()
    leases = Leases(heartbeat)
    queue = Queue(settings, store)
    steps = Steps(settings, store, queue, leases, worker=heartbeat.id, executor=QuickExporter(Path(journal)))
    engine = Engine(settings, steps, queue, worker=heartbeat.id, reply=lambda job: None)
    engine.start()
    Takeover(leases, engine.adopt).start()
    intake = Intake(settings, store, queue, poll=0.5)
    intake.start()
    threading.Thread(target=_follow_parent, daemon=True).start()
    if int(port):
        asyncio.run(_serve(settings, store, intake, int(port)))
    else:
        print("ready", flush=True)
        threading.Event().wait()


async def _serve(settings: Settings, store: Store, intake: Intake, port: int) -> None:
    app = Starlette(routes=webhook.routes(settings, Inbox(store, kept=intake.wake)))
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=port, log_level="warning", access_log=False))
    serving = asyncio.create_task(server.serve())
    while not server.started and not serving.done():
        await asyncio.sleep(0.01)
    print("ready", flush=True)
    await serving


def _follow_parent() -> None:
    """End with the bench, whatever ends it."""
    sys.stdin.buffer.read()
    os._exit(0)


if __name__ == "__main__":
    main(*sys.argv[1:])
