"""Prometheus metrics of one process: what happened here as counters, what the database knows at each scrape.

In: a call when something happens. Out: the text format. Labels take values of closed lists only, and everything else
is ``other``: no name of a repository and no word of a stranger makes a new series. To add a metric: a line in
``FAMILIES``, a method that feeds it, and ``make docs``.
"""

from __future__ import annotations

import logging
import platform
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST

from bot.errors import DatabaseUnavailable
from bot.names import BACKENDS
from bot.publish.markdown import one_line
from bot.server import figures
from bot.server.figures import Figures
from bot.server.records import LIVE, PRIORITIES, State
from bot.server.store import Store
from exporter import __version__
from exporter.errors import all_errors

CONTENT_TYPE = CONTENT_TYPE_LATEST
STAGES = ("plan", "fetch", "export", "publish")
OPERATIONS = ("created", "updated", "unchanged", "none")
WEBHOOKS = (
    *("accepted", "duplicate", "ignored", "unauthorized", "too_large", "too_slow", "unreadable", "busy"),
    *("unavailable", "gone"),
)
METHODS = ("GET", "HEAD", "POST")
STATES: tuple[str, ...] = get_args(State)
ENDS = tuple(state for state in STATES if state not in LIVE)
_SECONDS = (0.1, 0.5, 1, 2, 5, 10, 30, 60, 120, 300, 600, 1200, 1800, 3600, 7200, 14400)
_REQUEST_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
_BYTES = tuple(float(1 << power) for power in range(28, 39))
log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class Family:
    """One metric."""

    kind: Literal["counter", "histogram", "gauge"]
    """Gauges are read from the database at each scrape, and are the same from every process."""
    text: str
    labels: tuple[str, ...] = ()
    buckets: tuple[float, ...] = ()
    known: tuple[str, ...] = ()
    """Values of the only label, which are there from the start: rate() does not see the event that makes a series."""


FAMILIES = {
    "ptebot_stage_seconds": Family(
        kind="histogram",
        text="How long a stage of a job took, whether it went well or not.",
        labels=("stage", "backend"),
        buckets=_SECONDS,
    ),
    "ptebot_jobs_ended_total": Family(
        kind="counter", text="Jobs that this process ended, by how.", labels=("state",), known=ENDS
    ),
    "ptebot_failures_total": Family(
        kind="counter", text="What they failed for: the classes of docs/exit-codes.md.", labels=("name",)
    ),
    "ptebot_pull_requests_total": Family(
        kind="counter", text="What publishing did.", labels=("operation",), known=OPERATIONS
    ),
    "ptebot_webhooks_total": Family(
        kind="counter", text="Webhooks that came in, by how they ended.", labels=("outcome",), known=WEBHOOKS
    ),
    "ptebot_http_request_seconds": Family(
        kind="histogram",
        text="How long a request took, by its route, its method and the class of its status.",
        labels=("route", "method", "status"),
        buckets=_REQUEST_SECONDS,
    ),
    "ptebot_exporter_peak_bytes": Family(
        kind="histogram",
        text="The most memory that an export was seen to hold.",
        labels=("backend",),
        buckets=_BYTES,
    ),
    "ptebot_build_info": Family(kind="gauge", text="Always 1; the versions.", labels=("version", "python")),
    "ptebot_database_up": Family(kind="gauge", text="1 while the database answers, 0 while it does not."),
    "ptebot_jobs": Family(kind="gauge", text="Jobs by state and priority.", labels=("state", "priority")),
    "ptebot_jobs_running": Family(kind="gauge", text="Running jobs by worker.", labels=("worker",)),
    "ptebot_queue_oldest_seconds": Family(kind="gauge", text="For how long the oldest queued job has waited."),
    "ptebot_deliveries_waiting": Family(kind="gauge", text="Webhooks that are kept and not handled yet."),
    "ptebot_deliveries_oldest_seconds": Family(kind="gauge", text="For how long the oldest of them has waited."),
    "ptebot_workers_alive": Family(kind="gauge", text="Workers that give signs of life."),
    "ptebot_workers_dead": Family(kind="gauge", text="Workers that ended or died, and are not forgotten yet."),
}
"""By name, in the order of docs/operations.md."""


