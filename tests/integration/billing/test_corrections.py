"""A call corrected: units, money and records follow, the books stay clean, and nothing that was is changed."""

import asyncio
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import asyncpg
import grpc
import pytest
from mercat.auth.v1 import auth_pb2
from mercat.billing.v1 import billing_pb2, budgets_pb2, corrections_pb2, payouts_pb2
from mercat.event.v1 import event_pb2
from mercat.usage.v1 import usage_pb2

from services.common import ids
from services.common.errors import InsufficientCredit, from_rpc_error
from services.common.events import EVENT_STREAM
from tests.integration.billing.books import USD, Books, Person


@dataclass
class Paid:
    """A posted call of 3 rows at 1,000 nanos each, of which a fifth is the platform's."""

    consumer: Person
    publisher: Person
    call: usage_pb2.UsageRecord


@pytest.fixture
async def paid(books: Books) -> Paid:
    consumer, publisher = await books.person(USD), await books.person()
    call = books.call(consumer, publisher, 3000)
    call.price_id = await books.price(publisher, rows=1000 * 1_000_000, output_tokens=1_000_000)
    await books.send(call)
    await books.settled()
    return Paid(consumer, publisher, call)


async def _record(books: Books, person: Person, request_id: str, corrections: int) -> usage_pb2.UsageRecord:
    """The record, once usage knows so many corrections of it."""
    request = usage_pb2.GetUsageRecordRequest(request_id=request_id)
    async with asyncio.timeout(10):
        while True:
            got = await books.usage.GetUsageRecord(request, metadata=person.metadata)
            if len(got.record.corrections) == corrections:
                return got.record
            await asyncio.sleep(0.05)


async def _balances(books: Books, paid: Paid) -> tuple[int, int]:
    return (await books.wallet(paid.consumer)).balance_nanos - USD, await books.earned(paid.publisher)


async def _clean(books: Books) -> None:
    checked = await books.check()
    assert checked.clean, checked.discrepancies


async def test_each_correction_is_relative_to_the_one_before(books: Books, paid: Paid) -> None:
    request_id = paid.call.request_id
    fewer = await books.correct(request_id, units={"rows": 1}, reason="counted twice")
    assert (dict(fewer.units), fewer.cost_nanos) == ({"requests": 1, "rows": 1, "input_bytes": 120}, 1000)
    assert (dict(fewer.correction.units), fewer.correction.cost_nanos) == ({"rows": -2}, -2000)
    assert await _balances(books, paid) == (-1000, 800)
    more = await books.correct(request_id, units={"rows": 4, "output_tokens": 7})
    assert (dict(more.correction.units), more.correction.cost_nanos) == ({"rows": 3, "output_tokens": 7}, 3007)
    assert await _balances(books, paid) == (-4007, 4007 - 801)
    void = await books.correct(request_id, void=True)
    assert (sum(void.units.values()), void.cost_nanos, void.correction.cost_nanos) == (0, 0, -4007)
    assert await _balances(books, paid) == (0, 0)
    record = await _record(books, paid.consumer, request_id, 3)
    assert [c.cost_nanos for c in record.corrections] == [-2000, 3007, -4007]
    assert record.corrections[0].reason == "counted twice"
    assert record.corrections[2] == void.correction
    record.ClearField("corrections")
    assert record == paid.call, "the record itself stays as it was"
    await _clean(books)


async def test_the_same_again_changes_nothing(books: Books, paid: Paid) -> None:
    one = await books.correct(paid.call.request_id, units={"rows": 2})
    answers = await asyncio.gather(*(books.correct(paid.call.request_id, units={"rows": 2}) for _ in range(5)))
    assert all(answer == one for answer in answers)
    assert await _balances(books, paid) == (-2000, 1600)
    await _record(books, paid.consumer, paid.call.request_id, 1)
    await _clean(books)


async def test_corrections_at_once_come_one_after_the_other(books: Books, paid: Paid) -> None:
    await asyncio.gather(*(books.correct(paid.call.request_id, units={"rows": n}) for n in range(10, 18)))
    record = await _record(books, paid.consumer, paid.call.request_id, 8)
    rows = 3 + sum(c.units["rows"] for c in record.corrections)
    assert await _balances(books, paid) == (-1000 * rows, 800 * rows)
    await _clean(books)


