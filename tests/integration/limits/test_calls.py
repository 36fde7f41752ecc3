"""How much accounts, keys and models may be called: exact across workers, and changed from one moment to the next."""

import asyncio
import time
from collections import Counter
from collections.abc import Iterator

import grpc
import pytest
from mercat.auth.v1 import auth_pb2
from mercat.common.v1 import limits_pb2
from mercat.inference.v1 import inference_pb2
from mercat.registry.v1 import registry_pb2

from services.common.errors import MercatError, from_rpc_error
from tests import graphs
from tests.expect import fails
from tests.platform import Account, Platform
from tests.robustness.traffic import Caller


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(
        tmp_path_factory.mktemp("limits") / "home", workers=2, demo=False, env={"MERCAT_LIMIT_SCALE": "1"}
    ) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(running: Platform) -> Account:
    return running.publisher()


@pytest.fixture(scope="module")
def models(running: Platform, publisher: Account) -> list[str]:
    """Free ones, which both workers have loaded."""
    return [running.publish(publisher, graphs.tiny(), batch=64) for _ in range(2)]


def limit(calls_per_second: int, burst: int) -> limits_pb2.CallLimit:
    return limits_pb2.CallLimit(calls_per_second=calls_per_second, burst=burst)


def set_account(running: Platform, person: Account, **what: object) -> auth_pb2.AccountLimit:
    request = auth_pb2.SetAccountLimitRequest(handle=person.profile.username, **what)  # type: ignore[arg-type]
    answer: auth_pb2.AccountLimit = running.admin().limits.SetAccountLimit(request).account
    return answer


async def hammer(running: Platform, keys: list[str], model: str, seconds: float) -> Counter[str]:
    """How calls ended that many callers made as fast as they could."""
    callers = [Caller(running.grpc, key, model) for key in keys]
    ended: Counter[str] = Counter()
    until = time.monotonic() + seconds

    async def one(caller: Caller) -> None:
        while time.monotonic() < until:
            how = await caller.call()
            ended[how] += 1
            if how != "OK":
                await asyncio.sleep(0.005)

    await asyncio.gather(*(one(caller) for caller in callers for _ in range(16 // len(callers))))
    for caller in callers:
        assert set(caller.seen.errors) <= {"RESOURCE_EXHAUSTED RATE_LIMITED"}
        await caller.channel.close()
    return ended


def bound(ended: Counter[str], rate: float, burst: float, seconds: float) -> None:
    """No more than the bucket gives, and hardly any less."""
    assert ended["OK"] <= burst + rate * (seconds + 0.5)
    assert ended["OK"] >= 0.9 * (burst + rate * seconds)


async def test_an_account_s_limit_is_one_for_all_its_keys_and_workers(running: Platform, models: list[str]) -> None:
    person = running.sign_up()
    set_account(running, person, limit=limit(100, 50))
    keys = [person.api_key] + [
        person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name=f"k{i}")).secret for i in range(3)
    ]
    bound(await hammer(running, keys, models[0], 4), 100, 50, 4)


async def test_a_key_s_limit_is_that_key_s_alone(running: Platform, models: list[str]) -> None:
    person = running.sign_up()
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="slow"))
    asked = auth_pb2.SetKeyLimitRequest(key_id=made.api_key.key_id, limit=limit(50, 20))
    assert person.limits.SetKeyLimit(asked).api_key.limit == limit(50, 20)
    slow, free = await asyncio.gather(
        hammer(running, [made.secret], models[0], 3), hammer(running, [person.api_key], models[0], 3)
    )
    bound(slow, 50, 20, 3)
    assert set(free) == {"OK"}
    person.limits.SetKeyLimit(auth_pb2.SetKeyLimitRequest(key_id=made.api_key.key_id))
    await asyncio.sleep(1)
    assert set(await hammer(running, [made.secret], models[0], 1)) == {"OK"}


async def test_a_model_s_limit_is_that_of_all_its_callers_together(
    running: Platform, publisher: Account, models: list[str]
) -> None:
    people = [running.sign_up(), running.sign_up()]
    keys = [person.api_key for person in people]
    asked = registry_pb2.SetModelLimitRequest(model=models[1], limit=limit(80, 40))
    assert publisher.registry.SetModelLimit(asked).model.limit == limit(80, 40)
    await asyncio.sleep(1)
    bound(await hammer(running, keys, models[1], 3), 80, 40, 3)
    assert set(await hammer(running, keys, models[0], 1)) == {"OK"}


