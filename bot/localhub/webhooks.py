"""Webhooks in a user's settings, over the Hub's API: create, change, switch, delete, replay."""

from __future__ import annotations

import json
import re
import sqlite3
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import Response

from bot.localhub import deliveries
from bot.localhub.context import Call, reply
from bot.localhub.database import new_id, now
from bot.localhub.errors import HubError, bad_request

DOMAINS = ("repo", "discussion")
WATCHED_TYPES = ("dataset", "model", "space", "bucket", "kernel", "user", "org")
_SECRET = re.compile(r"[\x20-\x7f]*")


def listing(call: Call) -> Response:
    """GET /api/settings/webhooks."""
    user = call.signed_in()
    rows = call.hub.database.rows("SELECT * FROM webhooks WHERE user_id = ? ORDER BY created, id", user.id)
    return reply([_json(call, row) for row in rows])


def create(call: Call) -> Response:
    """POST /api/settings/webhooks."""
    user = call.signed_in(writing=True)
    fields = _fields(call, creating=True)
    webhook_id = new_id()
    _keep_secrets(call, webhook_id)
    call.hub.database.run(
        "INSERT INTO webhooks (id, user_id, url, secret, watched, domains, created) VALUES (?, ?, ?, ?, ?, ?, ?)",
        webhook_id, user.id, fields["url"], fields.get("secret"), fields["watched"], fields["domains"], now(),
    )  # fmt: skip
    return reply({"webhook": _json(call, _own(call, webhook_id))})


def show(call: Call) -> Response:
    """GET /api/settings/webhooks/{id}."""
    call.signed_in()
    return reply({"webhook": _json(call, _own(call, call.param("id")))})


def update(call: Call) -> Response:
    """POST /api/settings/webhooks/{id}; huggingface_hub sends ``watched: []`` for "leave it"."""
    call.signed_in(writing=True)
    row = _own(call, call.param("id"))
    _keep_secrets(call, row["id"])
    for key, value in _fields(call, creating=False).items():
        call.hub.database.run(f"UPDATE webhooks SET {key} = ? WHERE id = ?", value, row["id"])  # noqa: S608 - our own keys
    return reply({"webhook": _json(call, _own(call, row["id"]))})


def delete(call: Call) -> Response:
    """DELETE /api/settings/webhooks/{id}."""
    call.signed_in(writing=True)
    call.hub.database.run("DELETE FROM webhooks WHERE id = ?", _own(call, call.param("id"))["id"])
    return reply({})


def switch(call: Call) -> Response:
    """POST /api/settings/webhooks/{id}/enable or /disable."""
    call.signed_in(writing=True)
    row = _own(call, call.param("id"))
    action = call.param("action")
    if action not in ("enable", "disable"):
        raise HubError(404, "Unknown action")
    state = "no" if action == "enable" else "yes"
    call.hub.database.run("UPDATE webhooks SET disabled = ?, failures = 0 WHERE id = ?", state, row["id"])
    return reply({"webhook": _json(call, _own(call, row["id"]))})


def replay(call: Call) -> Response:
    """POST /api/settings/webhooks/{id}/replay/{logId}: send a former payload again and wait for the answer."""
    call.signed_in(writing=True)
    row = _own(call, call.param("id"))
    old = call.hub.database.row(
        "SELECT payload FROM deliveries WHERE id = ? AND webhook_id = ?", call.param("log_id"), row["id"]
    )
    if old is None:
        raise HubError(404, "No such delivery")
    status, _error = deliveries.send(row["url"], row["secret"], old["payload"])
    return reply({"status": status or 0})


def log(call: Call) -> Response:
    """GET /api/settings/webhooks/{id}/log: this Hub's own list of deliveries, the newest first."""
    call.signed_in()
    rows = call.hub.database.rows(
        "SELECT id, status, error, created, payload FROM deliveries WHERE webhook_id = ? ORDER BY created DESC, id",
        _own(call, call.param("id"))["id"],
    )
    return reply([dict(row) | {"payload": json.loads(row["payload"])} for row in rows])


