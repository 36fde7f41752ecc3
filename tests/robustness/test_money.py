"""Money survives what happens to the processes around it (cases 1, 2, 5, 7, 9)."""

import asyncio
import os
import random
import signal
import time
from collections.abc import Callable, Iterator

import pytest

from tests import graphs
from tests.platform import USD, Account, Platform
from tests.robustness.oracle import judge
from tests.robustness.traffic import Caller

PRICE = 1_000_000  # nanos a call
PER_MILLION = PRICE * 1_000_000
STEPS = ("before_reserve", "after_engine", "before_ack", "after_ack")


@pytest.fixture(scope="module")
def broken(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """A platform that these tests may hurt."""
    home = tmp_path_factory.mktemp("robustness") / "home"
    with Platform(home, workers=1, env={"MERCAT_RESTART_PAUSE": "1"}) as running:
        yield running


@pytest.fixture(scope="module")
def model(broken: Platform) -> str:
    return broken.publish(broken.publisher(), graphs.tiny(), batch=64, price={"requests": PER_MILLION})


def caller(platform: Platform, consumer: Account, model: str) -> Caller:
    return Caller(platform.grpc, consumer.api_key, model)


async def test_usage_consumer_killed_over_and_over(broken: Platform, model: str, seed: random.Random) -> None:
    """Case 1: SIGKILL of the process that stores and posts usage, while calls go on. `MERCAT_TEST_KILLS=50` makes it
    the whole case, in about three minutes."""
    kills = int(os.environ.get("MERCAT_TEST_KILLS", "5"))
    credit = 1000 * USD
    consumer = broken.sign_up(credit=credit)
    traffic = caller(broken, consumer, model)
    running = asyncio.create_task(traffic.many(10**9, in_flight=8, seconds=60 + 20 * kills))
    for _ in range(kills):
        await asyncio.sleep(seed.uniform(0.2, 1.2))
        died = broken.kill("control")
        await asyncio.to_thread(broken.until_ready, "control", died)
    traffic.stop()
    seen = await running
    print(f"{kills} kills in {seen.seconds:.0f} s")
    judge(broken, consumer, seen, credit=credit, price=PRICE)


@pytest.mark.parametrize("step", STEPS)
async def test_worker_killed_at_each_step(
    own_platform: Callable[..., Platform], step: str, seed: random.Random
) -> None:
    """Case 2: a worker dies by SIGKILL at a step of the call; its idempotency key afterwards charges nothing more."""
    at = seed.randrange(1, 3) if step.endswith("ack") else seed.randrange(20, 60)  # an ack is for many calls
    platform = own_platform(workers=1, env={"MERCAT_FAILPOINTS": f"inference.{step}={at}"})
    model = platform.publish(platform.publisher(), graphs.tiny(), batch=64, price={"requests": PER_MILLION})
    credit = 10 * USD
    consumer = platform.sign_up(credit=credit)
    traffic = caller(platform, consumer, model)
    first = platform.pids()["worker-0"]
    started = time.monotonic()
    ended = await asyncio.gather(*(traffic.once() for _ in range(150)))
    traffic.seen.seconds = time.monotonic() - started
    assert platform.pids().get("worker-0") != first, "the worker was not killed: the case proves nothing"
    assert ended == ["OK"] * 150
    # Every attempt that had no answer was an attempt of one of the 150 calls: the ledger must know just these.
    traffic.seen.unknown = 0
    judge(platform, consumer, traffic.seen, credit=credit, price=PRICE, rate=False)


@pytest.mark.parametrize("step", ["stored", "before_ack"])
async def test_consumer_killed_at_each_step(own_platform: Callable[..., Platform], step: str) -> None:
    """Case 1 at its two tender places: records stored but not posted, and posted but not acknowledged."""
    platform = own_platform(workers=1, env={"MERCAT_FAILPOINTS": f"usage.{step}=3"})
    model = platform.publish(platform.publisher(), graphs.tiny(), batch=64, price={"requests": PER_MILLION})
    credit = 10 * USD
    consumer = platform.sign_up(credit=credit)
    traffic = caller(platform, consumer, model)
    first = platform.pids()["control"]
    await traffic.many(1_000)
    await asyncio.to_thread(platform.until_ready, "control", first)
    judge(platform, consumer, traffic.seen, credit=credit, price=PRICE, rate=False)


async def test_a_paused_consumer_posts_once(broken: Platform, model: str) -> None:
    """Case 7: the consumer sleeps past its ack wait and wakes up again."""
    credit = 10 * USD
    consumer = broken.sign_up(credit=credit)
    traffic = caller(broken, consumer, model)
    await traffic.many(200)
    pid = broken.pids()["control"]
    os.kill(pid, signal.SIGSTOP)
    try:
        await traffic.many(300, seconds=3)  # from leases that are there already, or refused
        await asyncio.sleep(float(os.environ.get("MERCAT_TEST_PAUSE", "12")))
    finally:
        os.kill(pid, signal.SIGCONT)
    await asyncio.to_thread(broken.until_ready, "control")
    await traffic.many(100)
    judge(broken, consumer, traffic.seen, credit=credit, price=PRICE, rate=False)


async def test_credit_for_ten_calls_and_two_hundred_at_once(own_platform: Callable[..., Platform]) -> None:
    """Case 9, over two workers: exactly ten succeed and the balance is never negative."""
    platform = own_platform(workers=2)
    model = platform.publish(platform.publisher(), graphs.tiny(), batch=64, price={"requests": PER_MILLION})
    for _ in range(3):
        credit = 10 * PRICE
        consumer = platform.sign_up(credit=credit)
        traffic = caller(platform, consumer, model)
        lowest = credit
        running = asyncio.gather(*(traffic.call() for _ in range(200)))
        while not running.done():
            lowest = min(lowest, await asyncio.to_thread(consumer.balance))
        ended = await running
        assert ended.count("OK") == 10
        assert ended.count("RESOURCE_EXHAUSTED") == 190
        assert lowest >= 0
        judge(platform, consumer, traffic.seen, credit=credit, price=PRICE, rate=False)


async def test_usage_published_again_posts_nothing(broken: Platform, model: str) -> None:
    """Case 5: every stored record is published again, past any window of the broker's."""
    credit = 10 * USD
    consumer = broken.sign_up(credit=credit)
    traffic = caller(broken, consumer, model)
    await traffic.many(500)
    judge(broken, consumer, traffic.seen, credit=credit, price=PRICE, rate=False)
    await republish(broken, consumer, times=20)
    judge(broken, consumer, traffic.seen, credit=credit, price=PRICE, rate=False)


async def republish(platform: Platform, consumer: Account, *, times: int) -> None:
    """Rebuilds the stream and publishes the consumer's records again, each `times` times and in random order."""
    from mercat.event.v1 import event_pb2

    from services.common.events import USAGE_STREAM, USAGE_SUBJECT, Events
    from tests.robustness.oracle import usage_rows

    records = list(usage_rows(consumer)) * times
    random.shuffle(records)
    events = await Events.connect(platform.nats_url(), "tests")
    try:
        await events.js.delete_stream(USAGE_STREAM)
        await events._ensure_streams()
        for at in range(0, len(records), 100):
            batch = event_pb2.UsageBatch(records=records[at : at + 100], worker_id="test")
            await events.js.publish(USAGE_SUBJECT, batch.SerializeToString())
        async with asyncio.timeout(60):
            while (await events.js.stream_info(USAGE_STREAM)).state.messages:
                await asyncio.sleep(0.2)
    finally:
        await events.close()
