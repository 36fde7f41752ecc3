"""OpenTelemetry: a span for each sampled call, joined across processes by W3C trace context.

Without a collector nothing of this runs. With one, a call whose caller asked for a trace is traced, and of the others a
share (`MERCAT_TRACE_RATIO`)."""

import time
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import ParentBased, TraceIdRatioBased
from opentelemetry.trace import Span, SpanKind, StatusCode
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

_NAME = "mercat.rpc"
_propagator = TraceContextTextMapPropagator()


class Tracer:
    """Makes spans and sends them to a collector in the background."""

    def __init__(self, endpoint: str, ratio: float, process: str) -> None:
        resource = Resource.create({"service.name": "mercat", "service.instance.id": process})
        self._provider = TracerProvider(sampler=ParentBased(TraceIdRatioBased(ratio)), resource=resource)
        exporter = OTLPSpanExporter(endpoint=endpoint, insecure=not endpoint.startswith("https://"), timeout=5)
        self._provider.add_span_processor(BatchSpanProcessor(exporter, schedule_delay_millis=1000))
        trace.set_tracer_provider(self._provider)
        self._tracer = trace.get_tracer(_NAME)

    def start(self, method: str, request_id: str, traceparent: str) -> tuple[Span, str]:
        """A span of a call, and the `traceparent` that what it calls itself belongs under."""
        parent = _propagator.extract({"traceparent": traceparent}) if traceparent else None
        service, _, name = method[1:].partition("/")
        span = self._tracer.start_span(f"{service}/{name}", parent, SpanKind.SERVER)
        if span.is_recording():
            span.set_attributes(
                {"rpc.system": "grpc", "rpc.service": service, "rpc.method": name, "mercat.request_id": request_id}
            )
        carrier: dict[str, str] = {}
        _propagator.inject(carrier, trace.set_span_in_context(span))
        return span, carrier.get("traceparent", traceparent)

    def close(self) -> None:
        """Sends what waits. Blocks for at most some seconds."""
        self._provider.shutdown()


def stages(span: Span, *stages: tuple[str, float], **attributes: Any) -> None:
    """What a call did, one after the other, as spans under its own: each stage's name and when it began, on
    `time.perf_counter`'s clock. The last has just ended."""
    if not span.is_recording():
        return
    span.set_attributes(attributes)
    zero = time.time_ns() - time.perf_counter_ns()
    under, tracer = trace.set_span_in_context(span), trace.get_tracer(_NAME)
    begins = [zero + int(began * 1e9) for _, began in stages]
    ends = [*begins[1:], time.time_ns()]
    for (name, _), begin, end in zip(stages, begins, ends, strict=True):
        tracer.start_span(name, under, start_time=begin).end(end)


def end(span: Span | None, code: str, reason: str = "") -> None:
    """Ends a call's span with what the call ended with."""
    if span is None:
        return
    if span.is_recording():
        span.set_attribute("rpc.grpc.status", code)
        if code != "OK":
            span.set_status(StatusCode.ERROR, reason)
    span.end()
