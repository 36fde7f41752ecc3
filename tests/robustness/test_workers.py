"""Case 14: one of two workers is killed, or stops answering, while calls go on: calls find the other one."""

import asyncio
import contextlib
import os
import random
import signal
import time

import pytest

from tests import graphs
from tests.platform import USD, Platform
from tests.robustness.oracle import judge
from tests.robustness.traffic import Steady

PRICE = 1_000_000  # nanos a call
CREDIT = 1000 * USD
OUT_WITHIN = 5.0  # seconds until no more calls are sent to a worker that does not answer
SUCCESS = 0.999  # of the calls begun after that


@pytest.fixture(scope="module")
def model(pair: Platform) -> str:
    return pair.publish(pair.publisher(), graphs.tiny(), batch=64, price={"requests": PRICE * 1_000_000})


@pytest.fixture
def victim(seed_number: int) -> str:
    return random.Random(seed_number).choice(["worker-0", "worker-1"])


def check(log: Steady, hurt: float, last: float, victim: str) -> None:
    """Calls fail only at first, none waits long for it, and hardly any fails after that."""
    failed = [(began - hurt, took - began) for began, took, ended in log.calls if ended != "OK" and began >= hurt]
    after = log.between(hurt + OUT_WITHIN, last)
    share = after.count("OK") / len(after)
    latest = max((began for began, _ in failed), default=0.0)
    slowest = max((took for _, took in failed), default=0.0)
    print(
        f"{victim}: {len(failed)} of {len(log.between(hurt, last))} calls failed, the last begun {latest:.2f} s after, "
        f"waiting at most {slowest:.2f} s; then {share:.4%} of {len(after)} succeeded"
    )
    assert len(after) > 100 * (last - hurt - OUT_WITHIN)
    assert latest < OUT_WITHIN
    assert slowest < OUT_WITHIN
    assert share >= SUCCESS


async def test_a_worker_is_killed(pair: Platform, model: str, victim: str) -> None:
    consumer = pair.sign_up(credit=CREDIT)
    log = Steady(pair.grpc, consumer.api_key, model)
    await asyncio.sleep(2)
    hurt = time.monotonic()
    pair.kill(victim)
    await asyncio.sleep(OUT_WITHIN + 5)
    last = time.monotonic()
    await log.stop()
    check(log, hurt, last, victim)
    judge(pair, consumer, log.caller.seen, credit=CREDIT, price=PRICE)


async def test_a_worker_stops_answering(pair: Platform, model: str, victim: str) -> None:
    """SIGSTOP: its connections stay open and it says nothing, which is worse than a death."""
    consumer = pair.sign_up(credit=CREDIT)
    log = Steady(pair.grpc, consumer.api_key, model)
    await asyncio.sleep(2)
    pid = pair.pids()[victim]
    hurt = time.monotonic()
    os.kill(pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(OUT_WITHIN + 5)
        last = time.monotonic()
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)
    await asyncio.sleep(2)  # it comes back, and calls are sent to it again
    again = time.monotonic()
    await log.stop()
    check(log, hurt, last, victim)
    assert set(log.between(last + 1, again)) == {"OK"}
    judge(pair, consumer, log.caller.seen, credit=CREDIT, price=PRICE)
