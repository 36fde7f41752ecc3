"""What a worker says of its models: Triton's metrics under Triton's names, histograms of where the time went, and the
same over Triton's statistics call."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator

import grpc
import pytest
from mercat.inference.v1 import inference_pb2, inference_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from tests import graphs
from tests.metrics import scrape
from tests.platform import Account, Platform

CALLS = 12
LOOPS = 30_000  # about 20 ms


class Caller:
    def __init__(self, platform: Platform, person: Account, channel: grpc.aio.Channel) -> None:
        self.platform, self.person = platform, person
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)

    async def call(self, model: str, *values: int, timeout: float = 30, name: str = "x") -> list[bytes]:
        raw = b"".join(value.to_bytes(8, "little") for value in values)
        tensor = inference_pb2.Tensor(name=name, shape=[len(values)], raw=raw)
        request = inference_pb2.PredictRequest(model=model, inputs=[tensor])
        answer = await self._stub.Predict(request, metadata=self.person.metadata, timeout=timeout)
        return [output.raw for output in answer.outputs]

    async def figures(self, model: str) -> Counter[tuple[str, str]]:
        """The worker's samples for a model, by name and upper bound."""
        samples = await asyncio.to_thread(scrape, self.platform, "worker-0")
        return Counter({(name, le): value for (name, of, le), value in samples.items() if of == model})


@pytest.fixture(scope="module")
def publisher(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture
async def caller(platform: Platform) -> AsyncIterator[Caller]:
    person = await asyncio.to_thread(platform.sign_up)
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        yield Caller(platform, person, channel)


async def test_calls_rows_and_runs_are_counted_as_triton_counts_them(
    platform: Platform, publisher: Account, caller: Caller
) -> None:
    model = await asyncio.to_thread(lambda: platform.publish(publisher, graphs.slow(LOOPS, "N"), batch=32))
    await caller.call(model, 1)
    await asyncio.gather(*(caller.call(model, n, n) for n in range(CALLS)))
    f = await caller.figures(model)
    rows, runs = f["nv_inference_count", ""], f["nv_inference_exec_count", ""]
    assert f["nv_inference_request_success", ""] == CALLS + 1
    assert f["nv_inference_request_failure", ""] == 0
    assert rows == 2 * CALLS + 1
    assert 2 <= runs < CALLS  # calls that waited ran together
    assert f["mercat_inference_batch_rows_count", ""] == runs
    assert f["mercat_inference_batch_rows_sum", ""] == rows
    assert f["mercat_inference_batch_rows_bucket", "1"] == 1  # the first call
    assert f["mercat_inference_batch_rows_bucket", "32"] == runs
    stub = service_pb2_grpc.GRPCInferenceServiceStub(platform.channel)
    (stats,) = stub.ModelStatistics(
        service_pb2.ModelStatisticsRequest(name=model), metadata=caller.person.metadata
    ).model_stats
    assert (stats.inference_count, stats.execution_count) == (rows, runs)
    assert stats.inference_stats.success.count == CALLS + 1
    assert stats.inference_stats.compute_infer.count == runs
    assert abs(stats.last_inference / 1000 - time.time()) < 30


async def test_the_time_of_a_call_is_its_wait_and_its_run(
    platform: Platform, publisher: Account, caller: Caller
) -> None:
    model = await asyncio.to_thread(lambda: platform.publish(publisher, graphs.slow(LOOPS * 5)))
    await caller.call(model, 1)
    alone = await caller.figures(model)
    began = time.perf_counter()
    await asyncio.gather(*(caller.call(model, n) for n in range(4)))
    took = time.perf_counter() - began
    f = await caller.figures(model)
    f.subtract(alone)
    compute, queue = f["mercat_inference_compute_seconds_sum", ""], f["mercat_inference_queue_seconds_sum", ""]
    whole = f["mercat_inference_request_seconds_sum", ""]
    print(f"4 calls in {took:.2f} s: runs {compute:.2f} s, waits {queue:.2f} s, calls {whole:.2f} s")
    names = ("compute", "queue", "request")
    assert [f[f"mercat_inference_{name}_seconds_count", ""] for name in names] == [4, 4, 4]
    assert 0.5 * took < compute <= took  # one run goes at a time
    assert queue > 0.5 * compute  # the second waits for one run, the third for two, the fourth for three
    assert queue + compute <= whole <= 4 * took
    assert alone["mercat_inference_queue_seconds_bucket", "0.025"] == 1  # whoever is alone does not wait
    assert f["mercat_inference_compute_seconds_bucket", "+Inf"] == 4
    assert f["mercat_inference_compute_seconds_bucket", "0.01"] == 0


async def test_failures_and_refusals_are_counted_apart(platform: Platform, publisher: Account, caller: Caller) -> None:
    lookup = await asyncio.to_thread(lambda: platform.publish(publisher, graphs.lookup(), batch=4))
    assert await caller.call(lookup, 3, name="index") == [(9).to_bytes(8, "little")]
    with pytest.raises(grpc.RpcError):
        await caller.call(lookup, 7, name="index")  # the graph itself refuses it
    f = await caller.figures(lookup)
    assert (f["nv_inference_request_success", ""], f["nv_inference_request_failure", ""]) == (1, 1)
    assert f["mercat_inference_refused_total", ""] == 0
    slow = await asyncio.to_thread(lambda: platform.publish(publisher, graphs.slow(LOOPS * 20)))
    await caller.call(slow, 1)
    running = asyncio.create_task(caller.call(slow, 1))
    await asyncio.sleep(0.1)
    with pytest.raises(grpc.RpcError):
        await caller.call(slow, 1, timeout=0.2)
    await running
    f = await caller.figures(slow)
    assert (f["nv_inference_request_success", ""], f["nv_inference_request_failure", ""]) == (2, 0)
    assert f["mercat_inference_refused_total", ""] == 1
    assert f["mercat_inference_late_starts_total", ""] == 0


async def test_residency_is_measured(platform: Platform, publisher: Account, caller: Caller) -> None:
    before = await asyncio.to_thread(scrape, platform, "worker-0")
    graph = graphs.tiny(99)
    model = await asyncio.to_thread(lambda: platform.publish(publisher, graph, batch=4))
    stub = service_pb2_grpc.GRPCInferenceServiceStub(platform.channel)
    stub.ModelReady(service_pb2.ModelReadyRequest(name=model), metadata=caller.person.metadata, timeout=30)
    after = await asyncio.to_thread(scrape, platform, "worker-0")

    def grown(name: str) -> float:
        return after[name, "", ""] - before[name, "", ""]

    assert grown("mercat_models_resident") == 1
    assert grown("mercat_models_resident_bytes") == len(graph)
    assert grown("mercat_model_load_seconds_count") == 1
    assert after["mercat_model_cold_start_seconds", model, ""] == pytest.approx(grown("mercat_model_load_seconds_sum"))
