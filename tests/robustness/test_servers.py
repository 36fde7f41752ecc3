"""Cases 3 and 4, and their long form: PostgreSQL, NATS and whatever else runs die over and over while calls go on."""

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable

import asyncpg
import pytest

from services.embedded.postgres import bin_folder
from tests import amcheck
from tests.platform import Platform
from tests.robustness.run import PACE, Start, kill, priced
from tests.sizes import Size

pytestmark = pytest.mark.case

EVERYTHING = ("postgres", "nats", "valkey", "control", "worker-0", "worker-1", "gateway", "envoy")
SHORT = 0.5  # minutes of the long run where nobody says how many
KILLS, CALLS_A_KILL = 200, 1000  # of the long run


@pytest.fixture(scope="module")
def model(pair: Platform) -> str:
    return priced(pair)


async def test_postgres_killed_over_and_over(
    own_platform: Callable[..., Platform], start: Start, size: Size, seed: random.Random
) -> None:
    """Case 3: killed in mid-transaction. Afterwards every page has its checksum and every row is in its indexes."""
    platform = own_platform(workers=1, env={"MERCAT_PAYMENT_CLAIM_SECONDS": "3"})
    run = start(platform, priced(platform), in_flight=16, pays=True)
    kills = size.of(20, 4)
    for _ in range(kills):
        await asyncio.sleep(seed.uniform(0.3, 1.5))
        await in_mid_transaction(platform)
        await kill(platform, "postgres")
    await run.until(size.calls)
    await asyncio.to_thread(platform.until_ready, "control")
    await run.judged()
    print(f"oracle L: {kills} kills in {run.seen.seconds:.0f} s")
    platform.stop()
    checked = subprocess.run(
        [str(bin_folder() / "pg_checksums"), "--check", "-D", str(platform.home / "postgres" / "data")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr
    if amcheck.extension() is not None:
        assert await amcheck.complaints(platform.home / "postgres") == ""
    else:
        print("oracle L: pg_amcheck was not run; `make tools` installs what it needs")
        assert not os.environ.get("CI")


async def in_mid_transaction(platform: Platform) -> None:
    """Returns while a transaction has written something and not yet committed it."""
    connection = await asyncpg.connect(platform.postgres_url())
    async with asyncio.timeout(30):
        while not await connection.fetchval("SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL"):
            pass
    connection.terminate()


async def test_nats_killed_over_and_over_and_away(
    pair: Platform, model: str, start: Start, size: Size, seed: random.Random
) -> None:
    """Case 4: calls end OK and are counted, or are refused with a hint when to try again."""
    kills, away = size.of(20, 4), size.of(60, 8)
    run = start(pair, model)
    for _ in range(kills):
        await asyncio.sleep(seed.uniform(0.3, 1.5))
        await kill(pair, "nats")
    await run.until(size.calls)
    before, pid = len(run.seen.ok), pair.pids()["nats"]
    os.kill(pid, signal.SIGSTOP)  # killed, it would be back in a second
    await asyncio.sleep(2)  # those under way wait for their records to be stored, and others are refused
    await run.more(away - 2)
    refused = sum(run.seen.errors.values())
    os.kill(pid, signal.SIGCONT)
    await asyncio.to_thread(pair.until_ready, "nats")
    await run.until(before + 200)
    print(f"oracle L: {kills} kills, then away for {away} s, when {refused} calls were refused")
    assert refused
    assert {name.partition(" ")[0] for name in run.seen.errors} == {"UNAVAILABLE"}
    assert not run.seen.hintless
    await run.judged()


async def test_whatever_is_killed(
    pair: Platform, model: str, start: Start, seed: random.Random, request: pytest.FixtureRequest
) -> None:
    """Any part, once in about a thousand calls and while others are away; with `--minutes` until there were two hundred
    kills and as many thousand calls, or then."""
    minutes = float(request.config.getoption("--minutes")) or SHORT
    run, kills, until = start(pair, model, in_flight=16, pays=True, pace=PACE), 0, time.monotonic() + 60 * minutes
    due, died = CALLS_A_KILL * seed.random(), dict.fromkeys(EVERYTHING, 0)
    while time.monotonic() < until and run.seen.calls < KILLS * CALLS_A_KILL:
        if run.seen.calls >= due:
            part = seed.choice(EVERYTHING)
            await asyncio.to_thread(pair.until_ready, part, died[part])
            died[part] = pair.kill(part)
            kills += 1
            due = CALLS_A_KILL * (kills + seed.random())
        await asyncio.sleep(0.05)
    for part in EVERYTHING:
        await asyncio.to_thread(pair.until_ready, part, died[part])
    print(f"oracle L: {kills} kills in {(time.monotonic() - until) / 60 + minutes:.1f} minutes")
    await run.judged()
