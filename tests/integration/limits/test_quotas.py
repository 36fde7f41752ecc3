"""How many calls of a day or a month, and how many at a time: exact across workers, also when Redis forgets."""

import asyncio
import json
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime

import grpc
import pytest
from mercat.auth.v1 import auth_pb2
from mercat.common.v1 import limits_pb2
from mercat.notification.v1 import webhooks_pb2 as w
from mercat.registry.v1 import registry_pb2
from tritonclient.grpc import service_pb2, service_pb2_grpc

from services.common.errors import MercatError, from_rpc_error
from tests import graphs
from tests.platform import Account, Platform
from tests.robustness.traffic import tiny_request
from tests.webhook_receiver import receiver

SETTINGS = {"MERCAT_LIMIT_SCALE": "1", "MERCAT_EGRESS_NETWORKS": "127.0.0.0/8"}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    with Platform(tmp_path_factory.mktemp("quotas") / "home", workers=2, demo=False, env=SETTINGS) as running:
        yield running


@pytest.fixture(scope="module")
def publisher(running: Platform) -> Account:
    return running.publisher()


@pytest.fixture(scope="module")
def quick(running: Platform, publisher: Account) -> str:
    return running.publish(publisher, graphs.tiny(), batch=64)


@pytest.fixture(scope="module")
def slow(running: Platform, publisher: Account) -> str:
    """Takes about half a second, one call at a time."""
    return running.publish(publisher, graphs.slow(500_000))


def quota(soft: int, hard: int) -> limits_pb2.CallQuota:
    return limits_pb2.CallQuota(soft=soft, hard=hard)


def limited(person: Account, **limit: object) -> tuple[str, str]:
    """A new key of somebody's with a limit: its secret and its id."""
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="limited"))
    call_limit = limits_pb2.CallLimit(**limit)  # type: ignore[arg-type]
    person.limits.SetKeyLimit(auth_pb2.SetKeyLimitRequest(key_id=made.api_key.key_id, limit=call_limit))
    return made.secret, made.api_key.key_id


class Caller:
    """Calls a model with a key."""

    def __init__(self, running: Platform, key: str, model: str, *, slow: bool = False) -> None:
        self.channel = grpc.aio.insecure_channel(running.grpc, options=[("grpc.use_local_subchannel_pool", 1)])
        self._stub = service_pb2_grpc.GRPCInferenceServiceStub(self.channel)
        self._metadata = (("authorization", f"Bearer {key}"),)
        self._request = tiny_request(model)
        if slow:
            self._request = service_pb2.ModelInferRequest(model_name=model, raw_input_contents=[bytes(8)])
            self._request.inputs.add(name="x", datatype="INT64", shape=[1])

    async def call(self) -> tuple[MercatError | None, dict[str, str]]:
        """How a call ended, and its trailers."""
        answering = self._stub.ModelInfer(self._request, metadata=self._metadata, timeout=30)
        try:
            await answering
        except grpc.aio.AioRpcError as e:
            return from_rpc_error(e), {}
        return None, {str(k): str(v) for k, v in await answering.trailing_metadata()}


async def at_once(running: Platform, key: str, model: str, calls: int, *, slow: bool = False) -> Counter[str]:
    """How calls ended that were made together, over four connections, so that each worker has some."""
    callers = [Caller(running, key, model, slow=slow) for _ in range(4)]
    ended = await asyncio.gather(*(callers[n % 4].call() for n in range(calls)))
    for caller in callers:
        await caller.channel.close()
    return Counter(error.reason if error else "OK" for error, _ in ended)


