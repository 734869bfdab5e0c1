"""The demo of the Hub bot: a Hub on this machine, ``ptebot serve`` beside it, and a push that becomes a pull request.

In: a Hub that answers, with an account for the owner and one for the bot. Out: a server as a child process, which ends
with this one, and the address of its pages.
"""

from __future__ import annotations

import os
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from bot import leash
from bot.demo import LocalHub
from bot.errors import DemoFailed
from bot.hubapi import asking, connect

OWNER, BOT = "demo", "ptebot"
MOST_LOG = 2000
"""Characters of the server's log that a failure shows."""


@dataclass(frozen=True, kw_only=True)
class LocalBot:
    """A server that answers."""

    address: str
    admin_token: str = field(repr=False)
    secret: str = field(repr=False)
    data: Path
    process: subprocess.Popen[str] = field(repr=False)


@contextmanager
def local_bot(
    hub: LocalHub, data: Path, *, port: int, backends: tuple[str, ...], precisions: tuple[str, ...], max_seq_len: int
) -> Iterator[LocalBot]:
    """``ptebot serve`` for what ``demo`` has on ``hub``, for the time of a ``with`` block.

    Raises:
        DemoFailed: it did not start.
    """
    data.mkdir(parents=True, exist_ok=True)
    admin_token, secret = secrets.token_urlsafe(12), secrets.token_urlsafe(24)
    kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR") if name in os.environ}
    env = kept | {
        "HF_ENDPOINT": hub.endpoint,
        "HF_TOKEN": hub.users[BOT],
        "PTEBOT_WEBHOOK_SECRET": secret,
        "PTEBOT_ADMIN_TOKEN": admin_token,
        "PTEBOT_WATCH": OWNER,
        "PTEBOT_BACKENDS": ",".join(backends),
        "PTEBOT_PRECISIONS": ",".join(precisions),
        "PTEBOT_MAX_SEQ_LEN": str(max_seq_len),
        "PTEBOT_LOG_FORMAT": "text",
    }
    command = [sys.executable, "-m", "bot.leash", leash.NETWORK, "bot.cli", "serve"]
    with (data / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [*command, "--port", str(port), "--data", str(data)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=log,
            env=env,
            text=True,
            start_new_session=True,
        )
    try:
        yield LocalBot(
            address=_address(process, data), admin_token=admin_token, secret=secret, data=data, process=process
        )
    finally:
        # The leash: the child's process group ends when this end of the pipe closes.
        for stream in (process.stdin, process.stdout):
            if stream:
                stream.close()
        process.wait()


def watch(hub: LocalHub, bot: LocalBot) -> None:
    """Let the Hub tell the bot of every push, as ``ptebot hook install`` does; raises as the Hub answers."""
    api = connect(hub.endpoint, hub.users[OWNER])
    with asking("making the webhook", api):
        api.create_webhook(
            url=f"{bot.address}/webhooks/hub",
            watched=[{"type": "user", "name": OWNER}],
            domains=["repo", "discussion"],
            secret=bot.secret,
        )


def follow(bot: LocalBot, show: Callable[[Any], None]) -> Any:
    """The job that the push becomes, once it has ended; ``show`` is told its progress.

    Raises:
        DemoFailed: the server ended.
    """
    from bot.export_process import Progress
    from bot.server.store import Store, open_engine

    store, seen = Store(open_engine(f"sqlite:///{bot.data / 'ptebot.sqlite'}")), 0
    try:
        while True:
            if bot.process.poll() is not None:
                raise DemoFailed(f"The server ended: {_log(bot.data)}")
            for job in store.jobs(limit=1):
                for event in store.events(job.id, after=seen, kinds=("stage", "progress")):
                    seen = event.number
                    where = {"backend": event.backend, "precision": event.precision, "fraction": event.fraction}
                    show(Progress(stage=event.stage, message=event.message, **where))  # type: ignore[arg-type]
                if not job.live:
                    return job
            time.sleep(0.3)
    finally:
        store.close()


def _address(process: subprocess.Popen[str], data: Path) -> str:
    assert process.stdout  # noqa: S101 - for the type checker: it was asked for
    line = process.stdout.readline()
    if not line.startswith("Listening: "):
        raise DemoFailed(f"The server did not start: {_log(data)}")
    return line.removeprefix("Listening: ").strip()


def _log(data: Path) -> str:
    return (data / "serve.log").read_text(encoding="utf-8", errors="replace").strip()[-MOST_LOG:] or "it said nothing"
