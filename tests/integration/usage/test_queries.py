"""What was counted, by group and bucket, against a plain count over the same records."""

import random
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.usage.v1 import usage_pb2

from services.common import ids
from services.common.errors import from_rpc_error
from services.usage.rollups import Rollups
from services.usage.store import Store
from tests.integration.billing.books import USD, Books, Person

Record = usage_pb2.UsageRecord


async def rolled_up(books: Books, settled: datetime | None = None) -> int:
    """Rolls up all that has passed."""

    async def never() -> datetime:
        raise AssertionError

    return await Rollups(books.deps["usage"].database, Store(), never).catch_up(settled or books.clock.now())


D, A, B = usage_pb2.UsageDimension, usage_pb2.UsageAggregation, usage_pb2.UsageBucket
START = datetime(2026, 3, 30, 21, 30, tzinfo=UTC)


@pytest.fixture(params=["records", "rollups"])
async def calls(books: Books, request: pytest.FixtureRequest) -> tuple[Person, Person, list[Record]]:
    """300 calls over four days and two months, by several keys, members and tags; rolled up or not yet."""
    rng = random.Random(7)
    person, publisher = await books.person(USD), await books.person()
    made = []
    for _ in range(300):
        call = books.call(person, publisher, rng.randrange(1, 1000), model=f"{publisher.username}/m{rng.randrange(2)}")
        moment = START + timedelta(seconds=rng.randrange(4 * 86_400))
        call.request_id = ids.new("req", int(moment.timestamp() * 1000))
        call.timestamp.FromDatetime(ids.timestamp(call.request_id))
        call.version, call.key_id = rng.choice(["1.0.0", "1.1.0"]), rng.choice(["key_a", "key_b"])
        call.user_id, call.latency_us = rng.choice(["usr_a", "usr_b", "usr_c"]), rng.randrange(1, 10**6)
        call.units["rows"] = rng.randrange(1, 50)
        if rng.random() < 0.5:
            call.units["input_tokens"] = rng.randrange(100)
        if rng.random() < 0.7:
            call.tags["team"] = rng.choice(["red", "blue"])
        if rng.random() < 0.3:
            call.tags["env"] = "prod"
        made.append(call)
    await books.send(*made)
    await books.settled()
    if request.param == "rollups":
        await rolled_up(books)
    return person, publisher, sorted(made, key=lambda r: r.request_id)


def _tags(r: Record) -> str:
    return ",".join(f"{k}={v}" for k, v in sorted(r.tags.items()))


_KEYS: dict[int, Callable[[Record], str]] = {
    D.USAGE_DIMENSION_MODEL: lambda r: r.model, D.USAGE_DIMENSION_VERSION: lambda r: r.version,
    D.USAGE_DIMENSION_KEY: lambda r: r.key_id, D.USAGE_DIMENSION_MEMBER: lambda r: r.user_id,
    D.USAGE_DIMENSION_TAG: _tags,
}  # fmt: skip
_STARTS: dict[int, Callable[[datetime], datetime | None]] = {
    B.USAGE_BUCKET_UNSPECIFIED: lambda t: None,
    B.USAGE_BUCKET_HOUR: lambda t: t.replace(minute=0, second=0, microsecond=0),
    B.USAGE_BUCKET_DAY: lambda t: t.replace(hour=0, minute=0, second=0, microsecond=0),
    B.USAGE_BUCKET_MONTH: lambda t: t.replace(day=1, hour=0, minute=0, second=0, microsecond=0),
}
_MAKE: dict[int, Callable[[list[int]], int]] = {
    A.USAGE_AGGREGATION_SUM: sum, A.USAGE_AGGREGATION_COUNT: len, A.USAGE_AGGREGATION_MAX: max,
    A.USAGE_AGGREGATION_UNIQUE: lambda v: len(set(v)), A.USAGE_AGGREGATION_LATEST: lambda v: v[-1],
}  # fmt: skip


def counted(
    records: Iterable[Record], meter: str, aggregation: int, bucket: int, by: Iterable[int] = ()
) -> dict[tuple[object, ...], int]:
    """What the answer must be: by bucket and the values of the dimensions, in their order."""
    groups: dict[tuple[object, ...], list[int]] = {}
    for r in records:
        known = {**r.units, "cost_nanos": r.cost_nanos, "latency_us": r.latency_us}
        if meter in known:
            key = (_STARTS[bucket](r.timestamp.ToDatetime(UTC)), *(_KEYS[d](r) for d in sorted(by)))
            groups.setdefault(key, []).append(known[meter])
    return {key: _MAKE[aggregation](values) for key, values in groups.items()}


_FIELD = {D.USAGE_DIMENSION_MODEL: "model", D.USAGE_DIMENSION_VERSION: "version", D.USAGE_DIMENSION_KEY: "key_id",
          D.USAGE_DIMENSION_MEMBER: "user_id", D.USAGE_DIMENSION_TAG: "tag"}  # fmt: skip


def shown(points: Iterable[usage_pb2.UsagePoint], by: Iterable[int] = ()) -> dict[tuple[object, ...], int]:
    def key(p: usage_pb2.UsagePoint) -> tuple[object, ...]:
        start = p.start_time.ToDatetime(UTC) if p.HasField("start_time") else None
        return start, *(getattr(p, _FIELD[d]) for d in sorted(by))

    return {key(p): p.value for p in points}