def _own(call: Call, webhook_id: str) -> sqlite3.Row:
    user = call.signed_in()
    row = call.hub.database.row("SELECT * FROM webhooks WHERE id = ? AND user_id = ?", webhook_id, user.id)
    if row is None:
        raise HubError(404, "Webhook not found")
    return row


def _keep_secrets(call: Call, webhook_id: str) -> None:
    """Of the jobs that the webhook starts; the source job's own are not copied, as on the Hub."""
    secrets = call.json().get("secrets")
    if secrets is None:
        return
    good = isinstance(secrets, dict) and all(isinstance(value, str) for value in secrets.values())
    if call.hub.jobs is None or not good or call.json().get("jobSourceId") is None:
        raise bad_request("secrets go with a jobSourceId")
    call.hub.jobs.keep_secrets(webhook_id, secrets)


def _fields(call: Call, *, creating: bool) -> dict[str, Any]:
    """The columns to set.

    Raises:
        HubError: 400, naming the field.
    """
    body = call.json()
    result: dict[str, Any] = {}
    source = body.get("jobSourceId")
    if body.get("job") is not None or (source is not None and call.hub.jobs is None):
        raise bad_request("This Hub runs no jobs: give a url")
    if source is not None:
        jobs = call.hub.jobs
        found = jobs.source(source, call.signed_in().id) if jobs and isinstance(source, str) else None
        if found is None or body.get("url") is not None:
            raise bad_request("jobSourceId must be a job of yours, and stand without a url")
        result["url"] = f"{deliveries.JOB}{source}"
    elif creating or body.get("url") is not None:
        url = body.get("url")
        try:
            parts = urlsplit(url if isinstance(url, str) else "")
            valid = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port or 1) > 0
        except ValueError:
            valid = False
        if not valid or not isinstance(url, str) or not url.isascii() or re.search(r"[\x00-\x20\x7f]", url):
            raise bad_request("url must be an http or https address")
        result["url"] = url
    watched = body.get("watched")
    if creating or watched:
        if not isinstance(watched, list) or not watched or not all(_is_watched(item) for item in watched):
            raise bad_request(f"watched must list items with a name and a type among {', '.join(WATCHED_TYPES)}")
        result["watched"] = json.dumps([{"type": item["type"], "name": item["name"]} for item in watched])
    domains = body.get("domains", list(DOMAINS) if creating else None)
    if domains is not None:
        if not isinstance(domains, list) or not domains or not all(item in DOMAINS for item in domains):
            raise bad_request("domains must list repo, discussion or both")
        result["domains"] = json.dumps(domains)
    secret = body.get("secret")
    if secret is not None:
        if not isinstance(secret, str) or not _SECRET.fullmatch(secret):
            raise bad_request("secret must be ASCII text")
        result["secret"] = secret
    return result


def _is_watched(item: Any) -> bool:
    return isinstance(item, dict) and item.get("type") in WATCHED_TYPES and isinstance(item.get("name"), str)


def _json(call: Call, row: sqlite3.Row) -> dict[str, Any]:
    """A webhook as the API gives it; the secret itself is never shown again."""
    value = {
        "id": row["id"],
        **_target(call, row),
        "watched": json.loads(row["watched"]),
        "domains": json.loads(row["domains"]),
        "disabled": {"no": False, "yes": True}.get(row["disabled"], deliveries.SUSPENDED),
        "hasSecret": bool(row["secret"]),
    }
    if row["last_trigger"]:
        value["lastTriggerAt"] = row["last_trigger"]
    return value


def _target(call: Call, row: sqlite3.Row) -> dict[str, Any]:
    job_id = deliveries.job_of(row["url"])
    if job_id is None:
        return {"url": row["url"]}
    jobs = call.hub.jobs
    job = jobs.source(job_id, row["user_id"]) if jobs else None
    named = {"secrets": jobs.secrets_of(row["id"])} if jobs else {}
    return {"jobSourceId": job_id, **({"job": {**job, **named}} if job else {})}
