"""Streams that are left, cut or lose their worker: everybody pays for what was delivered, and nothing stays taken."""

import asyncio
import random
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass

import grpc
import pytest
from mercat.billing.v1 import billing_pb2
from mercat.inference.v1 import text_pb2, text_pb2_grpc
from mercat.usage.v1 import usage_pb2

from services.common.errors import from_rpc_error
from tests.decoders import tiny_gguf
from tests.metrics import total
from tests.platform import USD, Account, Platform
from tests.robustness.oracle import usage_rows
from tests.sizes import Size

CREDIT = 100 * USD
PRICE = 1000  # nanos an output token
OWN_CONNECTION = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1)]


@dataclass
class Ended:
    """What the caller has of one stream."""

    request_id: str = ""
    tokens: int = 0
    code: grpc.StatusCode = grpc.StatusCode.OK
    cost: int | None = None


async def one(stub: text_pb2_grpc.TextServiceStub, who: Account, model: str, seed: int, leave_after: int) -> Ended:
    """A stream that is left after so many messages; 0: before any."""
    sampling = text_pb2.Sampling(max_tokens=40, seed=seed, logit_bias={0: -100, 2: -100})
    request = text_pb2.GenerateRequest(model=model, prompt="hello the world", sampling=sampling)
    call = stub.Generate(request, metadata=who.metadata, timeout=60)
    ended, seen = Ended(), 0
    try:
        while True:
            if seen == leave_after:
                call.cancel()
            message = await call.read()
            if message is grpc.aio.EOF:
                break
            seen += 1
            ended.request_id = message.request_id or ended.request_id
            ended.tokens += message.tokens
            if message.HasField("usage"):
                ended.cost = message.usage.cost_nanos
        ended.code = await call.code()
    except asyncio.CancelledError:
        ended.code = grpc.StatusCode.CANCELLED
    except grpc.aio.AioRpcError as e:
        ended.code = e.code()
    return ended


def spent(who: Account, rows: int, *, at_most: float = 60) -> tuple[int, dict[str, usage_pb2.UsageRecord]]:
    """What the wallet fell by, and the usage rows, once they agree, are as many at least, and no more are coming."""
    deadline, before = time.monotonic() + at_most, -1
    while True:
        records = {record.request_id: record for record in usage_rows(who)}
        fallen = CREDIT - who.balance()
        agree = len(records) >= rows and fallen == sum(r.cost_nanos for r in records.values())
        if (agree and len(records) == before) or time.monotonic() > deadline:
            return fallen, records
        before = len(records)
        time.sleep(1)


def released(who: Account) -> None:
    """Waits until nothing of the wallet is set aside any more."""
    deadline = time.monotonic() + 30  # idle leases come back after ten
    while reserved := who.billing.GetWallet(billing_pb2.GetWalletRequest()).wallet.reserved_nanos:
        assert time.monotonic() < deadline, f"{reserved} nanos are still reserved"
        time.sleep(0.5)


@pytest.mark.case
async def test_streams_left_at_random(pair: Platform, size: Size, seed: random.Random) -> None:
    """Case 10: a stream that is cancelled is charged for what was generated, the rest of the money is free."""
    publisher, consumer = pair.publisher(), pair.sign_up(credit=CREDIT)
    model = await asyncio.to_thread(pair.publish, publisher, tiny_gguf(7), price={"output_tokens": PRICE * 1_000_000})
    async with AsyncExitStack() as stack:
        # The front door ends a connection of 500 calls and more most of which were left within a second.
        stubs = [
            text_pb2_grpc.TextServiceStub(
                await stack.enter_async_context(grpc.aio.insecure_channel(pair.grpc, options=OWN_CONNECTION))
            )
            for _ in range(0, size.calls, 200)
        ]
        stub, window = stubs[0], asyncio.Semaphore(24)
        leave_after = seed.choices([0, 1, 2, 3, 5, 8, 13, 21, 1000], k=size.calls)

        async def run(n: int) -> Ended:
            async with window:
                return await one(stubs[n // 200], consumer, model, n, leave_after[n])

        ended = await asyncio.gather(*(run(n) for n in range(size.calls)))
        whole = [e for e in ended if e.cost is not None]
        left = [e for e in ended if e.cost is None]
        assert {e.code for e in left} == {grpc.StatusCode.CANCELLED}
        fallen, rows = await asyncio.to_thread(spent, consumer, len(whole))
        assert fallen == sum(r.cost_nanos for r in rows.values())
        for e in whole:
            assert rows[e.request_id].cost_nanos == e.cost == PRICE * e.tokens
        for e in left:
            if e.tokens:  # what was still on its way to the caller was delivered, too
                assert e.tokens <= rows[e.request_id].units["output_tokens"] <= 40
        print(f"\noracle L: {len(whole)} whole, {len(left)} left, {len(rows)} rows, {fallen} nanos")
        # Nothing stays taken: as many streams as there are slots run at once again, and the money is all there.
        again = await asyncio.gather(*(one(stub, consumer, model, n, 1000) for n in range(16)))
        assert all(e.cost is not None for e in again)
    assert total(pair, "mercat_text_streams") == 0
    await asyncio.to_thread(released, consumer)
    assert pair.admin().check_ledger().clean


@pytest.mark.case
async def test_a_worker_killed_under_streams(own_platform, seed_number: int) -> None:  # type: ignore[no-untyped-def]
    """Each of 16 callers is told, and none pays for a token that did not come."""
    platform: Platform = await asyncio.to_thread(own_platform)
    publisher, consumer = platform.publisher(), platform.sign_up(credit=CREDIT)
    graph = tiny_gguf(8, context=4096)
    model = await asyncio.to_thread(platform.publish, publisher, graph, price={"output_tokens": PRICE * 1_000_000})
    async with grpc.aio.insecure_channel(platform.grpc, options=[("grpc.enable_retries", 0)]) as channel:
        stub = text_pb2_grpc.TextServiceStub(channel)
        sampling = text_pb2.Sampling(max_tokens=1500, logit_bias={0: -100, 2: -100})
        request = text_pb2.GenerateRequest(model=model, prompt="hello", sampling=sampling)
        calls = [stub.Generate(request, metadata=consumer.metadata, timeout=60) for _ in range(16)]
        started = await asyncio.gather(*(call.read() for call in calls))
        assert all(message.tokens for message in started)
        await asyncio.to_thread(platform.kill, "worker-0")

        async def rest(call: grpc.aio.UnaryStreamCall) -> str:
            try:
                while await call.read() is not grpc.aio.EOF:
                    pass
            except grpc.aio.AioRpcError as e:
                return from_rpc_error(e).reason
            return "OK"

        # To plain gRPC it is a reset of the stream, for its headers have been sent; Mercat's clients say what it means.
        assert set(await asyncio.gather(*(rest(call) for call in calls))) == {"CONNECTION_BROKEN"}
    assert await asyncio.to_thread(spent, consumer, 0) == (0, {})
    assert platform.admin().check_ledger().clean