async def test_sums_lists_and_statements_show_it(books: Books, paid: Paid) -> None:
    await books.correct(paid.call.request_id, units={"rows": 1})
    await _record(books, paid.consumer, paid.call.request_id, 1)
    for person, view in (
        (paid.consumer, usage_pb2.USAGE_VIEW_CONSUMER),
        (paid.publisher, usage_pb2.USAGE_VIEW_PUBLISHER),
    ):
        summary = await books.usage.SummarizeUsage(usage_pb2.SummarizeUsageRequest(view=view), metadata=person.metadata)
        assert (summary.calls, summary.cost_nanos, summary.models[0].units["rows"]) == (1, 1000, 1)
        assert summary.models[0].mean_latency_us == 1500
        listed = await books.usage.ListUsage(usage_pb2.ListUsageRequest(view=view), metadata=person.metadata)
        assert [(r.cost_nanos, [c.cost_nanos for c in r.corrections]) for r in listed.records] == [(3000, [-2000])]
        for aggregation, value in ((1, 1), (2, 1), (3, 1), (4, 1), (5, 1)):
            query = usage_pb2.QueryUsageRequest(view=view, meter="rows", aggregation=aggregation)  # type: ignore[arg-type]
            got = await books.usage.QueryUsage(query, metadata=person.metadata)
            assert [p.value for p in got.points] == [value], aggregation
    count = usage_pb2.CountCallsRequest(org_id=paid.consumer.org_id)
    assert (await books.settlement.CountCalls(count)).calls == 1
    statement = await books.billing.GetStatement(billing_pb2.GetStatementRequest(), metadata=paid.consumer.metadata)
    assert {(e.cause[:4], e.amount_nanos) for e in statement.entries} == {
        ("cor_", 2000),
        ("req_", -3000),
        ("topu", USD),
    }
    assert statement.closing_nanos == USD - 1000


async def test_a_correction_counts_in_the_time_of_the_call(books: Books) -> None:
    consumer, publisher = await books.person(USD), await books.person()
    call = books.call(consumer, publisher, 3000)
    call.request_id = ids.new("req", int((books.clock.now() - timedelta(days=70)).timestamp() * 1000))
    call.timestamp.FromDatetime(ids.timestamp(call.request_id))
    call.price_id = await books.price(publisher, rows=1000 * 1_000_000)
    await books.send(call)
    await books.settled()
    await books.correct(call.request_id, units={"rows": 5})
    await _record(books, consumer, call.request_id, 1)
    query = usage_pb2.QueryUsageRequest(meter="cost_nanos", bucket=usage_pb2.USAGE_BUCKET_DAY)
    (point,) = (await books.usage.QueryUsage(query, metadata=consumer.metadata)).points
    assert (point.value, point.start_time.ToDatetime().date()) == (5000, call.timestamp.ToDatetime().date())
    await _clean(books)