class Metrics:
    """Every metric of a process, in a registry of its own."""

    def __init__(self, store: Store | None = None, *, heartbeat: float = 5.0) -> None:
        """``store``: where the figures of a scrape come from, if any; ``heartbeat``: seconds between signs of life."""
        disable_created_metrics()
        self.registry = CollectorRegistry()
        self._made: dict[str, Any] = {}
        for name, family in FAMILIES.items():
            if family.kind == "counter":
                self._made[name] = Counter(name, family.text, family.labels, registry=self.registry)
                for value in family.known:
                    self._made[name].labels(value)
            elif family.kind == "histogram":
                self._made[name] = Histogram(
                    name, family.text, family.labels, buckets=family.buckets, registry=self.registry
                )
        self.registry.register(_AtScrape(store, heartbeat))
        ProcessCollector(registry=self.registry)

    def observe_stage(self, stage: str, backend: str | None, seconds: float) -> None:
        """A stage of a job ended; ``backend`` where it was one backend's."""
        labels = (_one_of(stage, STAGES), _one_of(backend, BACKENDS) if backend else "")
        self._made["ptebot_stage_seconds"].labels(*labels).observe(max(0.0, seconds))

    def ended(self, state: str, failure: str | None = None) -> None:
        """A job ended; ``failure``: the class of what it failed for, if it did."""
        self._made["ptebot_jobs_ended_total"].labels(_one_of(state, ENDS)).inc()
        if failure is not None:
            known = _one_of(failure, (cls.__name__ for cls in all_errors()))
            self._made["ptebot_failures_total"].labels(known).inc()

    def published(self, operation: str) -> None:
        """A pull request was opened, refreshed, or left alone."""
        self._made["ptebot_pull_requests_total"].labels(_one_of(operation, OPERATIONS)).inc()

    def webhook(self, outcome: str) -> None:
        """A webhook ended (``bot.web.webhook.OnResult``)."""
        self._made["ptebot_webhooks_total"].labels(_one_of(outcome, WEBHOOKS)).inc()

    def request(self, route: str, method: str, status: int, seconds: float) -> None:
        """A request ended; ``route`` is a route's own pattern, never what was asked for."""
        labels = (route, _one_of(method, METHODS), f"{status // 100}xx")
        self._made["ptebot_http_request_seconds"].labels(*labels).observe(seconds)

    def exporter_peak(self, backend: str | None, peak_bytes: int) -> None:
        """An export ended that held so much."""
        self._made["ptebot_exporter_peak_bytes"].labels(_one_of(backend, BACKENDS)).observe(peak_bytes)

    def text(self) -> bytes:
        """Everything, as ``CONTENT_TYPE``; reads the database."""
        return generate_latest(self.registry)


class _AtScrape:
    """What the database knows, read when a scrape asks."""

    def __init__(self, store: Store | None, heartbeat: float) -> None:
        self._store, self._heartbeat = store, heartbeat

    def describe(self) -> Iterable[Metric]:
        return []  # else registering would ask the database

    def collect(self) -> Iterator[Metric]:
        found = None
        try:
            found = figures.look(self._store, self._heartbeat) if self._store is not None else None
        except DatabaseUnavailable as error:
            log.warning("no figures for the metrics: %s", error.what)
        samples: Samples = _samples(found) if found is not None else {"ptebot_database_up": [((), 0.0)]}
        samples["ptebot_build_info"] = [((__version__, platform.python_version()), 1.0)]
        for name, family in FAMILIES.items():
            if family.kind == "gauge":
                made = GaugeMetricFamily(name, family.text, labels=family.labels)
                for labels, value in samples.get(name, []):
                    made.add_metric(labels, value)
                yield made


Samples = dict[str, list[tuple[tuple[str, ...], float]]]


def _samples(found: Figures) -> Samples:
    """Values of each family by their labels; none where there is nothing to say."""
    jobs: dict[tuple[str, int], int] = {(state, priority): 0 for state in LIVE for priority in PRIORITIES.values()}
    jobs |= found.jobs
    return {
        "ptebot_database_up": [((), 1.0)],
        "ptebot_jobs": [((_one_of(state, STATES), str(prio)), float(count)) for (state, prio), count in jobs.items()],
        "ptebot_jobs_running": [((one_line(worker, 100),), float(count)) for worker, count in found.running.items()],
        "ptebot_queue_oldest_seconds": [((), found.oldest_seconds)],
        "ptebot_deliveries_waiting": [((), float(found.deliveries))],
        "ptebot_deliveries_oldest_seconds": [((), found.oldest_delivery_seconds)],
        "ptebot_workers_alive": [((), float(found.workers_alive))],
        "ptebot_workers_dead": [((), float(found.workers_dead))],
    }


def _one_of(value: str | None, known: Iterable[str]) -> str:
    return value if value is not None and value in known else "other"
