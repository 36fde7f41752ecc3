"""From the stream to the table and to whom it concerns, over real servers."""

import asyncio
from datetime import UTC, datetime, timedelta

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from mercat.billing.v1 import billing_pb2
from mercat.event.v1 import event_pb2
from mercat.usage.v1 import usage_pb2

from services.common import ids
from services.common.errors import from_rpc_error
from services.common.events import EVENT_STREAM, USAGE_SUBJECT
from services.usage.store import Store
from tests.integration.billing.books import USD, Books, Person

CONSUMER, PUBLISHER = usage_pb2.USAGE_VIEW_CONSUMER, usage_pb2.USAGE_VIEW_PUBLISHER


async def _list(
    books: Books, person: Person, view: usage_pb2.UsageView.ValueType = CONSUMER, size: int = 0, model: str = ""
) -> list[usage_pb2.UsageRecord]:
    """All pages."""
    records: list[usage_pb2.UsageRecord] = []
    request = usage_pb2.ListUsageRequest(view=view, page_size=size, model=model)
    while True:
        page = await books.usage.ListUsage(request, metadata=person.metadata)
        assert len(page.records) <= (size or 50)
        records += page.records
        request.page_token = page.next_page_token
        if not request.page_token:
            return records


async def test_calls_are_listed_newest_first_whatever_the_page(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    calls = [books.call(person, publisher, 5, model=f"{publisher.username}/m{n % 2}") for n in range(7)]
    await books.send(*calls[:4])
    await books.send(*calls[4:])
    await books.settled()
    listed = await _list(books, person, size=3)
    assert listed == sorted(calls, key=lambda r: r.request_id, reverse=True)
    assert listed == await _list(books, person)
    assert len(await _list(books, person, model=f"{publisher.username}/m1")) == 3
    assert not await _list(books, await books.person())


async def test_publishers_see_calls_but_not_whose_key_made_them(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    call = books.call(person, publisher, 5)
    await books.send(call)
    await books.settled()
    (seen,) = await _list(books, publisher, PUBLISHER)
    assert (seen.request_id, seen.cost_nanos, seen.user_id, seen.key_id) == (call.request_id, 5, "", "")
    assert not await _list(books, publisher)
    assert not await _list(books, person, PUBLISHER)
    request = usage_pb2.GetUsageRecordRequest(request_id=call.request_id)
    mine = await books.usage.GetUsageRecord(request, metadata=person.metadata)
    assert mine.record == call
    theirs = await books.usage.GetUsageRecord(request, metadata=publisher.metadata)
    assert theirs.record == seen
    for outsider, wanted in (
        (await books.person(), call.request_id), (person, ids.new("req")), (person, "req_x"), (person, "nothing"),
    ):  # fmt: skip
        with pytest.raises(grpc.RpcError) as refused:
            await books.usage.GetUsageRecord(
                usage_pb2.GetUsageRecordRequest(request_id=wanted), metadata=outsider.metadata
            )  # fmt: skip
        assert from_rpc_error(refused.value).reason == "USAGE_RECORD_NOT_FOUND"


async def test_a_summary_adds_up_what_is_listed(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    calls = [books.call(person, publisher, n, model=f"{publisher.username}/m{n % 2}") for n in range(1, 8)]
    calls[0].units["tokens"] = 40
    await books.send(*calls)
    await books.settled()
    for who, view in ((person, CONSUMER), (publisher, PUBLISHER)):
        got = await books.usage.SummarizeUsage(usage_pb2.SummarizeUsageRequest(view=view), metadata=who.metadata)
        assert (got.calls, got.cost_nanos) == (7, sum(range(1, 8)))
        assert {m.model[-2:]: (m.calls, m.cost_nanos, m.mean_latency_us) for m in got.models} == {
            "m0": (3, 2 + 4 + 6, 1500), "m1": (4, 1 + 3 + 5 + 7, 1500),
        }  # fmt: skip
        units = {m.model[-2:]: dict(m.units) for m in got.models}
        assert units == {
            "m0": {"requests": 3, "rows": 9, "input_bytes": 360},
            "m1": {"requests": 4, "rows": 12, "input_bytes": 480, "tokens": 40},
        }
    later = Timestamp()
    later.FromDatetime(datetime.now(UTC) + timedelta(hours=1))
    request = usage_pb2.SummarizeUsageRequest(start_time=later)
    assert (await books.usage.SummarizeUsage(request, metadata=person.metadata)).calls == 0


async def test_a_time_that_ends_before_it_starts_is_refused(books: Books) -> None:
    person = await books.person()
    request = usage_pb2.ListUsageRequest(start_time=Timestamp(seconds=100), end_time=Timestamp(seconds=99))
    with pytest.raises(grpc.RpcError) as refused:
        await books.usage.ListUsage(request, metadata=person.metadata)
    assert [v.field for v in from_rpc_error(refused.value).violations] == ["end_time"]


@pytest.mark.parametrize(
    "bad", [Timestamp(seconds=10**15), Timestamp(seconds=-(10**15)), Timestamp(seconds=1, nanos=-5)]
)
@pytest.mark.parametrize("field", ["start_time", "end_time"])
async def test_a_time_that_is_none_is_refused(books: Books, bad: Timestamp, field: str) -> None:
    person = await books.person()
    span = {field: bad}
    for answer in (
        books.usage.ListUsage(usage_pb2.ListUsageRequest(**span), metadata=person.metadata),
        books.usage.SummarizeUsage(usage_pb2.SummarizeUsageRequest(**span), metadata=person.metadata),
        books.billing.GetStatement(billing_pb2.GetStatementRequest(**span), metadata=person.metadata),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            await answer
        assert [v.field for v in from_rpc_error(refused.value).violations] == [field]


async def test_two_consumers_of_the_same_messages_do_not_stop_each_other(books: Books) -> None:
    """A paused consumer's messages came back to another one, in another order; both store them at once."""
    person, publisher = await books.person(USD), await books.person()
    calls = [books.call(person, publisher, 0) for _ in range(3000)]
    database, store = books.deps["usage"].database, Store()

    async def add(records: list[usage_pb2.UsageRecord]) -> int:
        async with database.transaction() as connection:
            return len(await store.add_records(connection, records))

    for _ in range(3):
        added = await asyncio.gather(*(add(calls[::way]) for way in (1, -1, 1, -1)))
        assert sum(added) == len(calls)
        async with books.superuser("usage") as connection:
            await connection.execute("DELETE FROM usage_records WHERE org_id = $1", person.org_id)


async def test_the_stream_shows_ones_own_calls_as_they_are_stored(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    stream = books.usage.StreamUsage(usage_pb2.StreamUsageRequest(), metadata=person.metadata)
    mine = [books.call(person, publisher, 1) for _ in range(3)]
    reading = asyncio.create_task(_first(stream, 3))
    await asyncio.sleep(0.3)
    await books.send(books.call(publisher, publisher, 0), *mine)
    async with asyncio.timeout(20):
        assert await reading == mine
    stream.cancel()


async def test_who_watches_sees_a_burst_whole(books: Books) -> None:
    """More than fits one message of the broker, taken as one batch."""
    person, publisher = await books.person(USD), await books.person()
    stream = books.usage.StreamUsage(usage_pb2.StreamUsageRequest(), metadata=person.metadata)
    calls = [books.call(person, publisher, 0, model=f"{publisher.username}/{'m' * 900}") for _ in range(9900)]
    reading = asyncio.create_task(_first(stream, len(calls)))
    await asyncio.sleep(0.3)
    async with books.superuser("usage") as connection, connection.transaction():
        await connection.execute("LOCK TABLE usage_records IN EXCLUSIVE MODE")
        await books.send(books.call(publisher, publisher, 0))  # the consumer waits with this one
        await asyncio.sleep(0.3)
        await asyncio.gather(*(books.send(*calls[at : at + 300]) for at in range(0, len(calls), 300)))
    async with asyncio.timeout(20):
        assert {r.request_id for r in await reading} == {c.request_id for c in calls}
    stream.cancel()


async def _first(stream: object, count: int) -> list[usage_pb2.UsageRecord]:
    records: list[usage_pb2.UsageRecord] = []
    async for response in stream:  # type: ignore[attr-defined]
        records.append(response.record)
        if len(records) == count:
            break
    return records


async def test_statistics_of_each_model_are_told_once(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    calls = [books.call(person, publisher, 1) for _ in range(4)]
    await asyncio.gather(*(books.send(*calls) for _ in range(3)))
    await books.settled()
    subscription = await books.events.js.subscribe(
        "mercat.event.UsageStored", stream=EVENT_STREAM, ordered_consumer=True
    )
    told = event_pb2.UsageStored.Model()
    async with asyncio.timeout(10):
        while told.calls < 4:
            event = event_pb2.UsageStored.FromString((await subscription.next_msg(timeout=5)).data)
            for model in event.models:
                if model.model == calls[0].model:
                    told.calls += model.calls
                    told.latency_us_sum += model.latency_us_sum
    await subscription.unsubscribe()
    assert (told.calls, told.latency_us_sum) == (4, 6000)


async def test_what_billing_refuses_waits_and_is_posted_later(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    call = books.call(person, publisher, 100)
    stream = books.usage.StreamUsage(usage_pb2.StreamUsageRequest(), metadata=person.metadata)
    watching = asyncio.create_task(_first(stream, 1))
    await asyncio.sleep(0.3)
    async with books.superuser() as connection:
        await connection.execute("ALTER TABLE postings RENAME TO postings_away")
        try:
            await books.send(call)
            sent = datetime.now(UTC)
            async with asyncio.timeout(10):
                while not await _list(books, person):
                    await asyncio.sleep(0.05)
            watermark = await books.settlement.GetWatermark(usage_pb2.GetWatermarkRequest())
            assert (await books.wallet(person)).balance_nanos == USD
        finally:
            await connection.execute("ALTER TABLE postings_away RENAME TO postings")
    assert watermark.settled_through.ToDatetime(UTC) <= sent, "a lease of this time must not come back yet"
    await books.settled(30)
    assert (await books.wallet(person)).balance_nanos == USD - 100
    assert await _list(books, person) == [call]
    async with asyncio.timeout(20):
        assert await watching == [call], "who watches is told of what is recorded, whenever it is posted"
    stream.cancel()


async def test_a_message_that_cannot_be_read_holds_up_no_others(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    bad = event_pb2.UsageBatch(records=[usage_pb2.UsageRecord(request_id="nothing", cost_nanos=5)])
    marks = [await books.events.js.publish(USAGE_SUBJECT, data) for data in (b"\xff\xff", bad.SerializeToString())]
    calls = [books.call(person, publisher, 1) for _ in range(3)]
    for call in calls:
        await books.send(call)
    async with asyncio.timeout(15):
        while len(await _list(books, person)) < 3:
            await asyncio.sleep(0.05)
    async with asyncio.timeout(15):  # the acknowledgements of the others come after they are listed
        while (await books.events.js.stream_info("USAGE")).state.messages > len(marks):
            await asyncio.sleep(0.05)
    for mark in marks:  # what cannot be read is kept, not lost
        assert (await books.events.js.get_msg("USAGE", mark.seq)).seq == mark.seq
        await books.events.js.delete_msg("USAGE", mark.seq)


async def test_the_watermark_is_the_oldest_message_that_waits(books: Books) -> None:
    await books.settled()
    before = datetime.now(UTC)
    mark = await books.events.js.publish(USAGE_SUBJECT, b"\xff\xff")
    after = datetime.now(UTC)
    await asyncio.sleep(0.2)
    answer = await books.settlement.GetWatermark(usage_pb2.GetWatermarkRequest())
    assert before <= answer.settled_through.ToDatetime(UTC) <= after
    await books.events.js.delete_msg("USAGE", mark.seq)
    answer = await books.settlement.GetWatermark(usage_pb2.GetWatermarkRequest())
    assert answer.settled_through.ToDatetime(UTC) > after


async def test_the_export_is_whole_and_in_order(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    calls = [books.call(person, publisher, 1) for _ in range(2500)]
    for at in range(0, 2500, 500):
        await books.send(*calls[at : at + 500])
    await books.settled()
    exported = [
        record.request_id
        async for page in books.settlement.ExportUsage(usage_pb2.ExportUsageRequest())
        for record in page.records
    ]
    assert exported == sorted(exported)
    assert len(set(exported)) == len(exported)
    assert set(exported) >= {c.request_id for c in calls}


async def test_only_mercats_own_services_ask_for_settlement(books: Books) -> None:
    stranger = usage_pb2.GetWatermarkRequest()
    call = books.channel.unary_unary(
        "/mercat.usage.v1.SettlementService/GetWatermark",
        request_serializer=usage_pb2.GetWatermarkRequest.SerializeToString,
        response_deserializer=usage_pb2.GetWatermarkResponse.FromString,
    )
    with pytest.raises(grpc.RpcError) as refused:
        await call(stranger)
    assert from_rpc_error(refused.value).reason == "INTERNAL_ONLY"
