"""Spans reach a real OTLP collector, under the trace that the caller began, from every process a call passes."""

import secrets
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.proto.trace.v1 import trace_pb2
from tritonclient.grpc import service_pb2_grpc

from tests import graphs
from tests.platform import USD, Platform
from tests.robustness.traffic import tiny_request


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """Keeps the spans it is sent, with the process that made them."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, trace_pb2.Span]] = []

    def Export(self, request, context):  # type: ignore[no-untyped-def]  # noqa: N802
        for resource in request.resource_spans:
            names = {a.key: a.value.string_value for a in resource.resource.attributes}
            for scope in resource.scope_spans:
                self.spans += [(names["service.instance.id"], span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
def collector() -> Iterator[tuple[Collector, str]]:
    server, made = grpc.server(ThreadPoolExecutor(2)), Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(made, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    yield made, f"http://127.0.0.1:{port}"
    server.stop(None).wait()


def test_a_call_is_one_trace(own_platform: Callable[..., Platform], collector: tuple[Collector, str]) -> None:
    kept, endpoint = collector
    platform = own_platform(env={"MERCAT_TRACE_ENDPOINT": endpoint, "MERCAT_TRACE_RATIO": "0"})
    model = platform.publish(platform.publisher(), graphs.tiny(), batch=8, price={"requests": 10**9})
    consumer = platform.sign_up(credit=USD)
    trace_id, parent = secrets.token_hex(16), secrets.token_hex(8)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(platform.channel)
    stub.ModelInfer(
        tiny_request(model), metadata=[*consumer.metadata, ("traceparent", f"00-{trace_id}-{parent}-01")], timeout=10
    )
    deadline = time.monotonic() + 10
    found: dict[str, tuple[str, trace_pb2.Span]] = {}
    infer, lease = "inference.GRPCInferenceService/ModelInfer", "mercat.billing.v1.LeaseService/AcquireLease"
    while not {infer, lease, "ingress"} <= found.keys() and time.monotonic() < deadline:  # each process sends its own
        time.sleep(0.1)
        found = {s.name: (process, s) for process, s in kept.spans if s.trace_id.hex() == trace_id}
    assert {name: process for name, (process, _) in found.items() if name in (infer, lease, "ingress")} == {
        "ingress": "envoy", infer: "worker-0", lease: "control"
    }  # fmt: skip
    spans = {name: span for name, (_, span) in found.items()}
    assert spans["ingress"].parent_span_id.hex() == parent
    assert spans[infer].parent_span_id == spans["ingress"].span_id
    stages = [spans[name] for name in ("queue", "engine", "meter")]
    assert all(s.parent_span_id == spans[infer].span_id for s in stages)
    times = [t for s in stages for t in (s.start_time_unix_nano, s.end_time_unix_nano)]
    assert times == sorted(times)
    assert spans[infer].start_time_unix_nano <= times[0] < times[-1] <= spans[infer].end_time_unix_nano + 10**6
    # With a ratio of nothing, only what a caller asked for is traced.
    assert [(p, s.name) for p, s in kept.spans if s.trace_id.hex() != trace_id] == []


def test_the_front_door_begins_traces(own_platform: Callable[..., Platform], collector: tuple[Collector, str]) -> None:
    kept, endpoint = collector
    platform = own_platform(env={"MERCAT_TRACE_ENDPOINT": endpoint, "MERCAT_TRACE_RATIO": "1"})
    platform.sign_up()
    deadline = time.monotonic() + 10
    name = "mercat.auth.v1.AuthService/SignUp"
    while name not in {span.name for _, span in kept.spans} and time.monotonic() < deadline:
        time.sleep(0.1)
    (under,) = [span for _, span in kept.spans if span.name == name]
    begun: dict[bytes, trace_pb2.Span] = {}
    while under.parent_span_id not in begun and time.monotonic() < deadline:  # the front door sends its own later
        time.sleep(0.1)
        begun = {span.span_id: span for process, span in kept.spans if process == "envoy"}
    assert begun[under.parent_span_id].trace_id == under.trace_id
    assert begun[under.parent_span_id].parent_span_id == b""
