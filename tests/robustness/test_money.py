"""Money survives what happens to the processes around it (cases 1, 2, 5, 7, 8, 9)."""

import asyncio
import os
import random
import secrets
import signal
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import grpc
import nats
import pytest
from mercat.billing.v1 import billing_pb2
from nats.aio.msg import Msg

from services.common.errors import from_rpc_error
from services.common.events import USAGE_STREAM, USAGE_SUBJECT, Events
from tests.metrics import total
from tests.platform import USD, Account, Platform
from tests.robustness.oracle import drained, judge, valid
from tests.robustness.run import CREDIT, PACE, PRICE, Start, kill, priced
from tests.robustness.traffic import Caller, Seen
from tests.sizes import Size

pytestmark = pytest.mark.case

ACK_WAIT = 10.0  # seconds after which a silent consumer's messages come back
CALL_STEPS = ("inference.before_reserve", "inference.after_engine")
MESSAGE_STEPS = ("inference.before_ack", "inference.after_ack", "usage.stored", "usage.before_ack")


@pytest.fixture(scope="module")
def model(pair: Platform) -> str:
    return priced(pair)


async def test_credit_for_ten_calls_and_two_hundred_at_once(pair: Platform, model: str, size: Size) -> None:
    """Case 9, over two workers: exactly ten succeed and the balance is never negative."""
    credit, all_of_them = 10 * PRICE, Seen()
    for _ in range(size.of(100, 3)):
        consumer = pair.sign_up(credit=credit)
        caller = Caller(pair.grpc, consumer.api_key, model)
        lowest = credit
        running = asyncio.gather(caller.at_once(caller.call() for _ in range(200)))
        while not running.done():
            lowest = min(lowest, await asyncio.to_thread(consumer.balance))
        (ended,) = await running
        assert ended.count("OK") == 10
        assert ended.count("RESOURCE_EXHAUSTED") == 190
        assert lowest >= 0
        await caller.channel.close()
        await asyncio.to_thread(judge, pair, consumer, caller.seen, credit=credit, price=PRICE, rate=False)
        all_of_them.calls += caller.seen.calls
        all_of_them.seconds += caller.seen.seconds
    valid(all_of_them)


async def test_usage_consumer_killed_over_and_over(
    pair: Platform, model: str, start: Start, size: Size, seed: random.Random
) -> None:
    """Case 1: SIGKILL of the process that stores and posts usage, while calls go on."""
    kills = size.of(50, 4)
    run = start(pair, model, in_flight=16, pays=True, pace=PACE)
    for _ in range(kills):
        await asyncio.sleep(seed.uniform(0.2, 1.2))
        await kill(pair, "control")
    await run.until(size.calls)
    assert not run.seen.hintless
    verdict = await run.judged(backlog=30)
    print(f"oracle L: {kills} kills in {run.seen.seconds:.0f} s")
    assert verdict.ok >= size.calls


