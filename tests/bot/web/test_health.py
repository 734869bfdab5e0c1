"""Probes and metrics over HTTP: alive without asking anybody, ready only with everything, no secret needed or said."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

import pytest

from bot.server import migrate
from bot.server.metrics import Metrics
from bot.server.settings import Settings
from bot.server.store import Store, open_engine
from bot.web import health
from tests.bot.server.serving import Served, serving

TOKEN = "metrics-token-0123456"


class State:
    launched = alive = True


def application(settings: Settings, store: Store, state: Any = State) -> Any:
    ready = health.readiness(settings, store, launched=lambda: state.launched, alive=lambda: state.alive)
    return health.application(health.routes(settings, ready, Metrics(store)))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    return Settings(data=tmp_path, least_disk=1, metrics_token=TOKEN)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    engine = open_engine(f"sqlite:///{tmp_path / 'ptebot.db'}")
    migrate.upgrade(engine)
    return Store(engine)


@pytest.fixture(autouse=True)
def _always_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health, "FRESH_SECONDS", -1.0)


def reasons(served: Served) -> tuple[int, dict[str, str]]:
    reply = served.get("/readyz")
    data = json.loads(reply.text)
    assert data["ready"] == (reply.status == 200)
    assert all(one["ok"] == (one["reason"] is None) for one in data["checks"].values())
    return reply.status, {name: one["reason"] for name, one in data["checks"].items() if not one["ok"]}


def test_alive_and_ready(settings: Settings, store: Store) -> None:
    with serving(application(settings, store)) as served:
        assert served.get("/healthz").text == "ok\n"
        assert reasons(served) == (200, {})


def test_each_thing_that_is_missing_is_named(settings: Settings, store: Store) -> None:
    state = State()
    with serving(application(settings, store, state)) as served:
        state.launched = False
        assert reasons(served) == (503, {"engine": "the job engine does not run"})
        state.launched, state.alive = True, False
        assert list(reasons(served)[1]) == ["heartbeat"]
    full = settings.model_copy(update={"least_disk": 1 << 60})
    with serving(application(full, store)) as served:
        status, found = reasons(served)
        assert status == 503 and "bytes are free, at least 1,152,921,504,606,846,976 are wanted" in found["disk"]
    gone = settings.model_copy(update={"data": settings.data / "none"})
    with serving(application(gone, store)) as served:
        assert reasons(served)[1] == {"disk": "the data directory cannot be looked at: No such file or directory"}


def test_a_database_that_is_away(settings: Settings, tmp_path: Path) -> None:
    away = Store(open_engine("postgresql://bot:hunter2@127.0.0.1:1/none"))
    with serving(application(settings, away)) as served:
        assert reasons(served) == (503, {"database": "The database cannot be used"})
        assert served.get("/healthz").status == 200, "a process that waits for its database is not killed for it"
        reply = served.get("/metrics", {"Authorization": f"Bearer {TOKEN}"})
        assert reply.status == 200 and "ptebot_database_up 0.0" in reply.text


def test_a_check_that_hangs_holds_up_nobody(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr(health, "PATIENCE_SECONDS", 0.05)
    until = threading.Event()
    ready = health.Readiness({"slow": lambda: None if until.wait(60) else "never", "quick": lambda: None})
    before = threading.active_count()
    with serving(health.application(health.routes(settings, ready, Metrics()))) as served:
        assert reasons(served) == (503, {"slow": "no answer within 0.05 s"})
        for _ in range(5):
            assert reasons(served) == (503, {"slow": "it has not answered yet"})
        assert sum(thread.name == "ready slow" for thread in threading.enumerate()) == 1
        until.set()
    assert before >= 1


def test_a_defect_of_a_check_shows_no_words_of_it(settings: Settings) -> None:
    def check() -> str | None:
        raise ValueError("hunter2")

    ready = health.Readiness({"broken": check})
    with serving(health.application(health.routes(settings, ready, Metrics()))) as served:
        assert reasons(served) == (503, {"broken": "ValueError"})


def test_a_flood_of_probes_asks_once(monkeypatch: pytest.MonkeyPatch, settings: Settings) -> None:
    monkeypatch.setattr(health, "FRESH_SECONDS", 60.0)
    asked: list[int] = []
    ready = health.Readiness({"counted": lambda: asked.append(1)})
    with serving(health.application(health.routes(settings, ready, Metrics()))) as served:
        threads = [threading.Thread(target=served.get, args=("/readyz",)) for _ in range(20)]
        for one in threads:
            one.start()
        for one in threads:
            one.join()
    assert len(asked) == 1


@pytest.mark.parametrize(
    "given", [None, "", "Bearer", "Bearer wrong", f"Basic {TOKEN}", TOKEN, f"Bearer {TOKEN}x", "Bearer \udcff"]
)
def test_metrics_ask_for_their_token(settings: Settings, store: Store, given: str | None) -> None:
    headers = {} if given is None else {"Authorization": given.encode("latin-1", "replace").decode("latin-1")}
    with serving(application(settings, store)) as served:
        reply = served.get("/metrics", headers)
    assert reply.status == 401 and reply.headers["www-authenticate"] == "Bearer" and "ptebot_" not in reply.text


def test_metrics(settings: Settings, store: Store) -> None:
    with serving(application(settings, store)) as served:
        reply = served.get("/metrics", {"Authorization": f"Bearer {TOKEN}"})
    assert reply.status == 200 and reply.headers["content-type"].startswith("text/plain; version=")
    assert "ptebot_database_up 1.0" in reply.text
    everybody = settings.model_copy(update={"metrics_token": None})
    with serving(application(everybody, store)) as served:
        assert served.get("/metrics").status == 200
