"""Deadlines reach the queue and the engine: what cannot end in time is refused at once, nothing runs for a caller who
is gone, and a run that nobody waits for any more ends. None of it is charged."""

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from mercat.inference.v1 import inference_pb2, inference_pb2_grpc
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.common.errors import MercatError, from_rpc_error
from tests import graphs
from tests.metrics import total
from tests.platform import USD, Account, Platform

pytestmark = pytest.mark.alone

PRICE = 1_000_000  # nanos a call
AGES = 2_000_000_000  # a number that it takes minutes to count to


@pytest.fixture(scope="module")
def model(platform: Platform) -> str:
    """Counts to any number, one call at a time."""
    return platform.publish(platform.publisher(), graphs.count(), price={"requests": PRICE * 1_000_000})


@pytest.fixture(scope="module")
async def pace(platform: Platform, model: str) -> float:
    """What it counts in a second."""
    person, n = platform.sign_up(credit=USD), 300_000
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        caller = Counting(channel, person, model)
        await caller.count(1)
        began = time.perf_counter()
        await caller.count(n)
        return n / (time.perf_counter() - began)


class Counting:
    """A person who has the model count."""

    def __init__(self, channel: grpc.aio.Channel, person: Account, model: str, tensor: str = "n") -> None:
        self.person, self.model, self.tensor = person, model, tensor
        self._channel = channel
        self._stub = inference_pb2_grpc.InferenceServiceStub(channel)

    def start(self, n: int, timeout: float = 60) -> Any:
        tensor = inference_pb2.Tensor(name=self.tensor, shape=[1], raw=n.to_bytes(8, "little"))
        request = inference_pb2.PredictRequest(model=self.model, inputs=[tensor])
        return self._stub.Predict(request, metadata=self.person.metadata, timeout=timeout)

    async def count(self, n: int, timeout: float = 60) -> int:
        answer = await self.start(n, timeout)
        return int.from_bytes(answer.outputs[0].raw, "little")

    async def refused(self, n: int, timeout: float) -> tuple[MercatError, float]:
        """The error, and the seconds until it was there."""
        began = time.perf_counter()
        with pytest.raises(grpc.RpcError) as e:
            await self.count(n, timeout)
        return from_rpc_error(e.value), time.perf_counter() - began

    async def runs(self) -> int:
        return int(await asyncio.to_thread(total, self.person.platform, "nv_inference_exec_count", self.model))

    async def charged(self, calls: int) -> None:
        """Asserts that so many calls were paid for, no fewer and, a moment later, no more."""
        deadline = time.monotonic() + 10
        while (spent := USD - await asyncio.to_thread(self.person.balance)) < calls * PRICE:
            assert time.monotonic() < deadline
            await asyncio.sleep(0.05)
        await asyncio.sleep(0.5)
        spent = USD - await asyncio.to_thread(self.person.balance)
        assert spent == calls * PRICE


@pytest.fixture
async def caller(platform: Platform, model: str, pace: float) -> AsyncIterator[Counting]:
    person = await asyncio.to_thread(lambda: platform.sign_up(credit=USD))
    async with grpc.aio.insecure_channel(platform.grpc) as channel:
        yield Counting(channel, person, model)


async def test_what_cannot_end_in_time_is_refused_at_once(platform: Platform, caller: Counting, pace: float) -> None:
    price = {"requests": PRICE * 1_000_000}
    model = await asyncio.to_thread(platform.publish, platform.publisher(), graphs.slow(int(pace)), price=price)
    slow = Counting(caller._channel, caller.person, model, "x")
    assert await slow.count(5) == 5  # now it is known that a run takes a second
    running = asyncio.gather(*(slow.count(n) for n in range(3)))
    await asyncio.sleep(0.2)
    error, took = await slow.refused(6, timeout=1.5)  # the queue is three seconds long
    assert (error.code, error.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_TOO_CLOSE")
    assert took < 0.25
    assert await running == [0, 1, 2]
    assert await slow.runs() == 4
    await slow.charged(4)


async def test_nothing_runs_for_callers_who_left_the_queue(caller: Counting, pace: float) -> None:
    before = await caller.runs()
    half = int(pace / 2)
    first = caller.start(half)
    await asyncio.sleep(0.05)
    waiting = [caller.start(half) for _ in range(5)]
    await asyncio.sleep(0.1)
    for call in waiting:
        call.cancel()
    last = caller.start(half)
    began = time.perf_counter()
    await asyncio.gather(first, last)
    assert time.perf_counter() - began < 2.5  # and not for those between
    assert await caller.runs() == before + 2
    await caller.charged(2)


@pytest.mark.parametrize("how", ["cancelled", "past its deadline"])
async def test_a_run_that_nobody_waits_for_ends(caller: Counting, how: str) -> None:
    before = await caller.runs()
    began = time.perf_counter()
    if how == "cancelled":
        call = caller.start(AGES)
        await asyncio.sleep(0.5)
        call.cancel()
    else:
        error, took = await caller.refused(AGES, timeout=0.5)
        assert error.code is grpc.StatusCode.DEADLINE_EXCEEDED
        assert took < 1
    assert await caller.count(7) == 7  # the engine is free again
    took = time.perf_counter() - began
    print(f"a run of minutes, {how} after 0.5 s: the engine answered the next after {took:.2f} s")
    assert took < 1.5
    assert await caller.runs() == before + 1
    await caller.charged(1)


async def test_the_timeout_of_tritons_protocol_is_a_deadline(platform: Platform, caller: Counting) -> None:
    stub = service_pb2_grpc.GRPCInferenceServiceStub(caller._channel)
    request = service_pb2.ModelInferRequest(model_name=caller.model, raw_input_contents=[AGES.to_bytes(8, "little")])
    request.inputs.add(name="n", datatype="INT64", shape=[1])
    request.parameters["timeout"].int64_param = 300_000  # microseconds
    began = time.perf_counter()
    with pytest.raises(grpc.RpcError) as e:
        await stub.ModelInfer(request, metadata=caller.person.metadata, timeout=30)
    assert e.value.code() is grpc.StatusCode.DEADLINE_EXCEEDED
    assert time.perf_counter() - began < 1
    await caller.charged(0)


async def test_a_connection_that_breaks_ends_its_runs(platform: Platform, caller: Counting) -> None:
    """As when a client's machine dies: its connection goes, and with it what ran for it."""
    before = await caller.runs()
    channel = grpc.aio.insecure_channel(platform.grpc)
    call = Counting(channel, caller.person, caller.model).start(AGES)
    await asyncio.sleep(0.5)
    began = time.perf_counter()
    await channel.close()
    with pytest.raises((asyncio.CancelledError, grpc.RpcError)):
        await call
    assert await caller.count(7) == 7
    assert time.perf_counter() - began < 1
    assert await caller.runs() == before + 1
    await caller.charged(1)