@pytest.mark.parametrize("period", ["daily", "monthly"])
async def test_a_quota_is_exact_and_warns_before_it_ends(running: Platform, quick: str, period: str) -> None:
    key, _ = limited(running.sign_up(), **{period: quota(300, 400)})
    caller = Caller(running, key, quick)
    first, trailers = await caller.call()
    assert first is None
    assert trailers["ratelimit"] == f'"key_{period}";r=399'
    assert "mercat-quota-warning" not in trailers
    assert await at_once(running, key, quick, 330) == {"OK": 330}
    await asyncio.sleep(0.3)  # calls that were taken ahead before are used up or given back
    warned, trailers = await caller.call()
    assert warned is None
    used = trailers["mercat-quota-warning"].removeprefix(f"key_{period}; used=").removesuffix("; soft=300; hard=400")
    assert 332 <= int(used) <= 332 + 400 // 16  # with what the other worker may hold ahead
    assert await at_once(running, key, quick, 300) == {"OK": 68, "QUOTA_EXCEEDED": 232}
    error, _ = await caller.call()
    assert error is not None
    assert (error.reason, error.metadata["limit"]) == ("QUOTA_EXCEEDED", f"key_{period}")
    assert error.retry_after is not None
    assert 0 < error.retry_after <= 31 * 86_400
    await caller.channel.close()


async def test_each_end_of_a_quota_is_told_once_a_period(running: Platform, publisher: Account, quick: str) -> None:
    person = running.sign_up()
    key, key_id = limited(person, daily=quota(10, 20))
    types = ["quota.exceeded", "quota.threshold_reached"]
    with receiver() as there:
        for somebody, path in ((person, "/caller"), (publisher, "/publisher")):
            request = w.CreateWebhookEndpointRequest(url=there.url(path), event_types=types)
            somebody.webhooks.CreateWebhookEndpoint(request)

        def came(path: str, count: int) -> set[tuple[str, ...]]:
            found = [json.loads(one.body) for one in there.wait(path, count)]
            assert len(found) == count, found
            return {
                (one["type"], *(str(one["data"][n]) for n in ("quota", "keyId", "model", "limitCalls")))
                for one in found
            }

        # Both workers refuse, and both see the soft end.
        assert await at_once(running, key, quick, 80) == {"OK": 20, "QUOTA_EXCEEDED": 60}
        told = {
            ("quota.threshold_reached", "key_daily", key_id, "", "10"),
            ("quota.exceeded", "key_daily", key_id, "", "20"),
        }  # fmt: skip
        assert came("/caller", 2) == told
        again = json.loads(there.at("/caller")[0].body)["data"]["resetTime"]
        assert datetime.fromisoformat(again) > datetime.now(UTC)
        # Of another end it is told again, and of the one before no more.
        raised = limits_pb2.CallLimit(daily=quota(10, 30))
        person.limits.SetKeyLimit(auth_pb2.SetKeyLimitRequest(key_id=key_id, limit=raised))
        caller = Caller(running, key, quick)
        async with asyncio.timeout(20):
            while (await caller.call())[0]:
                await asyncio.sleep(0.05)
        assert await at_once(running, key, quick, 40) == {"OK": 9, "QUOTA_EXCEEDED": 31}
        await caller.channel.close()
        assert came("/caller", 3) == told | {("quota.exceeded", "key_daily", key_id, "", "30")}
        # A model's owner hears of its.
        model = running.publish(publisher, graphs.tiny(), batch=64)
        of_model = registry_pb2.SetModelLimitRequest(model=model, limit=limits_pb2.CallLimit(daily=quota(0, 2)))
        publisher.registry.SetModelLimit(of_model)
        other = running.sign_up().api_key
        caller = Caller(running, other, model)
        async with asyncio.timeout(20):
            while (error := (await caller.call())[0]) is None:
                pass
        await caller.channel.close()
        assert error.metadata["limit"] == "model_daily"
        assert came("/publisher", 1) == {("quota.exceeded", "model_daily", "", model, "2")}
        assert len(there.at("/caller")) == 3


async def test_a_quota_without_an_end_only_warns(running: Platform, quick: str) -> None:
    key, _ = limited(running.sign_up(), daily=quota(2, 0))
    caller = Caller(running, key, quick)
    first, second, third = [(await caller.call())[1].get("mercat-quota-warning") for _ in range(3)]
    assert first is None
    assert second == "key_daily; used=2; soft=2"
    assert third in (second, "key_daily; used=3; soft=2")  # what was used is told anew every 0.2 s
    await caller.channel.close()


