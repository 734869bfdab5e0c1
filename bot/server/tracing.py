"""OpenTelemetry spans of requests, jobs, steps and exports, where the extra ``otel`` is there and a collector is named.

In: blocks of code. Out: spans, sent by OTLP over HTTP to OTEL_EXPORTER_OTLP_ENDPOINT; without it, or without the
packages, nothing happens. All that is done for one job is one trace, whichever process does it and however often it is
killed: the job's id is the trace's.
"""

from __future__ import annotations

import hashlib
import importlib.util
import logging
import os
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from exporter import __version__
from exporter.errors import PtebotError

ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT"
_JOB = re.compile(r"[0-9a-f]{32}")
log = logging.getLogger(__name__)
_tracer: Any = None
_provider: Any = None


def setup(worker: str = "", env: Mapping[str, str] | None = None) -> bool:
    """Begin to send spans, if a collector is named; whether they are sent."""
    global _tracer, _provider  # noqa: PLW0603 - as OpenTelemetry's own provider, one a process
    if not (os.environ if env is None else env).get(ENDPOINT):
        return False
    if importlib.util.find_spec("opentelemetry") is None or importlib.util.find_spec("opentelemetry.sdk") is None:
        log.warning("%s is set, but OpenTelemetry is not installed: pip install 'ptebot[otel]'", ENDPOINT)
        return False
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
    from opentelemetry.sdk.resources import Resource
    from opentelemetry.sdk.trace import TracerProvider
    from opentelemetry.sdk.trace.export import BatchSpanProcessor

    known = {"service.name": "ptebot", "service.version": __version__}
    if worker:
        known["service.instance.id"] = worker
    _provider = TracerProvider(resource=Resource.create(known))
    _provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    _tracer = _provider.get_tracer("ptebot", __version__)
    return True


def stop() -> None:
    """Send what is left, and end."""
    global _tracer, _provider  # noqa: PLW0603 - as above
    if _provider is not None:
        _provider.shutdown()
    _tracer = _provider = None


@contextmanager
def span(name: str, *, job_id: str | None = None, **attributes: str | int | float | None) -> Iterator[None]:
    """A span for the time of the block, within the job's trace where one is named; a failure is told by its class."""
    if _tracer is None:
        yield
        return
    from opentelemetry.trace import StatusCode

    known = {f"ptebot.{key}": value for key, value in attributes.items() if value is not None}
    if job_id is not None:
        known["ptebot.job_id"] = job_id
    context = _of_job(job_id) if job_id is not None else None
    with _tracer.start_as_current_span(
        name, context=context, attributes=known, record_exception=False, set_status_on_exception=False
    ) as made:
        try:
            yield
        except BaseException as error:
            # Never the exception's words: they come from a model, or hold an address with a signature.
            made.set_status(StatusCode.ERROR, type(error).__name__)
            if isinstance(error, PtebotError):
                made.set_attribute("ptebot.exit_code", error.exit_code)
            raise


def _of_job(job_id: str) -> Any:
    """The context of a job's trace, for its outermost span in this process; None within it already."""
    from opentelemetry import trace

    if not _JOB.fullmatch(job_id) or int(job_id, 16) == 0:
        return None
    current = trace.get_current_span().get_span_context()
    if current.is_valid and current.trace_id == int(job_id, 16):
        return None
    root = int.from_bytes(hashlib.sha256(job_id.encode()).digest()[:8], "big") or 1
    made = trace.SpanContext(int(job_id, 16), root, is_remote=True, trace_flags=trace.TraceFlags(1))
    return trace.set_span_in_context(trace.NonRecordingSpan(made))


class RequestSpan:
    """A request's span; told at its end what it was."""

    def __init__(self, made: Any = None) -> None:
        self._made = made

    def end(self, route: str, status: int) -> None:
        """``route``: the route's own pattern."""
        if self._made is None:
            return
        from opentelemetry.trace import StatusCode

        self._made.set_attribute("http.route", route)
        self._made.set_attribute("http.response.status_code", status)
        if status >= 500:
            self._made.set_status(StatusCode.ERROR)


@contextmanager
def request(scope: Mapping[str, Any]) -> Iterator[RequestSpan]:
    """A span for one request; a trace that the caller names is followed. No address: it may hold a secret."""
    if _tracer is None:
        yield RequestSpan()
        return
    from opentelemetry.propagate import extract
    from opentelemetry.trace import SpanKind

    headers = {key.decode("latin-1"): value.decode("latin-1") for key, value in scope["headers"]}
    parent = extract({name: headers[name] for name in ("traceparent",) if name in headers})
    method = scope["method"] if scope["method"] in ("GET", "HEAD", "POST") else "_OTHER"
    with _tracer.start_as_current_span(
        f"HTTP {method}",
        context=parent,
        kind=SpanKind.SERVER,
        attributes={"http.request.method": method},
        record_exception=False,
        set_status_on_exception=False,
    ) as made:
        yield RequestSpan(made)