@pytest.mark.parametrize("by", [(), (1,), (1, 5), (2, 3, 4)])
@pytest.mark.parametrize("bucket", [0, 1, 2, 3])
async def test_every_aggregation_is_a_plain_count(
    books: Books, calls: tuple[Person, Person, list[Record]], bucket: int, by: tuple[int, ...]
) -> None:
    person, publisher, records = calls
    for meter in ("rows", "input_tokens", "cost_nanos", "latency_us"):
        for aggregation in _MAKE:
            request = usage_pb2.QueryUsageRequest(
                meter=meter, aggregation=aggregation, bucket=bucket, group_by=by  # type: ignore[arg-type]
            )  # fmt: skip
            got = await books.usage.QueryUsage(request, metadata=person.metadata)
            assert shown(got.points, by) == counted(records, meter, aggregation, bucket, by), (meter, aggregation)
            starts = [p.start_time.ToNanoseconds() for p in got.points]
            assert starts == sorted(starts)
            if set(by) <= {1, 2}:
                request.view = usage_pb2.USAGE_VIEW_PUBLISHER
                theirs = await books.usage.QueryUsage(request, metadata=publisher.metadata)
                assert theirs == got
                assert not (await books.usage.QueryUsage(request, metadata=person.metadata)).points


async def test_filters_and_single_tags(books: Books, calls: tuple[Person, Person, list[Record]]) -> None:
    person, _, records = calls
    model = records[0].model
    request = usage_pb2.QueryUsageRequest(
        meter="rows", model=model, version="1.0.0", key_id="key_a", user_id="usr_b", tags=["team=red"]
    )
    wanted = [r for r in records if (r.model, r.version, r.key_id, r.user_id, r.tags.get("team")) ==
              (model, "1.0.0", "key_a", "usr_b", "red")]  # fmt: skip
    got = await books.usage.QueryUsage(request, metadata=person.metadata)
    assert [p.value for p in got.points] == [sum(r.units["rows"] for r in wanted)]
    by_team = usage_pb2.QueryUsageRequest(meter="requests", group_by=[D.USAGE_DIMENSION_TAG], tag_name="team")
    got = await books.usage.QueryUsage(by_team, metadata=person.metadata)
    teams = [r.tags.get("team") for r in records]
    assert {p.tag: p.value for p in got.points} == {
        "team=red": teams.count("red"), "team=blue": teams.count("blue"), "": teams.count(None),
    }  # fmt: skip
    different = {
        D.USAGE_DIMENSION_MEMBER: 3, D.USAGE_DIMENSION_KEY: 2, D.USAGE_DIMENSION_MODEL: 2, D.USAGE_DIMENSION_VERSION: 4,
        D.USAGE_DIMENSION_TAG: len({_tags(r) for r in records}),
    }  # fmt: skip
    for unique_of, wanted_number in different.items():
        request = usage_pb2.QueryUsageRequest(
            meter="rows", aggregation=A.USAGE_AGGREGATION_UNIQUE, unique_of=unique_of
        )  # fmt: skip
        got = await books.usage.QueryUsage(request, metadata=person.metadata)
        assert [p.value for p in got.points] == [wanted_number]
    until = Timestamp()
    until.FromDatetime(records[99].timestamp.ToDatetime(UTC))
    request = usage_pb2.QueryUsageRequest(meter="requests", end_time=until)
    got = await books.usage.QueryUsage(request, metadata=person.metadata)
    assert [p.value for p in got.points] == [99]
    assert not (await books.usage.QueryUsage(request, metadata=(await books.person()).metadata)).points


async def test_what_publishers_may_not_ask_is_refused(books: Books) -> None:
    person = await books.person()
    request = usage_pb2.QueryUsageRequest(
        meter="rows", view=usage_pb2.USAGE_VIEW_PUBLISHER, group_by=[D.USAGE_DIMENSION_MEMBER]
    )
    with pytest.raises(grpc.RpcError) as refused:
        await books.usage.QueryUsage(request, metadata=person.metadata)
    assert [v.field for v in from_rpc_error(refused.value).violations] == ["group_by[0]"]
    with pytest.raises(grpc.RpcError) as refused:
        await books.usage.QueryUsage(usage_pb2.QueryUsageRequest(meter="Rows; --"), metadata=person.metadata)
    assert [v.field for v in from_rpc_error(refused.value).violations] == ["meter"]


async def test_an_answer_of_too_many_points_is_refused(books: Books, monkeypatch: pytest.MonkeyPatch) -> None:
    from services.usage import totals

    person, publisher = await books.person(USD), await books.person()
    await books.send(*(books.call(person, publisher, 0, model=f"{publisher.username}/m{n}") for n in range(4)))
    await books.settled()
    request = usage_pb2.QueryUsageRequest(meter="rows", group_by=[D.USAGE_DIMENSION_MODEL])
    monkeypatch.setattr(totals, "MOST", 4)
    assert len((await books.usage.QueryUsage(request, metadata=person.metadata)).points) == 4
    monkeypatch.setattr(totals, "MOST", 3)
    with pytest.raises(grpc.RpcError) as refused:
        await books.usage.QueryUsage(request, metadata=person.metadata)
    assert from_rpc_error(refused.value).reason == "QUERY_TOO_LARGE"
