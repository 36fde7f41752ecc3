"""Cases 3 and 4, and their long form: PostgreSQL, NATS and whatever else runs die over and over while calls go on."""

import asyncio
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Iterator

import pytest

from services.embedded.postgres import bin_folder
from tests import graphs
from tests.platform import USD, Platform
from tests.robustness.oracle import Verdict, judge
from tests.robustness.traffic import Caller, Seen

PRICE = 1_000_000  # nanos a call
CREDIT = 1000 * USD
KILLS = int(os.environ.get("MERCAT_TEST_KILLS", "4"))  # 20 make the cases whole
AWAY = float(os.environ.get("MERCAT_TEST_SECONDS", "8"))  # seconds; 60 make the case whole
EVERYTHING = ("postgres", "nats", "valkey", "control", "worker-0", "worker-1", "gateway", "envoy")
SHORT = 0.5  # minutes of the long run where nobody says how many


@pytest.fixture(scope="module")
def hurt(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    home = tmp_path_factory.mktemp("servers") / "home"
    with Platform(home, workers=2, env={"MERCAT_RESTART_PAUSE": "1"}) as running:
        yield running


@pytest.fixture(scope="module")
def model(hurt: Platform) -> str:
    return hurt.publish(hurt.publisher(), graphs.tiny(), batch=64, price={"requests": PRICE * 1_000_000})


class Run:
    """Calls of a new consumer, from now until `judged`."""

    def __init__(self, platform: Platform, model: str) -> None:
        self._platform = platform
        self._consumer = platform.sign_up(credit=CREDIT)
        self._caller = Caller(platform.grpc, self._consumer.api_key, model)
        self._going = asyncio.create_task(self._caller.many(10**9, in_flight=8, seconds=3600))

    @property
    def seen(self) -> Seen:
        return self._caller.seen

    async def one_more(self) -> None:
        """A call beside the others."""
        await self._caller.call()

    async def judged(self, *, rate: bool = True) -> Verdict:
        """Ends the calls and holds them against usage and ledger."""
        self._caller.stop()
        await self._going
        await self._caller.channel.close()
        return await asyncio.to_thread(
            judge, self._platform, self._consumer, self.seen, credit=CREDIT, price=PRICE, rate=rate
        )


async def kill(platform: Platform, part: str) -> None:
    """SIGKILL, and waits until the supervisor has the part back."""
    died = platform.kill(part)
    await asyncio.to_thread(platform.until_ready, part, died)


async def test_postgres_killed_over_and_over(own_platform: Callable[..., Platform], seed: random.Random) -> None:
    """Case 3. The package has no `amcheck` extension for `pg_amcheck`: afterwards every page's checksum is verified,
    and `CheckLedger` walks tables and indexes."""
    platform = own_platform(workers=1, env={"MERCAT_RESTART_PAUSE": "1"})
    model = platform.publish(platform.publisher(), graphs.tiny(), batch=64, price={"requests": PRICE * 1_000_000})
    run = Run(platform, model)
    for _ in range(KILLS):
        await asyncio.sleep(seed.uniform(0.3, 1.5))
        await kill(platform, "postgres")
    await asyncio.to_thread(platform.until_ready, "control")
    await asyncio.sleep(1)
    await run.judged()
    platform.stop()
    checked = subprocess.run(
        [str(bin_folder() / "pg_checksums"), "--check", "-D", str(platform.home / "postgres" / "data")],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert checked.returncode == 0, checked.stdout + checked.stderr


async def test_nats_killed_over_and_over_and_away(hurt: Platform, model: str, seed: random.Random) -> None:
    """Case 4: calls end OK and are counted, or are refused with a hint when to try again."""
    run = Run(hurt, model)
    for _ in range(KILLS):
        await asyncio.sleep(seed.uniform(0.3, 1.5))
        await kill(hurt, "nats")
    await asyncio.sleep(1)
    before, pid = len(run.seen.ok), hurt.pids()["nats"]
    os.kill(pid, signal.SIGSTOP)  # killed, it would be back in a second
    await asyncio.sleep(3)  # those under way wait for their records to be stored
    for _ in range(int(AWAY)):
        await run.one_more()
        await asyncio.sleep(1)
    refused = sum(run.seen.errors.values())
    os.kill(pid, signal.SIGCONT)
    await asyncio.to_thread(hurt.until_ready, "nats")
    await asyncio.sleep(3)
    print(f"{len(run.seen.ok) - before} calls ended OK since NATS went away, {refused} were refused meanwhile")
    assert refused
    assert {name.partition(" ")[0] for name in run.seen.errors} == {"UNAVAILABLE"}
    assert not run.seen.hintless
    await run.judged(rate=False)


async def test_whatever_is_killed(
    hurt: Platform, model: str, seed: random.Random, request: pytest.FixtureRequest
) -> None:
    """Any part, at random times: `--minutes 10` makes it about two hundred kills and as many thousand calls."""
    minutes = float(request.config.getoption("--minutes")) or SHORT
    run, kills, until = Run(hurt, model), 0, time.monotonic() + 60 * minutes
    while time.monotonic() < until:
        await asyncio.sleep(seed.uniform(0.2, 2.0))
        part = seed.choice(EVERYTHING)
        await kill(hurt, part)
        kills += 1
    for part in EVERYTHING:
        await asyncio.to_thread(hurt.until_ready, part)
    await asyncio.sleep(2)
    print(f"{kills} kills in {minutes:g} minutes")
    verdict = await run.judged(rate=False)
    assert verdict.ok > 100 * minutes
