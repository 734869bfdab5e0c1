"""Webhook deliveries: payloads go out in the background, from one thread and in order.

A webhook is told only of what its owner may see; ten failures in a row suspend it, as on the Hub.
"""

from __future__ import annotations

import http.client
import json
import queue
import sqlite3
import threading
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from bot.localhub.accounts import Accounts, Level
from bot.localhub.database import Database, new_id, now
from bot.localhub.repos import Repo

if TYPE_CHECKING:
    from bot.localhub.context import JobRunner

SUSPEND_AFTER = 10
SUSPENDED = "suspended-after-failure"
TIMEOUT = 10.0
KEPT = 200
JOB = "job:"
"""Before the id of a job, where others have an address."""


class Deliveries:
    """The queue of payloads on their way out, and the thread that sends them."""

    def __init__(self, database: Database, accounts: Accounts) -> None:
        self._db = database
        self._accounts = accounts
        self.jobs: JobRunner | None = None
        self._queue: queue.Queue[str | None] = queue.Queue()
        self._thread = threading.Thread(target=self._run, name="localhub-webhooks", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """End after what is being sent now; the rest of the queue is dropped."""
        self._queue.put(None)
        self._thread.join(TIMEOUT + 1)

    def publish(self, repo: Repo, payload: dict[str, Any]) -> None:
        """Queue a payload for every webhook that watches this repository and this kind of event."""
        domain = "repo" if payload["event"]["scope"].startswith("repo") else "discussion"
        for hook in self._db.rows("SELECT * FROM webhooks WHERE disabled = 'no' ORDER BY created, id"):
            if domain in json.loads(hook["domains"]) and self._watches(hook, repo):
                self.enqueue(hook["id"], payload | {"webhook": {"id": hook["id"], "version": 3}})

    def enqueue(self, webhook_id: str, payload: dict[str, Any]) -> str:
        """Queue one payload for one webhook; the delivery's id."""
        delivery = new_id()
        self._db.run(
            "INSERT INTO deliveries (id, webhook_id, payload, created) VALUES (?, ?, ?, ?)",
            delivery, webhook_id, json.dumps(payload), now(),
        )  # fmt: skip
        self._queue.put(delivery)
        return delivery

    def _watches(self, hook: sqlite3.Row, repo: Repo) -> bool:
        user = self._accounts.by_id(hook["user_id"])
        level = self._accounts.level(user, owner_id=repo.owner.id, creator_id=repo.creator_id, private=repo.private)
        if level < Level.READ:
            return False
        names = {
            ("model", repo.full_name.lower()),
            ("org" if repo.owner.is_org else "user", repo.owner.name.lower()),
        }
        return any((item["type"], item["name"].lower()) in names for item in json.loads(hook["watched"]))

    def _run(self) -> None:
        while (delivery := self._queue.get()) is not None:
            row = self._db.row(
                "SELECT d.payload, w.* FROM deliveries d JOIN webhooks w ON w.id = d.webhook_id WHERE d.id = ?",
                delivery,
            )
            if row is not None:
                status, error = self._send(row)
                self._note(row, delivery, status, error)

    def _send(self, row: sqlite3.Row) -> tuple[int | None, str | None]:
        job_id = job_of(row["url"])
        if job_id is None:
            return send(row["url"], row["secret"], row["payload"])
        if self.jobs is None:
            return None, "this Hub runs no jobs"
        repo = json.loads(row["payload"])["repo"]
        environment = {
            "WEBHOOK_PAYLOAD": row["payload"],
            "WEBHOOK_REPO_ID": repo["name"],
            "WEBHOOK_REPO_TYPE": repo["type"],
            "WEBHOOK_SECRET": row["secret"] or "",
        }
        self.jobs.start(row["id"], row["user_id"], job_id, environment)
        return 200, None

    def _note(self, row: sqlite3.Row, delivery: str, status: int | None, error: str | None) -> None:
        good = status is not None and status < 400
        failures = 0 if good else row["failures"] + 1
        with self._db.transaction():
            self._db.run("UPDATE deliveries SET status = ?, error = ? WHERE id = ?", status, error, delivery)
            self._db.run("UPDATE webhooks SET failures = ?, last_trigger = ? WHERE id = ?", failures, now(), row["id"])
            if failures >= SUSPEND_AFTER:
                self._db.run("UPDATE webhooks SET disabled = ? WHERE id = ?", SUSPENDED, row["id"])
            self._db.run(
                "DELETE FROM deliveries WHERE webhook_id = ? AND status IS NOT NULL AND id NOT IN"
                " (SELECT id FROM deliveries WHERE webhook_id = ? ORDER BY created DESC LIMIT ?)",
                row["id"], row["id"], KEPT,
            )  # fmt: skip


def job_of(url: str) -> str | None:
    """The job that a webhook starts, where it calls no address."""
    return url.removeprefix(JOB) if url.startswith(JOB) else None


def send(url: str, secret: str | None, payload: str) -> tuple[int | None, str | None]:
    """POST one payload: (status, None), or (None, why it could not be sent). Follows no redirect."""
    parts = urlsplit(url)
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    headers = {"Content-Type": "application/json", "User-Agent": "ptebot-localhub"}
    if secret:
        headers["X-Webhook-Secret"] = secret
    path = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    try:
        connection = kind(parts.hostname or "", parts.port, timeout=TIMEOUT)
        try:
            connection.request("POST", path, payload.encode(), headers)
            return connection.getresponse().status, None
        finally:
            connection.close()
    except (OSError, http.client.HTTPException, ValueError) as error:
        return None, f"{type(error).__name__}: {error}"[:300]
