"""The server's log: one line a record on standard error, as JSON or text, without secrets and without false lines.

In: records of Python's ``logging``, ours and those of every library. Out: lines with time, level, logger, message and
what is known of the request or the job that they are about. Whatever a stranger put into a message stays within its
field: control characters are escaped. Secrets of the settings and all that looks like one are cut out of every field,
exceptions too.
"""

from __future__ import annotations

import json
import logging
import re
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from types import TracebackType
from typing import Any, TextIO
from urllib.parse import quote

import sqlalchemy as sa
from pydantic import SecretStr

from bot import hubapi
from bot.server.settings import Settings

MOST_CHARACTERS = 8_000
"""Of a field; of an exception twice as many, and its end counts most."""
LEAST_SECRET = 4
"""Shorter values are not cut out: a password ``a`` would leave no line readable."""
TAKEN = ("uvicorn", "uvicorn.error", "uvicorn.access", "dbos", "alembic", "huggingface_hub", "docker", "kubernetes")
"""Libraries that would write lines of their own kind."""
QUIET = (
    "httpx",
    "httpx2",
    "httpcore",
    "httpcore2",
    "urllib3",
    "filelock",
    "alembic",
    "uvicorn.access",
    "asyncio",
    "dbos",
)
"""Libraries that log each request with its whole address, or each of their own small steps."""
_HEADERS = re.compile(
    r"((?:proxy-)?authorization|(?:set-)?cookie)(['\"]?\s*[:=,]\s*(?:b(?=['\"]))?['\"]?)[^\r\n'\"]+", re.IGNORECASE
)
_NAMED = re.compile(
    r"(x-[a-z-]*(?:secret|token)|password|passwd|secret|api[-_]key)"
    r"(['\"]?\s*[:=,]\s*(?:b(?=['\"]))?['\"]?)[^\s'\",;&]+",
    re.IGNORECASE,
)
_context: ContextVar[dict[str, str]] = ContextVar("ptebot_log_context", default={})  # noqa: B039 - never changed in place


@contextmanager
def about(**fields: str | None) -> Iterator[None]:
    """Say in every record of the block what it is about: ``job_id``, ``repo``, ``worker``, ``request_id``."""
    known = {name: value for name, value in fields.items() if value is not None}
    token = _context.set({**_context.get(), **known})
    try:
        yield
    finally:
        _context.reset(token)


def setup(settings: Settings, *, worker: str = "", stream: TextIO | None = None) -> Scrub:
    """Take over all logging of this process; call it again after a library that brings its own handlers has started.

    Run uvicorn with ``log_config=None, access_log=False``: ``bot.web.access`` writes the lines of requests.
    """
    scrub = Scrub(secrets_of(settings))
    kind = _Json if settings.log_format == "json" else _Text
    handler = _Handler(stream if stream is not None else sys.stderr)
    handler.setFormatter(kind(scrub, {"worker": worker} if worker else {}))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level.upper())
    for name in TAKEN:
        logger = logging.getLogger(name)
        # A handler that does nothing: dbos and others add their own where there is none.
        logger.handlers[:] = [logging.NullHandler()]
        logger.propagate = True
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.WARNING)
    logging.captureWarnings(True)
    sys.excepthook = _uncaught
    threading.excepthook = lambda args: _uncaught(args.exc_type, args.exc_value, args.exc_traceback)
    return scrub


def secrets_of(settings: Settings) -> list[str]:
    """Every value of the settings that no one may see, in each way it may be written."""
    found = [
        value.get_secret_value()
        for value in (getattr(settings, name) for name in type(settings).model_fields)
        if isinstance(value, SecretStr)
    ]
    if settings.database is not None:
        url = sa.make_url(settings.database)
        found += [str(one) for one in (url.password, url.query.get("password")) if one]
    written = set(found)
    for _ in range(2):  # what quotes may be quoted once more
        written |= {way for value in written for way in _written(value)}
    return sorted((way for way in written if len(way) >= LEAST_SECRET), key=len, reverse=True)


def _written(value: str) -> tuple[str, ...]:
    """A value as it may stand within an address, JSON, or Python's own words."""
    return quote(value), quote(value, safe=""), json.dumps(value)[1:-1], repr(value)[1:-1]


class Scrub:
    """Cuts secrets out of text: the known ones by value, the others by shape."""

    def __init__(self, secrets: list[str]) -> None:
        self._secrets = secrets

    def __call__(self, text: str) -> str:
        for secret in self._secrets:
            text = text.replace(secret, "***")
        for pattern in (_HEADERS, _NAMED):
            text = pattern.sub(r"\1\2***", text)
        return hubapi.scrub(text)


class _Handler(logging.StreamHandler[TextIO]):
    def handleError(self, record: logging.LogRecord) -> None:
        """Say nothing: the standard library would print the record's arguments as they are."""


class _Lines(logging.Formatter):
    """What both formats share: the fields of a record, clean."""

    def __init__(self, scrub: Scrub, fixed: dict[str, str]) -> None:
        super().__init__()
        self._scrub, self._fixed = scrub, fixed

    def fields(self, record: logging.LogRecord) -> dict[str, str]:
        try:
            message = record.getMessage()
        except Exception as error:  # a wrong format is no reason to lose the record, or to print its arguments
            message = f"{record.msg} ({type(error).__name__} in its arguments)"
        at = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        found = {"time": at, "level": record.levelname.lower(), "logger": record.name}
        found["message"] = self._clean(message, MOST_CHARACTERS)
        for name, value in {**self._fixed, **_context.get()}.items():
            found[name] = self._clean(value, 200)
        for name, value in getattr(record, "fields", {}).items():
            found[name] = self._clean(str(value), 400)
        if record.exc_info and record.exc_info[0] is not None:
            text = "".join(traceback.format_exception(*record.exc_info))
            found["exception"] = self._clean(text, -2 * MOST_CHARACTERS)
        return found

    def _clean(self, text: str, most: int) -> str:
        """Without secrets, then cut: half a secret would be known to no one, and be shown."""
        text = self._scrub(text)
        if len(text) <= abs(most):
            return text
        return f"{text[:most]}..." if most > 0 else f"...{text[most:]}"


class _Json(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        return json.dumps(self.fields(record))  # ASCII only: no character of it can end a line or turn its direction


class _Text(_Lines):
    def format(self, record: logging.LogRecord) -> str:
        found = self.fields(record)
        exception = found.pop("exception", "")
        head = [found.pop(name) for name in ("time", "level", "logger", "message")]
        more = [f"{name}={value}" for name, value in found.items()]
        line = f"{head[0]} {head[1]:7} {head[2]}: " + "  ".join([head[3], *more])
        return "\n".join([_escaped(line), *(f"  | {_escaped(each)}" for each in exception.splitlines())])


def _escaped(text: str) -> str:
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode() for one in text)


def _uncaught(kind: type[BaseException], error: BaseException | None, trace: TracebackType | None) -> Any:
    if not issubclass(kind, KeyboardInterrupt | SystemExit):
        logging.getLogger("ptebot").critical("uncaught", exc_info=(kind, error or kind(), trace))
