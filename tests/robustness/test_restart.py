"""Case 17: every process is replaced, one after the other, while calls go on by gRPC and by REST, to models, to the
books and to the web edge. None fails."""

import asyncio
import time
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests import graphs
from tests.platform import USD, Account, Platform
from tests.robustness.oracle import judge
from tests.robustness.traffic import Seen, Steady

PRICE = 1_000_000  # nanos a call
CREDIT = 1000 * USD
LONGEST = 5.0  # seconds that a call may wait for a process that is being replaced


class Rest:
    """Callers over HTTP, from now until `stop`."""

    def __init__(self, platform: Platform, person: Account) -> None:
        self.seen = Seen()
        self.answers: Counter[str] = Counter()
        self.failures: list[str] = []
        self.slowest = 0.0
        self._platform, self._person = platform, person
        self._started = time.monotonic()
        self._going = True
        self._tasks: list[asyncio.Task[None]] = []

    def call(self, method: str, path: str, body: Any = None, *, callers: int = 2) -> None:
        self._tasks += [asyncio.create_task(self._again_and_again(method, path, body)) for _ in range(callers)]

    async def _again_and_again(self, method: str, path: str, body: Any) -> None:
        headers = {"authorization": f"Bearer {self._person.api_key}"}
        async with httpx.AsyncClient(base_url=self._platform.rest, headers=headers, timeout=20) as client:
            while self._going:
                began = time.monotonic()
                try:
                    answer = await client.request(method, path, json=body)
                except httpx.HTTPError as e:
                    self.failures.append(f"{path}: {e!r}")
                else:
                    self.answers[path] += 1
                    if answer.status_code != 200:
                        self.failures.append(f"{path}: {answer.status_code} {answer.text[:300]}")
                    elif path.endswith(":predict"):
                        self.seen.ok.add(answer.headers["mercat-request-id"])
                self.slowest = max(self.slowest, time.monotonic() - began)
                await asyncio.sleep(0.02)

    async def stop(self) -> None:
        self._going = False
        await asyncio.gather(*self._tasks)
        self.seen.seconds = time.monotonic() - self._started


@pytest.fixture(scope="module")
def model(pair: Platform) -> str:
    return pair.publish(pair.publisher(), graphs.tiny(), batch=64, price={"requests": PRICE * 1_000_000})


async def test_a_rolling_restart_of_every_process(pair: Platform, model: str) -> None:
    sign_up = [asyncio.to_thread(pair.sign_up, credit=CREDIT) for _ in range(3)]
    consumer, visitor, saver = await asyncio.gather(*sign_up)
    before = pair.pids()
    steady, rest = Steady(pair.grpc, consumer.api_key, model, callers=16), Rest(pair, visitor)
    writes = Rest(pair, saver)
    writes.call("POST", "/v1/wallet:topUp", {"amountNanos": "1000"}, callers=1)
    rest.call("POST", f"/v1/models/{model}:predict", {"inputs": [{"name": "x", "shape": [1, 4], "data": [0, 0, 0, 0]}]})
    rest.call("GET", "/v1/wallet")
    rest.call("GET", "/v1/models")
    rest.call("GET", "/openapi.json")
    await asyncio.sleep(1)
    began = time.monotonic()
    restarted = await asyncio.to_thread(pair.command, "restart")
    took = time.monotonic() - began
    await asyncio.sleep(1)
    seen = await steady.stop()
    await rest.stop()
    await writes.stop()
    slowest = max(ended - began for began, ended, _ in steady.calls)
    print(f"\n{restarted.stdout}in {took:.0f} s; {len(steady.calls)} calls by gRPC, the slowest {slowest:.2f} s")
    print(f"by REST {dict(rest.answers + writes.answers)}, the slowest {max(rest.slowest, writes.slowest):.2f} s")
    assert restarted.returncode == 0, restarted.stderr + pair.log()
    after = pair.pids()
    assert {name for name in before if after[name] != before[name]} == set(before)
    assert rest.failures == writes.failures == []
    assert await asyncio.to_thread(saver.balance) == CREDIT + 1000 * writes.answers.total()
    assert (dict(seen.errors), seen.unknown) == ({}, 0)
    assert max(slowest, rest.slowest, writes.slowest) < LONGEST
    await asyncio.to_thread(judge, pair, consumer, seen, credit=CREDIT, price=PRICE)
    await asyncio.to_thread(judge, pair, visitor, rest.seen, credit=CREDIT, price=PRICE, rate=False)


def test_only_what_is_there_is_restarted(pair: Platform, tmp_path: Path) -> None:
    before = pair.pids()
    refused = pair.command("restart", "worker-0", "worker-7")
    assert refused.returncode == 1
    assert "worker-7 is none of Mercat's processes" in refused.stderr
    nowhere = pair.command("restart", "--home", str(tmp_path))
    assert nowhere.returncode == 1
    assert "does not run" in nowhere.stderr
    assert pair.pids() == before