async def test_a_free_call_may_cost_something_in_truth(books: Books) -> None:
    consumer, publisher = await books.person(USD), await books.person()
    call = books.call(consumer, publisher, 0)
    call.price_id = await books.price(publisher, output_tokens=1000 * 1_000_000)
    await books.send(call)
    await books.settled()
    for tokens, cost in ((5, 5000), (2, 2000), (9, 9000), (0, 0)):
        await books.correct(call.request_id, units={"output_tokens": tokens})
        balance = (await books.wallet(consumer)).balance_nanos
        assert (USD - balance, await books.earned(publisher)) == (cost, cost * 8 // 10)
    await _record(books, consumer, call.request_id, 4)
    await _clean(books)


async def test_a_test_call_costs_nothing_in_truth_as_well(books: Books) -> None:
    consumer, publisher = await books.person(USD), await books.person()
    call = books.call(consumer, publisher, 0, test=True)
    call.price_id = await books.price(publisher, rows=1000 * 1_000_000)
    await books.send(call)
    await books.settled()
    assert (await books.correct(call.request_id, units={"rows": 500})).cost_nanos == 0
    assert (await books.wallet(consumer)).balance_nanos == USD
    await _record(books, consumer, call.request_id, 1)
    await _clean(books)


async def test_a_debit_is_posted_though_the_wallet_does_not_hold_it(books: Books, paid: Paid) -> None:
    await books.correct(paid.call.request_id, units={"rows": 2_000_000})
    assert (await books.wallet(paid.consumer)).balance_nanos == USD - 2 * USD
    await _record(books, paid.consumer, paid.call.request_id, 1)
    await _clean(books)
    with pytest.raises(InsufficientCredit):
        await books.acquire(paid.consumer, 1)
    await books.top_up(paid.consumer, USD + 1)
    assert (await books.acquire(paid.consumer, 1)).granted_nanos == 1
    # What no correction explains is still named.
    async with books.superuser() as connection:
        wallet = await connection.fetchval("SELECT account_id FROM wallets WHERE org_id = $1", paid.consumer.org_id)
        move = "UPDATE balances SET balance = balance + $2 WHERE account_id = $1"
        await connection.execute(move, wallet, -3 * USD)
        codes = {d.code for d in (await books.check()).discrepancies}
        await connection.execute(move, wallet, 3 * USD)
    assert codes == {"BALANCE_DIFFERS", "WALLET_NEGATIVE"}


async def test_others_are_told_all_that_a_note_needs(books: Books, paid: Paid) -> None:
    done = await books.correct(paid.call.request_id, units={"rows": 1}, reason="why")
    subscription = await books.events.js.subscribe(
        "mercat.event.UsageCorrected", stream=EVENT_STREAM, ordered_consumer=True
    )
    async with asyncio.timeout(10):
        event = event_pb2.UsageCorrected()
        while event.record.corrects != paid.call.request_id:
            event = event_pb2.UsageCorrected.FromString((await subscription.next_msg(timeout=5)).data)
    await subscription.unsubscribe()
    record = event.record
    assert (record.request_id, record.timestamp) == (done.correction.correction_id, paid.call.timestamp)
    assert (record.org_id, record.publisher_org_id) == (paid.consumer.org_id, paid.publisher.org_id)
    assert (dict(record.units), record.cost_nanos, event.fee_nanos) == ({"rows": -2}, -2000, -400)
    assert (event.reason, record.model, record.price_id) == ("why", paid.call.model, paid.call.price_id)


@pytest.mark.parametrize(
    ("asked", "field"),
    [
        ({}, "units"), ({"units": {"rows": 1}, "void": True}, "units"), ({"units": {"rows": 3}}, "units"),
        ({"units": {"colours": 1}}, "units['colours']"), ({"units": {"rows": -1}}, "units['rows']"),
        ({"units": {"rows": 1}, "reason": ""}, "reason"),
    ],
)  # fmt: skip
async def test_what_is_no_correction_is_named(books: Books, paid: Paid, asked: dict[str, object], field: str) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        await books.correct(paid.call.request_id, **asked)
    assert [v.field for v in from_rpc_error(refused.value).violations] == [field]


async def test_who_may_not_and_what_is_not(books: Books, paid: Paid) -> None:
    for request_id in (ids.new("req"), "nothing"):
        with pytest.raises(grpc.RpcError) as refused:
            await books.correct(request_id, void=True)
        assert from_rpc_error(refused.value).reason == "USAGE_RECORD_NOT_FOUND"
    request = corrections_pb2.CorrectUsageRequest(request_id=paid.call.request_id, void=True, reason="mine")
    with pytest.raises(grpc.RpcError) as refused:
        await books.corrections.CorrectUsage(request, metadata=paid.publisher.metadata)
    assert from_rpc_error(refused.value).reason in ("SCOPE_MISSING", "ROLE_MISSING")


async def test_what_is_edited_of_a_correction_is_named(books: Books, paid: Paid) -> None:
    done = await books.correct(paid.call.request_id, units={"rows": 1})
    correction_id = done.correction.correction_id
    await _record(books, paid.consumer, paid.call.request_id, 1)
    await _clean(books)

    async def found(schema: str, change: str, undo: str) -> set[tuple[str, str]]:
        async with books.superuser(schema) as connection:
            await connection.execute(change, correction_id)
            try:
                return {(d.code, d.subject) for d in (await books.check()).discrepancies}
            finally:
                await connection.execute(undo, correction_id)

    more = "UPDATE corrections SET {0} = {0} {1} 1 WHERE id = $1"
    for column in ("cost_change", "fee_change", "cost", "credit_back", "number"):
        assert await found("billing", more.format(column, "+"), more.format(column, "-")) == {
            ("CORRECTION_DIFFERS", correction_id)
        }
    assert await found(
        "usage", "UPDATE usage_records SET cost = cost + 1 WHERE request_id = $1",
        "UPDATE usage_records SET cost = cost - 1 WHERE request_id = $1",
    ) == {("CORRECTION_DIFFERS", correction_id)}  # fmt: skip
    posting = ids.sibling("pst", correction_id)
    assert await found(
        "billing",
        "UPDATE corrections SET id = id || 'x' WHERE id = $1",
        "UPDATE corrections SET id = $1 WHERE id = $1 || 'x'",
    ) == {("POSTING_UNEXPLAINED", posting), ("CORRECTION_DIFFERS", correction_id + "x")}
    await _clean(books)
    connection = await asyncpg.connect(books.postgres_url)
    try:
        with pytest.raises(asyncpg.RaiseError, match="immutable"):
            await connection.execute("UPDATE billing.corrections SET cost = 0")
    finally:
        await connection.close()


async def test_it_stays_where_it_was_in_its_month_at_its_discount(books: Books) -> None:
    consumer, publisher = await books.person(USD), await books.person()
    price = billing_pb2.Price(price_id=ids.new("prc"), model_id=ids.new("mdl"), model="x/m", currency="USD")
    tiers = price.components.add(meter="rows", tier_mode=billing_pb2.TIER_MODE_GRADUATED).tiers
    tiers.add(up_to=1000, nanos_per_million=2_000_000_000)
    tiers.add(nanos_per_million=1_000_000_000)
    call = books.call(consumer, publisher, 15_000)
    call.units["rows"], call.price_id = 20, await books.priced(price)
    call.rating.positions["rows"], call.rating.discount_ppm = 990, 500_000
    await books.charge(call)
    await _clean(books)
    for rows, cost in ((10, 10_000), (30, 20_000), (20, 15_000)):
        assert (await books.correct(call.request_id, units={"rows": rows})).cost_nanos == cost
    record = await _record(books, consumer, call.request_id, 3)
    assert record.rating == call.rating
    assert (await books.wallet(consumer)).balance_nanos == USD - 15_000
    await _clean(books)


async def test_what_credit_paid_comes_back_to_its_grant(books: Books) -> None:
    consumer, publisher = await books.person(USD), await books.person()
    grant = await books.give(consumer, 2000, lasts=3600)
    lease = await books.acquire(consumer, 3000)
    call = books.call(consumer, publisher, 3000, lease_id=lease.lease_id)
    call.price_id = await books.price(publisher, rows=1000 * 1_000_000)
    await books.charge(call)
    await books.close(lease.lease_id, 3000)

    async def held() -> tuple[int, int]:
        wallet = await books.wallet(consumer)
        return wallet.balance_nanos - USD, wallet.promotional_nanos

    assert await held() == (-1000, 0)
    # What the wallet paid comes back first: credit pays what it would have paid of a call of two rows, and of one.
    for rows, expected in ((2, (0, 0)), (1, (0, 1000)), (4, (-3000, 1000)), (2, (-1000, 1000)), (0, (0, 2000))):
        await books.correct(call.request_id, units={"rows": rows})
        assert await held() == expected
    (back,) = await books.grants(consumer)
    assert (back.grant_id, back.remaining_nanos) == (grant.grant_id, 2000)
    assert await books.earned(publisher) == 0
    await _record(books, consumer, call.request_id, 5)
    await _clean(books)
    # And is spent again.
    again = books.call(consumer, publisher, 1500)
    await books.charge(again)
    assert await held() == (0, 500)
    await _clean(books)


async def test_credit_that_has_expired_meanwhile_is_no_credit_again(books: Books) -> None:
    consumer, publisher = await books.person(USD), await books.person()
    await books.give(consumer, 3000, lasts=60)
    calls = [books.call(consumer, publisher, 1000) for _ in range(2)]
    for call in calls:
        call.price_id = await books.price(publisher, requests=1000 * 1_000_000)
    await books.charge(*calls)
    books.clock.moved += timedelta(seconds=61)
    lapsed = []
    for call in calls:
        async with asyncio.timeout(20):
            while not (grants := await books.grants(consumer))[0].expired_nanos > sum(lapsed):
                await asyncio.sleep(0.05)
        lapsed.append(grants[0].expired_nanos - sum(lapsed))
        await books.correct(call.request_id, void=True)
        await _record(books, consumer, call.request_id, 1)
    async with asyncio.timeout(20):
        while (await books.grants(consumer))[0].expired_nanos < 3000:
            await asyncio.sleep(0.05)
    assert lapsed == [1000, 1000]
    wallet = await books.wallet(consumer)
    assert (wallet.balance_nanos, wallet.promotional_nanos) == (USD, 0)
    await _clean(books)


async def test_budgets_follow_corrections_and_refunds(books: Books) -> None:
    consumer, publisher = await books.person(USD), await books.person()
    made = await books.auth.CreateApiKey(auth_pb2.CreateApiKeyRequest(name="tests"), metadata=consumer.metadata)
    key_id = made.api_key.key_id
    for name, of in (("all", ""), ("other", key_id)):
        budget = budgets_pb2.SetBudgetRequest(name=name, key_id=of, period=2, limit_nanos=10_000, thresholds=[50])
        await books.budgets.SetBudget(budget, metadata=consumer.metadata)
    calls = [books.call(consumer, publisher, 3000), books.call(consumer, publisher, 2000, key_id=key_id)]
    calls[0].price_id = await books.price(publisher, rows=1000 * 1_000_000)
    await books.charge(*calls)

    async def spent() -> dict[str, int]:
        got = await books.budgets.ListBudgets(budgets_pb2.ListBudgetsRequest(), metadata=consumer.metadata)
        return {b.name: b.spent_nanos for b in got.budgets}

    assert await spent() == {"all": 5000, "other": 2000}
    await books.correct(calls[0].request_id, units={"rows": 5})
    assert await spent() == {"all": 7000, "other": 2000}
    await books.correct(calls[0].request_id, units={"rows": 1})
    refund = payouts_pb2.RefundCallRequest(request_id=calls[1].request_id, reason="it was wrong")
    await books.payouts.RefundCall(refund, metadata=await books.admin())
    assert await spent() == {"all": 1000, "other": 0}
    await _record(books, consumer, calls[0].request_id, 2)
    await _clean(books)
    async with books.superuser() as connection:
        edit = "UPDATE spending SET spent = spent + $2 WHERE org_id = $1 AND key_id = 'key_x'"
        await connection.execute(edit, consumer.org_id, 2000)
        codes = {d.code for d in (await books.check()).discrepancies}
        await connection.execute(edit, consumer.org_id, -2000)
    assert codes == {"SPENDING_DIFFERS"}


async def test_a_call_is_corrected_or_refunded_but_not_both(books: Books, paid: Paid) -> None:
    async def refused(call: grpc.aio.UnaryUnaryCall[Any, Any]) -> str:
        with pytest.raises(grpc.RpcError) as caught:
            await call
        return from_rpc_error(caught.value).reason

    async def refund(request_id: str) -> grpc.aio.UnaryUnaryCall[Any, Any]:
        request = payouts_pb2.RefundCallRequest(request_id=request_id, reason="it was wrong")
        return books.payouts.RefundCall(request, metadata=await books.admin())

    other = books.call(paid.consumer, paid.publisher, 500)
    await books.charge(other)
    await books.correct(paid.call.request_id, units={"rows": 1})
    assert await refused(await refund(paid.call.request_id)) == "CALL_NOT_REFUNDABLE"
    await (await refund(other.request_id))
    request = corrections_pb2.CorrectUsageRequest(request_id=other.request_id, void=True, reason="a test")
    admin = await books.admin()
    assert await refused(books.corrections.CorrectUsage(request, metadata=admin)) == "CALL_REFUNDED"
    assert await _balances(books, paid) == (-1000, 800)
    await _record(books, paid.consumer, paid.call.request_id, 1)
    await _clean(books)
