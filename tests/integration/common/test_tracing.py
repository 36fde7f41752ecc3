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
    found: dict[str, str] = {}
    names = {"inference.GRPCInferenceService/ModelInfer", "mercat.billing.v1.LeaseService/AcquireLease"}
    while not names <= found.keys() and time.monotonic() < deadline:  # each process sends its own
        time.sleep(0.1)
        found = {span.name: process for process, span in kept.spans if span.trace_id.hex() == trace_id}
    assert found["inference.GRPCInferenceService/ModelInfer"] == "worker-0"
    assert found["mercat.billing.v1.LeaseService/AcquireLease"] == "control"
    # With a ratio of nothing, only what a caller asked for is traced.
    assert {span.trace_id.hex() for _, span in kept.spans} == {trace_id}
