"""Metrics as Prometheus reads them: what happened, what the database knows, and no series that a stranger can make."""

from __future__ import annotations

import inspect
import time
from pathlib import Path
from typing import get_args

import pytest
import sqlalchemy as sa
from prometheus_client.parser import text_string_to_metric_families

from bot.publish import loop
from bot.server import figures, tables
from bot.server.heartbeat import DEAD
from bot.server.metrics import FAMILIES, OPERATIONS, STAGES, WEBHOOKS, Metrics
from bot.server.records import Asked, Asker, Delivery, Worker
from bot.server.settings import Settings
from bot.server.store import Store, open_engine
from bot.web import webhook

HEARTBEAT = Settings().heartbeat


def scraped(metrics: Metrics) -> dict[str, dict[tuple[str, ...], float]]:
    """Every sample by name and label values, as a Prometheus server understands the text."""
    found: dict[str, dict[tuple[str, ...], float]] = {}
    for family in text_string_to_metric_families(metrics.text().decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.values()))] = sample.value
    return found


def job(store: Store, number: int, trigger: str = "webhook", **fields: object) -> str:
    record, _ = store.add(Asked(repo_id=f"acme/m{number}", sha="a" * 40), Asker(trigger=trigger))  # type: ignore[arg-type]
    if fields:
        store.update(record.id, **fields)
    return record.id


def test_what_the_database_knows(store: Store) -> None:
    now = time.time()
    job(store, 1, created_at=now - 100)
    job(store, 2, trigger="comment")
    job(store, 3, state="running", worker="one")
    job(store, 4, state="running", worker="gone")
    job(store, 5, state="passed")
    for name, age in (("one", 0.0), ("two", 0.0), ("gone", DEAD * HEARTBEAT + 5)):
        store.beat(Worker(id=name, host="h", started_at=now - 200, beat_at=now - age, version="0"))
    store.deliver([Delivery(key=key, kind="push", repo_id="acme/m1", received_at=now - 50) for key in "ab"])
    store.handled("a", "done")
    found = scraped(Metrics(store, heartbeat=HEARTBEAT))
    jobs = found["ptebot_jobs"]
    assert (jobs["5", "queued"], jobs["1", "queued"], jobs["5", "running"], jobs["5", "passed"]) == (1, 1, 2, 1)
    assert jobs["9", "running"] == 0, "what is not there now is a zero, not a gap"
    assert found["ptebot_jobs_running"] == {("one",): 1, ("two",): 0, ("other",): 1}
    assert found["ptebot_queue_oldest_seconds"][()] == pytest.approx(100, abs=5)
    assert found["ptebot_deliveries_waiting"][()] == 1
    assert found["ptebot_deliveries_oldest_seconds"][()] == pytest.approx(50, abs=5)
    assert (found["ptebot_workers_alive"][()], found["ptebot_workers_dead"][()]) == (2, 1)
    assert found["ptebot_database_up"][()] == 1


def test_what_happened_here() -> None:
    metrics = Metrics()
    metrics.observe_stage("export", "xnnpack", 42.0)
    metrics.observe_stage("plan", None, 0.2)
    metrics.ended("error", "HubUnreachable")
    metrics.ended("passed")
    metrics.published("created")
    metrics.webhook("accepted")
    metrics.exporter_peak("portable", 3 << 30)
    metrics.request("/jobs/{job_id}", "GET", 404, 0.01)
    found = scraped(metrics)
    assert found["ptebot_stage_seconds_sum"] == {("export", "xnnpack"): 42.0, ("", "plan"): 0.2}
    assert found["ptebot_jobs_ended_total"]["error",] == found["ptebot_jobs_ended_total"]["passed",] == 1
    assert found["ptebot_failures_total"] == {("HubUnreachable",): 1}
    assert found["ptebot_pull_requests_total"]["created",] == 1
    assert found["ptebot_pull_requests_total"]["updated",] == 0, "there from the start"
    assert found["ptebot_webhooks_total"]["accepted",] == 1
    assert found["ptebot_exporter_peak_bytes_bucket"]["4.294967296e+09", "portable"] == 1
    assert found["ptebot_exporter_peak_bytes_bucket"]["2.147483648e+09", "portable"] == 0
    assert found["ptebot_http_request_seconds_count"] == {("/jobs/{job_id}", "4xx", "GET"): 1}


def test_no_stranger_makes_a_series() -> None:
    metrics = Metrics()
    before = len(metrics.text().splitlines())
    for number in range(200):
        word = f'evil{number}"}}\n# TYPE x'
        metrics.observe_stage(word, word, 1)
        metrics.ended(word, word)
        metrics.published(word)
        metrics.webhook(word)
        metrics.exporter_peak(word, 1)
        metrics.request("/", word, 200, 1)
    text = metrics.text().decode()
    assert "evil" not in text
    assert len(text.splitlines()) - before < 100


def test_a_crowd_of_workers_and_of_hostile_names(local_store: Store) -> None:
    now = time.time()
    with local_store.transaction() as connection:
        rows = [
            {"id": f'w{n}"}}\n evil 1', "host": "h", "started_at": now, "beat_at": now, "version": "0"}
            for n in range(150)
        ]
        connection.execute(sa.insert(tables.workers), rows)
    found = scraped(Metrics(local_store))
    assert len(found["ptebot_jobs_running"]) == figures.MOST_WORKERS
    assert "evil" not in found and found["ptebot_workers_alive"][()] == 150


def test_a_database_that_is_away_does_not_hide_the_rest(tmp_path: Path) -> None:
    metrics = Metrics(Store(open_engine(f"sqlite:///{tmp_path}/none/ptebot.db")))
    metrics.webhook("unavailable")
    found = scraped(metrics)
    assert found["ptebot_database_up"][()] == 0
    assert found["ptebot_webhooks_total"]["unavailable",] == 1
    assert "ptebot_workers_alive" not in found


def test_the_table_is_what_the_registry_gives(local_store: Store) -> None:
    given = {family.name: family for family in Metrics(local_store).registry.collect()}
    ours = {name for name in given if name.startswith("ptebot_")}
    assert ours == {name.removesuffix("_total") for name in FAMILIES}
    for name, family in FAMILIES.items():
        assert given[name.removesuffix("_total")].documentation == family.text


def test_the_closed_lists_are_those_of_the_code() -> None:
    assert set(get_args(loop.Operation)) == set(OPERATIONS)
    text = inspect.getsource(webhook)
    assert all(f'"{outcome}"' in text for outcome in WEBHOOKS)
    assert {"plan", "fetch", "export", "publish"} <= set(STAGES)
