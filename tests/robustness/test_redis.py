"""Case 13: Redis is gone: calls go on with limits at most half as generous again, sign-in limits fail closed, revoked
keys stay revoked, and everything is exact again when it is back."""

import asyncio
import os
import signal
import time
from collections import Counter
from collections.abc import Callable

import grpc
from mercat.auth.v1 import auth_pb2
from mercat.common.v1 import limits_pb2

from services.common.errors import from_rpc_error
from tests import graphs
from tests.platform import Account, Platform
from tests.robustness.traffic import Caller

RATE, BURST = 200, 100
SECONDS = 5.0


async def hammer(running: Platform, key: str, model: str, seconds: float) -> Counter[str]:
    """How calls ended that 32 callers made over two connections as fast as they could."""
    callers = [Caller(running.grpc, key, model) for _ in range(2)]
    ended: Counter[str] = Counter()
    until = time.monotonic() + seconds

    async def one(caller: Caller) -> None:
        while time.monotonic() < until:
            how = await caller.call()
            ended[how] += 1
            if how != "OK":
                await asyncio.sleep(0.005)

    await asyncio.gather(*(one(caller) for caller in callers for _ in range(16)))
    for caller in callers:
        await caller.channel.close()
    print(f"{ended['OK'] / seconds:.0f} calls a second passed a limit of {RATE}; {dict(ended)}")
    return ended


def reason(person: Account, refresh_token: str = "") -> str:
    """Why a call of the person's is refused; empty when it is not."""
    try:
        if refresh_token:
            person.auth.RefreshSession(auth_pb2.RefreshSessionRequest(refresh_token=refresh_token))
        else:
            person.auth.GetProfile(auth_pb2.GetProfileRequest())
    except grpc.RpcError as e:
        return from_rpc_error(e).reason
    return ""


async def test_redis_is_gone(own_platform: Callable[..., Platform]) -> None:
    running = own_platform(workers=2, env={"MERCAT_LIMIT_SCALE": "1"})
    model = running.publish(running.publisher(), graphs.tiny(), batch=64)
    person = running.sign_up()
    ended, ending = (person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name=name)) for name in ("ended", "ending"))
    person.auth.RevokeApiKey(auth_pb2.RevokeApiKeyRequest(key_id=ended.api_key.key_id))
    limit = limits_pb2.CallLimit(calls_per_second=RATE, burst=BURST)
    handle = person.profile.username
    running.admin().limits.SetAccountLimit(auth_pb2.SetAccountLimitRequest(handle=handle, limit=limit))
    there = await hammer(running, person.api_key, model, SECONDS)
    assert 0.9 * RATE * SECONDS <= there["OK"] <= BURST + RATE * (SECONDS + 0.5)
    assert set(there) == {"OK", "RESOURCE_EXHAUSTED"}
    valkey = running.pids()["valkey"]
    os.kill(valkey, signal.SIGSTOP)
    try:
        gone = await hammer(running, person.api_key, model, SECONDS)
        assert set(gone) == {"OK", "RESOURCE_EXHAUSTED"}
        assert 0.7 * RATE * SECONDS <= gone["OK"] <= 1.5 * RATE * (SECONDS + 0.5)
        assert reason(person, "mr_guess") == "LIMITER_UNAVAILABLE"
        assert reason(Account(running, ended.secret)) == "CREDENTIAL_INVALID"
        assert reason(Account(running, ending.secret)) == ""
        person.auth.RevokeApiKey(auth_pb2.RevokeApiKeyRequest(key_id=ending.api_key.key_id))
        until = time.monotonic() + 5
        while (said := reason(Account(running, ending.secret))) != "CREDENTIAL_INVALID":
            assert time.monotonic() < until, said
            time.sleep(0.1)
    finally:
        os.kill(valkey, signal.SIGCONT)
    await asyncio.sleep(1.5)
    assert reason(person, "mr_guess") == "CREDENTIAL_INVALID"
    await hammer(running, person.api_key, model, 1)  # whatever the bucket gathered meanwhile
    back = await hammer(running, person.api_key, model, SECONDS)
    assert 0.9 * RATE * SECONDS <= back["OK"] <= RATE * (SECONDS + 0.5)
    running.kill("valkey")  # and what was in it is forgotten
    lost = await hammer(running, person.api_key, model, SECONDS)
    assert set(lost) == {"OK", "RESOURCE_EXHAUSTED"}
    assert lost["OK"] <= 1.5 * (BURST + RATE * (SECONDS + 0.5))
