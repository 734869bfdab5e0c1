"""Spans as a collector gets them: real OTLP over HTTP, read as protobuf."""

from __future__ import annotations

import gzip
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest,
    ExportTraceServiceResponse,
)
from starlette.applications import Starlette
from starlette.responses import PlainTextResponse
from starlette.routing import Route

from bot.errors import HubUnreachable
from bot.server import tracing
from bot.web.access import Access
from tests.bot.server.serving import serving

JOB = "0af7651916cd43dd8448eb211c80319c"


class Collector(ThreadingHTTPServer):
    """Takes spans as an OpenTelemetry collector does."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.requests: list[ExportTraceServiceRequest] = []

    @property
    def spans(self) -> list[Any]:
        return [
            span
            for request in self.requests
            for resource in request.resource_spans
            for scope in resource.scope_spans
            for span in scope.spans
        ]


class _Handler(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.headers.get("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        assert self.path == "/v1/traces" and self.headers["Content-Type"] == "application/x-protobuf"
        assert isinstance(self.server, Collector)
        self.server.requests.append(ExportTraceServiceRequest.FromString(body))
        self.send_response(200)
        self.send_header("Content-Type", "application/x-protobuf")
        self.end_headers()
        self.wfile.write(ExportTraceServiceResponse().SerializeToString())

    def log_message(self, format: str, *args: Any) -> None:
        pass


@pytest.fixture
def collector(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    with Collector() as made:
        threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        monkeypatch.setenv(tracing.ENDPOINT, f"http://127.0.0.1:{made.server_address[1]}")
        assert tracing.setup("one")
        yield made
        tracing.stop()
        made.shutdown()


def attributes(span: Any) -> dict[str, Any]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in span.attributes}


def test_all_of_a_job_is_one_trace(collector: Collector) -> None:
    job = tracing.span("job", job_id=JOB, repo="acme/tiny")
    with job, tracing.span("step", job_id=JOB, stage="export"), tracing.span("export", backend="xnnpack"):
        pass
    tracing.stop()
    spans = {span.name: span for span in collector.spans}
    assert set(spans) == {"job", "step", "export"}
    assert {span.trace_id.hex() for span in spans.values()} == {JOB}
    assert spans["step"].parent_span_id == spans["job"].span_id
    assert spans["export"].parent_span_id == spans["step"].span_id
    assert attributes(spans["job"]) == {"ptebot.repo": "acme/tiny", "ptebot.job_id": JOB}
    assert attributes(spans["export"]) == {"ptebot.backend": "xnnpack"}
    known = {one.key: one.value.string_value for one in collector.requests[0].resource_spans[0].resource.attributes}
    assert known["service.name"] == "ptebot" and known["service.instance.id"] == "one"


def test_steps_of_a_job_on_two_workers_are_one_trace(collector: Collector) -> None:
    for _ in range(2):
        with tracing.span("step", job_id=JOB):
            pass
    tracing.stop()
    first, second = collector.spans
    assert first.trace_id == second.trace_id == bytes.fromhex(JOB)
    assert first.parent_span_id == second.parent_span_id != b"" and first.span_id != second.span_id


def test_a_failure_is_told_by_its_class_alone(collector: Collector) -> None:
    for error in (HubUnreachable("https://user:hunter2@host"), ValueError("hunter2")):
        with pytest.raises(type(error)), tracing.span("step", job_id=JOB):
            raise error
    tracing.stop()
    assert [(span.status.code, span.status.message) for span in collector.spans] == [
        (2, "HubUnreachable"),
        (2, "ValueError"),
    ]
    assert attributes(collector.spans[0])["ptebot.exit_code"] == 30
    assert not any(b"hunter2" in request.SerializeToString() for request in collector.requests)


def test_requests(collector: Collector) -> None:
    async def ok(_: Any) -> PlainTextResponse:
        with tracing.span("inner"):
            return PlainTextResponse("ok")

    async def broken(_: Any) -> PlainTextResponse:
        raise ValueError("hunter2")

    app = Access(Starlette(routes=[Route("/jobs/{job_id}", ok), Route("/broken", broken)]))
    parent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    with serving(app) as served:
        served.get("/jobs/abc?secret=hunter2", {"traceparent": parent, "Authorization": "Bearer hunter2"})
        served.get("/broken")
    tracing.stop()
    by_name: dict[str, list[Any]] = {}
    for span in collector.spans:
        by_name.setdefault(span.name, []).append(span)
    first, second = by_name["HTTP GET"]
    assert first.trace_id.hex() == parent.split("-")[1] and first.parent_span_id.hex() == parent.split("-")[2]
    assert attributes(first) == {
        "http.request.method": "GET",
        "http.route": "/jobs/{job_id}",
        "http.response.status_code": 200,
    }
    assert by_name["inner"][0].parent_span_id == first.span_id
    assert attributes(second)["http.response.status_code"] == 500 and second.status.code == 2
    assert not any(b"hunter2" in request.SerializeToString() for request in collector.requests)


def test_nothing_is_sent_where_no_collector_is_named() -> None:
    assert not tracing.setup(env={})
    with tracing.span("job", job_id=JOB):
        pass
    tracing.stop()


WITHOUT = """
import sys
class Without:
    def find_spec(self, name, path=None, target=None):
        if name.split(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Without())
import importlib.util
real = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name.startswith("opentelemetry") else real(name, package)
from bot.server import tracing
assert not tracing.setup(env={tracing.ENDPOINT: "http://127.0.0.1:1"})
with tracing.span("job", job_id="0af7651916cd43dd8448eb211c80319c"), tracing.request({"headers": []}) as span:
    span.end("/", 200)
print("fine")
"""


def test_without_the_packages_it_is_told_and_nothing_breaks() -> None:
    done = subprocess.run([sys.executable, "-c", WITHOUT], capture_output=True, text=True, check=True)
    assert done.stdout == "fine\n" and "pip install 'ptebot[otel]'" in done.stderr