async def test_a_raised_quota_knows_what_was_used_of_the_old(running: Platform, quick: str) -> None:
    person = running.sign_up()
    key, key_id = limited(person, daily=quota(0, 20))
    assert await at_once(running, key, quick, 40) == {"OK": 20, "QUOTA_EXCEEDED": 20}
    raised = limits_pb2.CallLimit(daily=quota(0, 30))
    person.limits.SetKeyLimit(auth_pb2.SetKeyLimitRequest(key_id=key_id, limit=raised))
    await asyncio.sleep(1)
    assert await at_once(running, key, quick, 40) == {"OK": 10, "QUOTA_EXCEEDED": 30}


async def test_a_quota_is_remembered_when_redis_forgets(running: Platform, publisher: Account, quick: str) -> None:
    person = running.sign_up()
    key, _ = limited(person, monthly=quota(0, 1000))
    model = running.publish(publisher, graphs.tiny(), batch=64)
    of_model = registry_pb2.SetModelLimitRequest(model=model, limit=limits_pb2.CallLimit(daily=quota(0, 90)))
    publisher.registry.SetModelLimit(of_model)
    account = limits_pb2.CallLimit(daily=quota(0, 120))
    running.admin().limits.SetAccountLimit(
        auth_pb2.SetAccountLimitRequest(handle=person.profile.username, limit=account)
    )
    assert await at_once(running, key, model, 60) == {"OK": 60}
    assert await at_once(running, key, quick, 20) == {"OK": 20}
    await asyncio.sleep(2)  # they are recorded
    died = running.kill("valkey")
    async with asyncio.timeout(30):
        while running.pids().get("valkey") in (None, died) or running.states().get("valkey") != "ready":
            await asyncio.sleep(0.1)
    await asyncio.sleep(2)  # the workers have seen it
    of_models = await at_once(running, key, model, 60)  # of the model's 90, of which a worker may hold a 16th ahead
    assert of_models.keys() == {"OK", "QUOTA_EXCEEDED"}
    assert 30 - 30 // 16 <= of_models["OK"] <= 30
    of_accounts = await at_once(running, key, quick, 60)  # of the account's 120
    assert of_accounts.keys() == {"OK", "QUOTA_EXCEEDED"}
    assert 10 <= of_accounts["OK"] <= 40 - of_models["OK"]


async def test_calls_at_a_time_are_counted_across_workers(running: Platform, slow: str) -> None:
    key, _ = limited(running.sign_up(), concurrent_calls=5)
    assert await at_once(running, key, slow, 2, slow=True) == {"OK": 2}  # both workers have loaded it
    assert await at_once(running, key, slow, 30, slow=True) == {"OK": 5, "CONCURRENCY_LIMITED": 25}
    assert await at_once(running, key, slow, 5, slow=True) == {"OK": 5}


async def test_slots_of_a_worker_that_died_come_free(running: Platform, slow: str) -> None:
    key, _ = limited(running.sign_up(), concurrent_calls=6)
    hanging = asyncio.create_task(at_once(running, key, slow, 6, slow=True))
    await asyncio.sleep(0.5)
    running.kill("worker-0")
    await hanging
    until = time.monotonic() + 20
    while (ended := await at_once(running, key, slow, 6, slow=True)) != {"OK": 6}:
        assert set(ended) <= {"OK", "CONCURRENCY_LIMITED", "UNAVAILABLE", "ENGINE_UNAVAILABLE"}
        assert time.monotonic() < until
        await asyncio.sleep(0.5)
    assert await at_once(running, key, slow, 20, slow=True) == {"OK": 6, "CONCURRENCY_LIMITED": 14}


def test_limits_that_make_no_sense_are_refused(running: Platform) -> None:
    person = running.sign_up()
    made = person.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="limited")).api_key
    for limit, field in (
        (limits_pb2.CallLimit(), "limit"),
        (limits_pb2.CallLimit(calls_per_second=5), "limit.burst"),
        (limits_pb2.CallLimit(daily=quota(11, 10)), "limit.daily.soft"),
        (limits_pb2.CallLimit(monthly=quota(0, -1)), "limit.monthly.hard"),
        (limits_pb2.CallLimit(concurrent_calls=-1), "limit.concurrent_calls"),
    ):
        with pytest.raises(grpc.RpcError) as caught:
            person.limits.SetKeyLimit(auth_pb2.SetKeyLimitRequest(key_id=made.key_id, limit=limit))
        assert [v.field for v in from_rpc_error(caught.value).violations] == [field]
