"""The log: every line one record, nothing in it that a stranger made up, no secret wherever it came from."""

from __future__ import annotations

import io
import json
import logging
import re
import subprocess
import sys
import threading
import warnings
from collections.abc import Iterator
from typing import Any
from urllib.parse import quote

import pytest

from bot.server import logs
from bot.server.settings import Settings

HIDDEN = {
    "token": "hf_" + "a1B2" * 8,
    "webhook_secret": 'wh"k\\sec%ret&+16chars',
    "admin_token": "admin-token-0123456789",
    "secret_key": "secret-key-0123456789",
    "oauth_client_secret": "oauth-client-secret-9",
    "metrics_token": "metrics-token-0123456",
    "database": "postgresql://bot:db%2Fpass%40word@db.example.org/ptebot",
}
VALUES = [*(value for name, value in HIDDEN.items() if name != "database"), "db/pass@word", "db%2Fpass%40word"]
OTHERS = ["hf_somebodyelses0123", "eyJhbGciOi.eyJzdWIiOiIx.c2ln", "dXNlcjpwYXNzd29yZA=="]
"""Secrets that are in no setting: tokens of people, of the Hub's CI, of a proxy."""


@pytest.fixture(autouse=True)
def _logging_as_it_was() -> Iterator[None]:
    names = ["", *logs.TAKEN, *logs.QUIET]
    before = [(logger, logger.handlers[:], logger.level, logger.propagate) for logger in map(logging.getLogger, names)]
    hooks = (sys.excepthook, threading.excepthook)
    yield
    logging.captureWarnings(False)
    sys.excepthook, threading.excepthook = hooks
    for logger, handlers, level, propagate in before:
        logger.handlers[:], logger.propagate = handlers, propagate
        logger.setLevel(level)


class Log:
    def __init__(self, kind: str, **settings: Any) -> None:
        self.stream = io.StringIO()
        logs.setup(Settings(log_format=kind, **{**HIDDEN, **settings}), worker="one", stream=self.stream)

    @property
    def text(self) -> str:
        return self.stream.getvalue()

    @property
    def lines(self) -> list[dict[str, str]]:
        return [json.loads(line) for line in self.text.splitlines()]


both = pytest.mark.parametrize("kind", ["json", "text"])
"""The log is taken over in the test itself: before, pytest's own handlers would come to it."""


def test_fields() -> None:
    log = Log("json")
    with logs.about(request_id="r1"), logs.about(job_id="j1", repo="acme/tiny"):
        logging.getLogger("bot.x").warning("said %s", "it")
    logging.getLogger("bot.x").info("after")
    first, second = log.lines
    assert first.pop("time").endswith("Z") and len(second.pop("time")) == len("2026-01-01T00:00:00.000Z")
    assert first == {
        **{"level": "warning", "logger": "bot.x", "message": "said it"},
        **{"worker": "one", "request_id": "r1", "job_id": "j1", "repo": "acme/tiny"},
    }
    assert second == {"level": "info", "logger": "bot.x", "message": "after", "worker": "one"}


def test_what_it_is_about_follows_into_threads_of_the_event_loop() -> None:
    import asyncio

    log = Log("json")

    async def run() -> None:
        with logs.about(request_id="r2"):
            await asyncio.to_thread(logging.getLogger("x").info, "from a thread")

    asyncio.run(run())
    assert log.lines[0]["request_id"] == "r2"


def _everywhere(secret: str) -> None:
    """Log a secret in every way that has happened to somebody."""
    logger = logging.getLogger("some.library")
    logger.info("plain %s", secret)
    logger.info("in %r and %s", {"Authorization": f"Bearer {secret}"}, [secret])
    logger.info("%d", secret)
    logger.info("quoted %s %s %s", quote(secret), quote(secret, safe=""), json.dumps(secret))
    logger.info("GET https://user:%s@host/path?secret=%s&x=1", secret, secret)
    logger.info("x" * (logs.MOST_CHARACTERS - 5) + " " + secret)
    with logs.about(repo=secret, job_id=f"a{secret}"):
        logger.info("in the fields", extra={"fields": {"path": f"/hooks/{secret}"}})
    try:
        try:
            raise KeyError(secret)
        except KeyError as error:
            raise RuntimeError(f"Authorization: Basic {secret}") from error
    except RuntimeError:
        logger.exception("failed with %s", secret)
    warnings.warn(f"warned of {secret}", stacklevel=1)
    for name in ("uvicorn.error", "dbos", "huggingface_hub.hf_api", "docker.api"):
        logging.getLogger(name).error("library %s", secret)
    thread = threading.Thread(target=lambda: int(secret), name="dies")
    thread.start()
    thread.join()