async def test_what_one_limit_refuses_uses_up_no_other(
    running: Platform, publisher: Account, models: list[str]
) -> None:
    person = running.sign_up()
    set_account(running, person, limit=limit(10, 500))
    key = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="narrow"))
    person.limits.SetKeyLimit(auth_pb2.SetKeyLimitRequest(key_id=key.api_key.key_id, limit=limit(1, 10)))
    narrow = await hammer(running, [key.secret], models[0], 2)
    assert 10 <= narrow["OK"] <= 13
    assert narrow["RESOURCE_EXHAUSTED"] > 100
    wide = await hammer(running, [person.api_key], models[0], 2)
    assert wide["OK"] >= 480  # the refused calls took nothing of the account's


def test_a_refusal_names_the_limit_and_says_when_to_come_back(running: Platform, models: list[str]) -> None:
    person = running.sign_up()
    set_account(running, person, limit=limit(1, 1))
    tensor = inference_pb2.Tensor(name="x", shape=[1, 4], raw=bytes(16))
    errors: list[MercatError] = []
    for _ in range(6):
        try:
            person.inference.Predict(inference_pb2.PredictRequest(model=models[0], inputs=[tensor]))
        except grpc.RpcError as e:
            errors.append(from_rpc_error(e))
    assert errors
    assert {(e.reason, e.metadata["limit"]) for e in errors} == {("RATE_LIMITED", "account")}
    assert all(e.retry_after is not None and 0 < e.retry_after <= 1 for e in errors)


def test_limits_are_seen_and_changed_by_those_who_may(running: Platform, publisher: Account, models: list[str]) -> None:
    person, other = running.sign_up(), running.sign_up()
    seen = person.limits.GetLimits(auth_pb2.GetLimitsRequest())
    assert (seen.account.tier, seen.account.own) == (auth_pb2.TIER_STANDARD, False)
    assert (seen.account.limit.calls_per_second, seen.account.limit.concurrent_calls) == (5_000, 1_000)
    assert not seen.api_keys
    account = set_account(running, person, tier=auth_pb2.TIER_FREE)
    tier = account.limit
    assert (account.tier, account.own, tier.calls_per_second, tier.burst) == (auth_pb2.TIER_FREE, False, 50, 500)
    own = limit(7, 8)
    own.daily.hard = 9
    account = set_account(running, person, limit=own)
    assert (account.tier, account.own, account.limit.calls_per_second) == (auth_pb2.TIER_FREE, True, 7)
    assert account.limit.daily == limits_pb2.CallQuota(hard=9)  # in the tier's place as a whole
    assert account.limit.monthly == tier.monthly  # what is not said is the tier's
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="app")).api_key
    person.limits.SetKeyLimit(auth_pb2.SetKeyLimitRequest(key_id=made.key_id, limit=limit(3, 4)))
    seen = person.limits.GetLimits(auth_pb2.GetLimitsRequest())
    assert seen.account == account
    assert [(key.key_id, key.limit) for key in seen.api_keys] == [(made.key_id, limit(3, 4))]
    theirs = auth_pb2.SetKeyLimitRequest(key_id=made.key_id, limit=limit(1, 1))
    assert fails(other.limits.SetKeyLimit, theirs).reason == "API_KEY_NOT_FOUND"
    raised = auth_pb2.SetAccountLimitRequest(handle=person.profile.username, tier=auth_pb2.TIER_ENTERPRISE)
    assert fails(person.limits.SetAccountLimit, raised).code is grpc.StatusCode.PERMISSION_DENIED
    nobody = auth_pb2.SetAccountLimitRequest(handle="nobody-here")
    assert fails(running.admin().limits.SetAccountLimit, nobody).reason == "ACCOUNT_NOT_FOUND"
    not_theirs = registry_pb2.SetModelLimitRequest(model=models[0], limit=limit(1, 1))
    assert fails(running.publisher().registry.SetModelLimit, not_theirs).code is grpc.StatusCode.NOT_FOUND
    for wrong in (limit(0, 5), limit(5, 0), limit(-1, 5)):
        error = fails(person.limits.SetKeyLimit, auth_pb2.SetKeyLimitRequest(key_id=made.key_id, limit=wrong))
        assert error.reason == "INVALID_FIELDS"
        assert {v.field for v in error.violations} <= {"limit.calls_per_second", "limit.burst"}
