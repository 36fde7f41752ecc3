"""Calls that wait: higher classes first, a bounded queue that lower ones leave to higher ones, a time for which a call
may wait at most, and batches of the sizes that the model prefers."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from mercat.inference.v1 import inference_pb2, inference_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.common.errors import from_rpc_error
from tests import graphs
from tests.integration.inference import many
from tests.metrics import scrape
from tests.platform import USD, Account, Platform

pytestmark = pytest.mark.alone

PRICE = 1_000_000  # nanos a call
PRICES = {"requests": PRICE * 1_000_000}
TENTH = 150_000  # loops that take about a tenth of a second


class Caller:
    """Calls a model, and remembers in which order calls ended."""

    def __init__(self, channel: grpc.aio.Channel, person: Account) -> None:
        self.person = person
        self.ended: list[tuple[str, str]] = []  # what each call is to the test, and OK or the reason of its error
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)

    async def call(self, model: str, what: str, priority: int = 0, value: int = 1) -> str:
        tensor = inference_pb2.Tensor(name="x", shape=[1], raw=value.to_bytes(8, "little"))
        request = inference_pb2.PredictRequest(model=model, inputs=[tensor], priority=priority)
        try:
            answer = await self._stub.Predict(request, metadata=self.person.metadata, timeout=30)
            assert int.from_bytes(answer.outputs[0].raw, "little") == value
            outcome = "OK"
        except grpc.RpcError as e:
            error = from_rpc_error(e)
            outcome = error.reason
            assert outcome != "QUEUE_FULL" or error.retry_after
        self.ended.append((what, outcome))
        return outcome

    async def start(self, count: int, *args: Any) -> list["asyncio.Task[str]"]:
        """So many calls at once, all of them on their way when it returns."""
        tasks = [asyncio.create_task(self.call(*args)) for _ in range(count)]
        await asyncio.sleep(0.05)
        return tasks

    def outcomes(self, what: str) -> list[str]:
        return [outcome for name, outcome in self.ended if name == what]


@pytest.fixture(scope="module")
def publisher(platform: Platform) -> Account:
    return platform.publisher()


@pytest.fixture
async def caller(platform: Platform) -> AsyncIterator[Caller]:
    person = await asyncio.to_thread(lambda: platform.sign_up(credit=USD))
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        yield Caller(channel, person)


async def published(platform: Platform, publisher: Account, caller: Caller, loops: int, **settings: Any) -> str:
    """A slow model that is loaded and was called once."""
    length = "N" if settings.get("batch") else 1
    model = await asyncio.to_thread(
        lambda: platform.publish(publisher, graphs.slow(loops, length), price=PRICES, **settings)
    )
    await caller.call(model, "first")
    return model


async def test_higher_classes_go_first(platform: Platform, publisher: Account, caller: Caller) -> None:
    model = await published(platform, publisher, caller, TENTH, priority_levels=3)
    waiting = await caller.start(2, model, "before")
    for what, priority in (("low", 3), ("middle", 0), ("high", 1)):
        waiting += await caller.start(3, model, what, priority)
    await asyncio.gather(*waiting)
    order = [what for what, _ in caller.ended]
    print(order)
    assert caller.outcomes("low") == caller.outcomes("middle") == caller.outcomes("high") == ["OK"] * 3
    # One may have been on its way into the engine when those came that go before it.
    lows, middles, highs = ([i for i, name in enumerate(order) if name == w] for w in ("low", "middle", "high"))
    assert highs[-1] < middles[1]
    assert middles[-1] < lows[1]


async def test_a_full_queue_is_left_to_higher_classes(platform: Platform, publisher: Account, caller: Caller) -> None:
    model = await published(platform, publisher, caller, 3 * TENTH, priority_levels=2, max_queue_size=3)
    low = await caller.start(10, model, "low", 2)
    refused = [task.result() for task in low if task.done()]
    assert set(refused) == {"QUEUE_FULL"}  # at once, those for which there is no room
    assert len(refused) >= 5
    high = await caller.start(3, model, "high", 1)
    await asyncio.gather(*low, *high)
    assert caller.outcomes("high") == ["OK"] * 3
    assert caller.outcomes("low").count("QUEUE_FULL") > len(refused)  # some that had waited made room
    assert set(caller.outcomes("low")) == {"QUEUE_FULL", "OK"}
    answered = caller.outcomes("low").count("OK") + 4
    assert len(await asyncio.to_thread(many.records, caller.person, answered)) == answered
    assert USD - await asyncio.to_thread(caller.person.balance) == answered * PRICE  # the others are free


async def test_no_call_waits_longer_than_its_model_lets_it(
    platform: Platform, publisher: Account, caller: Caller
) -> None:
    model = await published(platform, publisher, caller, 8 * TENTH, queue_timeout_us=200_000)
    running = await caller.start(1, model, "running")
    began = time.perf_counter()
    assert await caller.call(model, "waiting") == "DEADLINE_EXCEEDED"
    assert time.perf_counter() - began < 0.5  # also at once, since it is known how long a run takes
    await asyncio.gather(*running)
    assert caller.outcomes("running") == ["OK"]


async def test_batches_are_of_the_sizes_that_the_model_prefers(
    platform: Platform, publisher: Account, caller: Caller
) -> None:
    model = await published(platform, publisher, caller, TENTH // 5, batch=32, preferred_batch_sizes=[8])
    callers = 24

    async def again_and_again() -> None:
        for value in range(10):
            await caller.call(model, "batched", 0, value)

    await asyncio.gather(*(again_and_again() for _ in range(callers)))
    assert caller.outcomes("batched") == ["OK"] * 10 * callers
    figures = await asyncio.to_thread(scrape, platform, "worker-0")
    up_to = {size: figures["mercat_inference_batch_rows_bucket", model, size] for size in ("4", "8", "+Inf")}
    of_eight = up_to["8"] - up_to["4"]
    print(f"{up_to['+Inf']:.0f} runs, {of_eight:.0f} of 5 to 8 rows, {up_to['+Inf'] - up_to['8']:.0f} of more")
    assert figures["nv_inference_count", model, ""] == 10 * callers + 1
    assert of_eight > 0.7 * up_to["+Inf"]
    assert up_to["+Inf"] == up_to["8"]


async def test_tritons_priority_is_the_class(platform: Platform, publisher: Account, caller: Caller) -> None:
    """The parameter `priority` of KServe's request, as Triton's client sends it."""
    model = await published(platform, publisher, caller, TENTH, priority_levels=2)
    stub = service_pb2_grpc.GRPCInferenceServiceStub(platform.channel)

    def infer(what: str, priority: int) -> None:
        request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[bytes(8)])
        request.inputs.add(name="x", datatype="INT64", shape=[1])
        request.parameters["priority"].uint64_param = priority
        stub.ModelInfer(request, metadata=caller.person.metadata, timeout=30)
        caller.ended.append((what, "OK"))

    running = await caller.start(2, model, "before", 1)
    low = [asyncio.create_task(asyncio.to_thread(infer, "low", 2)) for _ in range(3)]
    await asyncio.sleep(0.05)
    high = [asyncio.create_task(asyncio.to_thread(infer, "high", 1)) for _ in range(3)]
    await asyncio.gather(*running, *low, *high)
    order = [what for what, _ in caller.ended]
    assert (
        max(i for i, what in enumerate(order) if what == "high")
        < [i for i, what in enumerate(order) if what == "low"][1]
    )