@both
@pytest.mark.parametrize("secret", VALUES)
def test_no_secret_of_the_settings_gets_out(kind: str, secret: str, capfd: pytest.CaptureFixture[str]) -> None:
    log = Log(kind)
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        _everywhere(secret)
    found = log.text + "".join(capfd.readouterr())
    assert all(word in found for word in ("library", "warned of", "uncaught"))
    for way in (secret, quote(secret), quote(secret, safe=""), json.dumps(secret)[1:-1], secret[:-3]):
        assert way not in found
    part = max(re.findall("[A-Za-z0-9]+", secret), key=len)
    assert part not in found or len(part) < 6, "however it is quoted"
    assert "***" in found


@both
@pytest.mark.parametrize("secret", OTHERS)
def test_what_looks_like_a_secret_does_not_either(kind: str, secret: str) -> None:
    log = Log(kind)
    logger = logging.getLogger("x")
    for text in ("Authorization: Bearer {}", "authorization={}", "('Authorization', 'Basic {}')", "Cookie: a={}; b=c"):
        logger.info(text.format(secret))
    logger.info("%s", {"X-Webhook-Secret": secret, b"authorization": f"token {secret}".encode()})
    logger.info("POST /webhooks/hub?secret=%s", secret)
    logger.info("password=%s", secret)
    assert secret not in log.text
    assert len(log.text.splitlines()) == 7


@both
def test_no_message_makes_a_line_of_its_own(kind: str) -> None:
    log = Log(kind)
    forged = '\n2026-01-01T00:00:00.000Z critical root: forged\r\x1b[2J\u2028\u202e\x85{"level": "critical"}'
    with logs.about(repo=forged):
        logging.getLogger("x").info("%s", forged)
    try:
        raise ValueError(forged)
    except ValueError:
        logging.getLogger("x").exception(forged)
    for line in log.text.splitlines():
        assert line.startswith(("2026", "{", "  | ")) and line.isprintable(), line
    records = [line for line in log.text.splitlines() if not line.startswith("  | ")]
    assert len(records) == 2
    assert all(" critical " not in line.split("x:", 1)[0] for line in records if line[0] != "{")


@both
def test_a_record_is_bounded(kind: str) -> None:
    log = Log(kind)
    logging.getLogger("x").info("a" * 1_000_000)
    try:
        raise ValueError("b" * 1_000_000)
    except ValueError:
        logging.getLogger("x").exception("c")
    assert len(log.text) < 40_000


@both
def test_the_level_and_the_quiet(kind: str) -> None:
    log = Log(kind)
    logging.getLogger("x").debug("unseen")
    logging.getLogger("httpx2").info("GET https://host/?token=1")
    assert log.text == ""
    louder = Log("text", log_level="debug")
    logging.getLogger("x").debug("seen")
    assert "seen" in louder.text


UNCAUGHT = """
import sys, threading
from bot.server import logs
from bot.server.settings import Settings
logs.setup(Settings(admin_token="admin-token-0123456789"))
thread = threading.Thread(target=lambda: 1 / 0)
thread.start()
thread.join()
import dbos, bot.hubapi, logging
logging.getLogger("dbos").error("once")
logs.setup(Settings(admin_token="admin-token-0123456789"))
raise ValueError("admin-token-0123456789")
"""


def test_what_nobody_caught_is_a_line_too() -> None:
    done = subprocess.run([sys.executable, "-c", UNCAUGHT], capture_output=True, text=True, check=False)
    assert done.returncode == 1 and done.stdout == ""
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    assert [line["message"] for line in lines] == ["uncaught", "once", "uncaught"]
    assert "ZeroDivisionError" in lines[0]["exception"] and "ValueError: ***" in lines[2]["exception"]


def test_a_stream_that_is_gone_costs_nothing() -> None:
    log = Log("json")
    log.stream.close()
    logging.getLogger("x").info("nobody reads")