async def test_killed_at_each_step(
    own_platform: Callable[..., Platform], start: Start, size: Size, seed: random.Random
) -> None:
    """Cases 1 and 2: a worker, and the consumer of usage, die by SIGKILL at each step of a call; its idempotency key
    afterwards charges nothing more."""
    rounds = size.of(5, 1)
    passes = {step: seed.randrange(20, 60) for step in CALL_STEPS} | {s: seed.randrange(2, 9) for s in MESSAGE_STEPS}
    failpoints = ",".join(f"{step}={at}" for step, at in passes.items())
    platform = own_platform(workers=1, env={"MERCAT_FAILPOINTS": failpoints})
    markers = [platform.home / "run" / f"failpoint.{step}" for step in passes]
    run = start(platform, priced(platform), in_flight=32, keyed=True)
    for n in range(1, rounds + 1):
        if n > 1:  # new processes, which count their passes from the first one
            for marker in markers:
                marker.unlink()
            for part in ("control", "worker-0"):
                await kill(platform, part)
        await until_passed(markers)
        await run.until(size.calls * n // rounds)
    await run.rest()
    for part in ("control", "worker-0"):
        await asyncio.to_thread(platform.until_ready, part)
    # Every attempt without an answer was one at a call that has been answered since: the ledger must know just these.
    run.seen.unknown = 0
    again = seed.sample(sorted(run.seen.keyed), 100)
    assert await run.caller.at_once(run.caller.once(key) for key in again) == ["OK"] * 100
    verdict = await run.judged()
    print(f"oracle L: {rounds * len(passes)} kills, at {', '.join(passes)}")
    assert verdict.ok == verdict.rows == len(run.seen.keyed) >= size.calls


async def until_passed(markers: list[Path]) -> None:
    """Returns when a process has died at each step."""
    async with asyncio.timeout(120):
        while not all(marker.exists() for marker in markers):
            await asyncio.sleep(0.1)


async def test_a_paused_consumer_posts_once(
    pair: Platform, model: str, start: Start, size: Size, seed: random.Random
) -> None:
    """Case 7: the consumer sleeps past its ack wait and wakes up again."""
    pauses, calls = size.of(5, 1), max(size.calls, 3_000)  # fewer would be too few a second
    run = start(pair, model)
    for n in range(1, pauses + 1):
        await run.until(calls * (2 * n - 1) // (2 * pauses))
        pid = pair.pids()["control"]
        os.kill(pid, signal.SIGSTOP)
        try:
            await asyncio.sleep(ACK_WAIT + seed.uniform(0.5, 3))
        finally:
            os.kill(pid, signal.SIGCONT)
        await run.until(calls * n // pauses)
    await asyncio.to_thread(pair.until_ready, "control")
    await run.judged()


async def test_one_key_a_hundred_times_at_once(pair: Platform, size: Size) -> None:
    """Case 8: one execution and one charge, also of a top-up; the key is refused with another body."""
    model, keys = priced(pair), size.of(200, 5)
    consumer = pair.sign_up(credit=CREDIT)
    caller, other = (Caller(pair.grpc, consumer.api_key, model, fill=fill) for fill in (0, 1))
    for n in range(1, keys + 1):
        key = secrets.token_hex(8)
        assert await caller.at_once(caller.once(key) for _ in range(100)) == ["OK"] * 100
        assert len(caller.seen.ok) == n
        assert await other.call(key=key) == "FAILED_PRECONDITION"
    assert dict(other.seen.errors) == {"FAILED_PRECONDITION IDEMPOTENCY_KEY_REUSED": keys}
    assert await asyncio.to_thread(total, pair, "nv_inference_count", model) == keys
    for c in (caller, other):
        await c.channel.close()
    await asyncio.to_thread(judge, pair, consumer, caller.seen, credit=CREDIT, price=PRICE)
    await asyncio.to_thread(top_up_at_once, consumer)
    assert consumer.balance() == CREDIT - keys * PRICE + USD


def top_up_at_once(person: Account) -> None:
    """Adds one dollar, a hundred times under one key."""
    metadata = (("idempotency-key", secrets.token_hex(8)),)

    def once(nanos: int) -> str:
        try:
            answer = person.billing.TopUpWallet(billing_pb2.TopUpWalletRequest(amount_nanos=nanos), metadata=metadata)
            return str(answer.transaction.transaction_id)
        except grpc.RpcError as e:
            return from_rpc_error(e).reason

    with ThreadPoolExecutor(100) as pool:
        ended = set(pool.map(once, [USD] * 100)) - {"IDEMPOTENCY_KEY_RUNNING"}
    assert ended == {once(USD)}
    assert once(2 * USD) == "IDEMPOTENCY_KEY_REUSED"


async def test_usage_published_again_posts_nothing(pair: Platform, model: str, size: Size, seed: random.Random) -> None:
    """Case 5: what workers published is published again, as it was, past any window of the broker's."""
    client = await nats.connect(pair.nats_url())
    published: list[bytes] = []

    async def heard(message: Msg) -> None:
        published.append(message.data)

    await client.subscribe(USAGE_SUBJECT, cb=heard)
    consumer = pair.sign_up(credit=CREDIT)
    caller = Caller(pair.grpc, consumer.api_key, model)
    await caller.many(size.calls)
    await caller.channel.close()
    await client.close()
    before = await asyncio.to_thread(judge, pair, consumer, caller.seen, credit=CREDIT, price=PRICE)
    count = max(len(published), size.of(10_000, 500))
    again = (published * (count // len(published) + 1))[:count]
    seed.shuffle(again)
    await republish(pair, again)
    await asyncio.to_thread(drained, pair, within=300)
    after = await asyncio.to_thread(judge, pair, consumer, caller.seen, credit=CREDIT, price=PRICE)
    print(f"oracle L: {len(published)} messages were published again {count} times")
    assert (after.rows, after.postings, after.spent) == (before.rows, before.postings, before.spent)


async def republish(platform: Platform, messages: list[bytes]) -> None:
    """Rebuilds the stream, which then knows of no earlier message, and publishes these."""
    events = await Events.connect(platform.nats_url(), "tests")
    try:
        await events.js.delete_stream(USAGE_STREAM)
        await events._ensure_streams()
        for at in range(0, len(messages), 100):
            await asyncio.gather(*(events.js.publish(USAGE_SUBJECT, data) for data in messages[at : at + 100]))
    finally:
        await events.close()
