"""Which units of a month a call's are: each given once, whatever Redis forgets and whoever asks again."""

import asyncio
import random
import secrets
import time

import pytest
from mercat.usage.v1 import usage_pb2
from redis.asyncio import Redis

from services.common import ids
from services.common.errors import Unavailable
from services.common.rpc.channels import InternalChannel
from services.inference.positions import Key, Positions, key_of
from tests.integration.billing.books import Books, Person


@pytest.fixture
def redis(books: Books) -> "Redis":
    return books.deps["usage"].redis


@pytest.fixture
def key() -> Key:
    return key_of(f"org_{secrets.token_hex(8)}", "mdl_x", time.time_ns() // 1_000_000)


@pytest.fixture
def workers(books: Books, redis: "Redis") -> list[Positions]:
    return [Positions(redis, books.internal) for _ in range(2)]


def used(books: Books, publisher: Person, key: Key, rows: int, **fields: object) -> usage_pb2.UsageRecord:
    """A recorded call of so many rows."""
    record = books.call(publisher, publisher, 0)
    record.org_id, record.units["rows"], record.price_id = key.org_id, rows, ""
    record.rating.MergeFrom(usage_pb2.Rating(**fields))
    return record


async def test_units_of_many_callers_are_each_given_once(workers: list[Positions], key: Key) -> None:
    numbers = [random.randint(0, 5) for _ in range(200)]
    found = await asyncio.gather(
        *(workers[i % 2].take(key, {"rows": n, "requests": 1}, 0.0) for i, n in enumerate(numbers))
    )
    assert sorted(f["requests"] for f in found) == list(range(200))
    end = 0
    for position, units in sorted((f["rows"], n) for f, n in zip(found, numbers, strict=True)):
        assert position == end
        end += units


async def test_a_call_that_is_made_again_gets_its_position_again(workers: list[Positions], key: Key) -> None:
    one, two = workers
    again = (ids.new("req"), 60)
    assert await one.take(key, {"rows": 5}, 0.0, again) == {"rows": 0}
    assert await one.take(key, {"rows": 3}, 0.0) == {"rows": 5}
    assert await two.take(key, {"rows": 5}, 0.0, again) == {"rows": 0}
    assert await two.take(key, {"rows": 1}, 0.0) == {"rows": 8}
    # With a price that asks for another meter as well, nothing of it is known, and it is taken anew.
    assert await two.take(key, {"rows": 5, "requests": 1}, 0.0, again) == {"rows": 9, "requests": 0}


async def test_what_redis_forgot_is_counted_from_usage_with_what_was_on_its_way(
    books: Books, redis: "Redis", workers: list[Positions], key: Key
) -> None:
    publisher = await books.person()
    await books.send(used(books, publisher, key, 40), used(books, publisher, key, 2, share_ppm=500_000))
    free, test = used(books, publisher, key, 7, share_ppm=0), used(books, publisher, key, 9)
    test.test = True
    await books.send(free, test)
    await books.settled()
    assert await workers[0].take(key, {"rows": 3}, 0.0) == {"rows": 42}, "neither free answers nor tests count"
    await books.send(used(books, publisher, key, 3))
    await redis.flushall()
    first, second = await asyncio.gather(*(w.take(key, {"rows": 1}, 0.0) for w in workers))
    assert sorted((first["rows"], second["rows"])) == [45, 46]
    assert await workers[0].take(key, {"requests": 1}, 0.0) == {"requests": 3}, "another meter is counted as well"


async def test_a_month_before_has_a_counter_of_its_own(workers: list[Positions], key: Key) -> None:
    before = key._replace(month="2026-01")
    assert await workers[0].take(key, {"rows": 5}, 0.0) == {"rows": 0}
    assert await workers[0].take(before, {"rows": 5}, 0.0) == {"rows": 0}
    assert await workers[0].take(before, {"rows": 5}, 0.0) == {"rows": 5}


async def test_what_is_expected_stands_behind_the_calls_under_way(workers: list[Positions], key: Key) -> None:
    one = workers[0]
    await one.take(key, {"rows": 10}, 0.0)
    assert await one.expect(key, {"rows": 5}, 0.0) == {"rows": 10}
    assert await one.expect(key, {"rows": 5}, 0.0) == {"rows": 15}
    one.forget(key, {"rows": 5})
    assert await one.expect(key, {"rows": 5}, 0.0) == {"rows": 15}


async def test_while_redis_says_nothing_units_are_counted_here_and_added_later(
    books: Books, redis: "Redis", workers: list[Positions], key: Key
) -> None:
    one, two = workers
    publisher = await books.person()
    await books.send(used(books, publisher, key, 20))
    await books.settled()
    await one.take(key, {"rows": 10}, 0.0)
    await redis.client_pause(2500)
    assert await one.take(key, {"rows": 4}, 0.0) == {"rows": 30}
    assert await one.take(key, {"rows": 4}, 0.0) == {"rows": 34}
    await asyncio.sleep(4)
    assert await two.take(key, {"rows": 1}, 0.0) == {"rows": 38}


async def test_without_redis_what_usage_recorded_is_known(books: Books, key: Key) -> None:
    nowhere: Redis = Redis.from_url("redis://127.0.0.1:1")
    alone = Positions(nowhere, books.internal)
    publisher = await books.person()
    await books.send(used(books, publisher, key, 20))
    await books.settled()
    assert await alone.take(key, {"rows": 5}, 0.0) == {"rows": 20}
    assert await alone.take(key, {"rows": 5}, 0.0) == {"rows": 25}
    await books.send(used(books, publisher, key, 50))
    await books.settled()
    await asyncio.sleep(2)
    assert await alone.take(key, {"rows": 5}, 0.0) == {"rows": 70}, "what others recorded is known soon"
    await nowhere.aclose()


async def test_with_nobody_to_ask_a_call_is_refused(key: Key) -> None:
    nowhere: Redis = Redis.from_url("redis://127.0.0.1:1")
    internal = InternalChannel("127.0.0.1:1", "token")
    with pytest.raises(Unavailable) as refused:
        await Positions(nowhere, internal).take(key, {"rows": 5}, 0.0)
    assert refused.value.reason == "METERING_UNAVAILABLE"
    await internal.close()
    await nowhere.aclose()
