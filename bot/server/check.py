"""``ptebot serve --check``: tries what the settings say, starts nothing, and makes nothing but the data directory.

A ``bad`` one would keep the server from doing its work; a ``warning`` is a weak place that somebody may have wanted.
To add a check: a function that yields findings, and its line in ``CHECKS``.
"""

from __future__ import annotations

import importlib.util
import os
import shutil
import stat
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

import sqlalchemy as sa

from bot import hubapi
from bot.errors import NotAuthorized
from bot.publish.markdown import one_line
from bot.server import executors, migrate, tracing
from bot.server.sealing import Sealer
from bot.server.setting_values import loopback
from bot.server.settings import Settings, database_url
from bot.server.store import open_engine
from exporter.errors import PtebotError

Level = Literal["ok", "warning", "bad"]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one look found."""

    about: str
    level: Level
    text: str

    @property
    def bad(self) -> bool:
        return self.level == "bad"

    def data(self) -> dict[str, Any]:
        """As JSON data."""
        return asdict(self)

    def line(self) -> str:
        """For a person."""
        return f"{self.level:8}{self.about}: {self.text}"


def findings(settings: Settings) -> list[Finding]:
    """Everything that was found, in the order of ``CHECKS``; never raises for what it looks at."""
    found: list[Finding] = []
    for about, check in CHECKS.items():
        try:
            found += [Finding(about=about, level=level, text=text) for level, text in check(settings)]
        except PtebotError as error:
            found.append(Finding(about=about, level="bad", text=f"{error.what} {error.advice}"))
    return found


Found = Iterator[tuple[Level, str]]


def _webhooks(settings: Settings) -> Found:
    if settings.webhook_secret is None:
        yield "bad", "PTEBOT_WEBHOOK_SECRET is not set; `openssl rand -hex 32` makes one"
    if not settings.watch:
        yield "bad", "PTEBOT_WATCH is empty: every webhook would be ignored"
    if settings.webhook_secret is not None and settings.watch:
        yield "ok", f"those about {', '.join(settings.watch[:10])}{' ...' if len(settings.watch) > 10 else ''}"


def _data(settings: Settings) -> Found:
    try:
        settings.data.mkdir(parents=True, exist_ok=True, mode=0o700)
        with tempfile.TemporaryFile(dir=settings.data):
            pass
        mode = settings.data.stat().st_mode
        free = shutil.disk_usage(settings.data).free
    except OSError as error:
        yield "bad", f"{one_line(settings.data, 200)} cannot be written: {error.strerror}"
        return
    if mode & stat.S_IWOTH:
        yield "bad", f"{one_line(settings.data, 200)} can be written by every user of this machine"
    elif mode & (stat.S_IROTH | stat.S_IXOTH):
        yield "warning", f"{one_line(settings.data, 200)} can be entered by other users: chmod 700"
    low = free < settings.least_disk
    yield ("bad" if low else "ok"), f"{free:,} bytes are free" + (f"; {settings.least_disk:,} are wanted" * low)


def _database(settings: Settings) -> Found:
    url = sa.make_url(database_url(settings))
    shown = one_line(url.render_as_string(hide_password=True), 200)
    if url.get_backend_name() == "sqlite" and not Path(str(url.database)).exists():
        yield "ok", f"{shown} will be made"
        return
    engine = open_engine(database_url(settings))
    try:
        with engine.connect() as connection:
            version = migrate.version(connection)
    except sa.exc.DBAPIError as error:
        yield "bad", f"{shown} does not answer: {type(error.orig).__name__}"
        return
    finally:
        engine.dispose()
    newest = migrate.versions()[-1]
    state = "is up to date" if version == newest else f"is at {version}; it will be upgraded to {newest}"
    yield "ok", f"{shown} {state}"


def _hub(settings: Settings) -> Found:
    if settings.token is None:
        yield "bad", "HF_TOKEN is not set: no pull request can be opened"
        return
    api = hubapi.connect(settings.endpoint, settings.token.get_secret_value())
    try:
        with hubapi.asking("asking whose token it is", api):
            me = api.whoami()
    except NotAuthorized as error:
        yield "bad", f"the token is not valid: {error.what}"
        return
    except PtebotError as error:
        yield "bad", error.what
        return
    try:
        token = (me.get("auth") or {}).get("accessToken") or {}
        role, fine = str(token.get("role", "")), token.get("fineGrained") or {}
        scopes = {str(right) for right in fine.get("global") or []}
        scopes |= {str(right) for scope in fine.get("scoped") or [] for right in scope.get("permissions") or []}
    except (AttributeError, TypeError):
        yield "bad", f"{settings.endpoint} does not answer as a Hub does"
        return
    name = one_line(me.get("name", "?"), 100)
    if role == "read":
        yield "bad", f"{name}'s token may only read; opening pull requests needs role write"
    elif role == "fineGrained" and not scopes & {"discussion.write", "repo.write"}:
        yield "bad", f"{name}'s fine-grained token may not write discussions and pull requests (discussion.write)"
    else:
        yield "ok", f"{settings.endpoint} as {name}, token of role {one_line(role or 'unknown', 40)}"
    if role == "write":
        yield "warning", "the token may write all that its account may; a fine-grained one may do less"


def _sandbox(settings: Settings) -> Found:
    rung = executors.chosen(settings).rung
    yield "ok", f"exports run behind: {one_line(rung, 60)}"
    if settings.sandbox == "none":
        yield "warning", "PTEBOT_SANDBOX is none: a machine without any wall would run strangers' models all the same"
    if settings.image and "@sha256:" not in settings.image:
        yield "warning", "the image is named by a tag, which can move; name it by digest (NAME@sha256:...)"


def _machine(settings: Settings) -> Found:
    import psutil

    memory = psutil.virtual_memory().total
    if settings.memory_limit is None:
        yield "warning", "PTEBOT_MEMORY_LIMIT is not set: one export may take all memory, and the server with it"
    elif settings.memory_limit * settings.concurrency > memory:
        yield (
            "warning",
            f"{settings.concurrency} exports of {settings.memory_limit:,} bytes are more than the {memory:,} there are",
        )


def _pages(settings: Settings) -> Found:
    parts = urlsplit(settings.public_url)
    if not settings.public_url:
        yield "warning", "PTEBOT_PUBLIC_URL is not set: replies have no link to their job"
    elif parts.scheme == "http" and not loopback(parts.hostname or ""):
        yield "warning", "PTEBOT_PUBLIC_URL is http: whoever is on the way reads tokens and sessions"
    if settings.admin_token is None and not settings.oauth_client_id:
        yield "warning", "neither PTEBOT_ADMIN_TOKEN nor OAuth: nobody can cancel or retry a job from the pages"
    if bool(settings.oauth_client_id) != (settings.oauth_client_secret is not None):
        yield "warning", "of OAuth's client id and secret only one is set"
    if settings.metrics_token is None and settings.public_url:
        yield "warning", "PTEBOT_METRICS_TOKEN is not set: /metrics is open to whoever reaches the pages"
    if "*" in settings.trusted_proxies:
        yield "warning", "PTEBOT_TRUSTED_PROXIES is *: everybody can claim to be any address"


def _secrets(settings: Settings) -> Found:
    if settings.secret_key is not None:
        Sealer.of(settings)
    elif sa.make_url(database_url(settings)).get_backend_name() != "sqlite":
        yield "warning", "PTEBOT_SECRET_KEY is not set: each machine makes its own, and cannot read the others' tokens"
    file = settings.secrets_file
    if file is not None and file.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO):
        yield "warning", f"{one_line(file, 200)} holds secrets and can be read by others: chmod 600"


def _traces(settings: Settings) -> Found:
    if os.environ.get(tracing.ENDPOINT) and importlib.util.find_spec("opentelemetry") is None:
        yield "warning", f"{tracing.ENDPOINT} is set, but OpenTelemetry is not installed: pip install 'ptebot[otel]'"


CHECKS: dict[str, Callable[[Settings], Found]] = {
    "webhooks": _webhooks,
    "data": _data,
    "database": _database,
    "hub": _hub,
    "sandbox": _sandbox,
    "machine": _machine,
    "pages": _pages,
    "secrets": _secrets,
    "traces": _traces,
}
