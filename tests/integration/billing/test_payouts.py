"""Payouts over real servers and a clock that is moved: held, paid once, and true to the calls behind them."""

import asyncio
from collections.abc import AsyncIterator

import grpc
import pytest
import pytest_asyncio
from mercat.billing.v1 import billing_pb2, payouts_pb2

from services.common.errors import from_rpc_error
from tests.integration.billing.months import DAY, USD, Invoice, Months, Person, passing, when

Payout, PayoutLine = payouts_pb2.Payout, payouts_pb2.PayoutLine
WEEKLY = payouts_pb2.PAYOUT_SCHEDULE_WEEKLY


@pytest_asyncio.fixture(scope="module")
async def months(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Months]:
    async with passing(tmp_path_factory.mktemp("payouts")) as made:
        yield made


async def connect(months: Months, person: Person) -> payouts_pb2.PayoutAccount:
    request = payouts_pb2.ConnectPayoutAccountRequest(schedule=WEEKLY)
    return (await months.books.payouts.ConnectPayoutAccount(request, metadata=person.metadata)).account


async def payouts(months: Months, person: Person) -> list[Payout]:
    got = await months.books.payouts.ListPayouts(payouts_pb2.ListPayoutsRequest(), metadata=person.metadata)
    found = []
    for one in reversed(got.payouts):
        request = payouts_pb2.GetPayoutRequest(payout_id=one.payout_id)
        found.append((await months.books.payouts.GetPayout(request, metadata=person.metadata)).payout)
    return found


async def until_paid(months: Months, person: Person, count: int) -> list[Payout]:
    async def there() -> list[Payout] | None:
        found = await payouts(months, person)
        return found if len(found) == count and found[-1].status == Payout.STATUS_PAID else None

    return await months.until(there)


async def earnings(months: Months, person: Person) -> billing_pb2.GetEarningsResponse:
    return await months.books.billing.GetEarnings(billing_pb2.GetEarningsRequest(), metadata=person.metadata)


async def payday(months: Months, person: Person) -> None:
    got = await months.books.payouts.GetPayoutAccount(payouts_pb2.GetPayoutAccountRequest(), metadata=person.metadata)
    months.advance_to(when(got.account.next_payout_at))


async def refund(months: Months, request_id: str, by: Person) -> payouts_pb2.CallRefund:
    request = payouts_pb2.RefundCallRequest(request_id=request_id, reason="it was wrong")
    return (await months.books.payouts.RefundCall(request, metadata=by.metadata)).refund


async def test_earnings_are_held_and_then_paid_with_a_report(months: Months) -> None:
    person, publisher = await months.person(1000 * USD), await months.person()
    assert (await connect(months, publisher)).ready
    calls = await months.call(person, publisher, *(USD + n for n in range(30)))
    earned = await months.books.earned(publisher)
    now = await earnings(months, publisher)
    assert (now.payable_nanos, now.held_nanos, now.available_nanos, now.paid_nanos) == (earned, earned, 0, 0)
    await payday(months, publisher)
    await asyncio.sleep(2.5)  # seven days have passed, but not since it was posted
    months.advance(7 * DAY)
    (payout,) = await until_paid(months, publisher, 1)
    assert payout.amount_nanos == earned // (USD // 100) * (USD // 100)
    assert sum(line.amount_nanos for line in payout.lines) == payout.amount_nanos
    assert [(line.kind, line.model, line.count) for line in payout.lines] == [
        (PayoutLine.KIND_CALLS, f"{publisher.username}/m", 30), (PayoutLine.KIND_CARRIED, "", 0),
    ]  # fmt: skip
    found = []
    request = payouts_pb2.ListPayoutCallsRequest(payout_id=payout.payout_id, page_size=7)
    while True:
        page = await months.books.payouts.ListPayoutCalls(request, metadata=publisher.metadata)
        found += page.calls
        request.page_token = page.next_page_token
        if not request.page_token:
            break
    assert {c.record.request_id for c in found} == {c.request_id for c in calls}
    assert sum(c.amount_nanos for c in found) == payout.lines[0].amount_nanos == earned
    after = await earnings(months, publisher)
    assert (after.paid_nanos, after.payable_nanos) == (payout.amount_nanos, earned - payout.amount_nanos)
    checked = await months.check()
    assert checked.balances_nanos.get("payout_clearing", 0) == 0


async def test_less_than_the_minimum_waits_for_more(months: Months) -> None:
    person, publisher = await months.person(1000 * USD), await months.person()
    await connect(months, publisher)
    await months.call(person, publisher, 5 * USD)
    months.advance(15 * DAY)
    await asyncio.sleep(2.5)
    assert await payouts(months, publisher) == []
    await months.call(person, publisher, 20 * USD)
    months.advance(15 * DAY)
    (payout,) = await until_paid(months, publisher, 1)
    assert payout.amount_nanos == 20 * USD
    assert payout.lines[0].count == 2
    await months.check()


async def test_a_refund_after_the_payout_is_settled_by_the_next_earnings(months: Months) -> None:
    person, publisher = await months.person(1000 * USD), await months.person()
    await connect(months, publisher)
    (call,) = await months.call(person, publisher, 50 * USD)
    months.advance(15 * DAY)
    await until_paid(months, publisher, 1)
    before = await months.balance(person)
    made = await refund(months, call.request_id, publisher)
    assert made.amount_nanos == 50 * USD
    assert await refund(months, call.request_id, publisher) == made, "once"
    assert await months.balance(person) == before + 50 * USD
    owed = await earnings(months, publisher)
    assert (owed.payable_nanos, owed.available_nanos) == (-40 * USD, 0)
    await months.call(person, publisher, 100 * USD)
    months.advance(15 * DAY)
    _, payout = await until_paid(months, publisher, 2)
    assert payout.amount_nanos == 40 * USD
    assert [(x.kind, x.count, x.amount_nanos) for x in payout.lines] == [
        (PayoutLine.KIND_CALLS, 1, 80 * USD), (PayoutLine.KIND_REFUNDS, 1, -40 * USD),
    ]  # fmt: skip
    await months.check()


async def test_corrections_either_way_are_in_the_next_payout(months: Months) -> None:
    person, publisher = await months.person(1000 * USD), await months.person()
    await connect(months, publisher)
    price_id = await months.books.price(publisher, rows=10 * USD * 1_000_000)
    calls = [months.books.call(person, publisher, 30 * USD) for _ in range(2)]
    for call in calls:
        call.price_id = price_id
    await months.books.charge(*calls)
    months.advance(15 * DAY)
    (first,) = await until_paid(months, publisher, 1)
    assert first.amount_nanos == 48 * USD
    await months.books.correct(calls[0].request_id, units={"rows": 8})
    await months.books.correct(calls[1].request_id, units={"rows": 2})
    assert await months.books.earned(publisher) == 32 * USD
    months.advance(15 * DAY)
    _, second = await until_paid(months, publisher, 2)
    assert [(x.kind, x.count, x.amount_nanos) for x in second.lines] == [(PayoutLine.KIND_REFUNDS, 2, 32 * USD)]
    assert await months.books.earned(publisher) == 0
    await months.check()


async def test_calls_whose_records_are_gone_are_paid_and_billed(months: Months) -> None:
    person, publisher = await months.person(1000 * USD), await months.person()
    await months.call(person, publisher, 30 * USD)
    months.advance_to(when((await months.subscription(person)).current_period_end))
    (before,) = await months.until_invoices(person, 1)
    await months.call(person, publisher, 20 * USD, 10 * USD)
    async with months.books.superuser("usage") as connection:
        kept = await connection.fetch("SELECT to_jsonb(r)::text FROM usage_records r WHERE org_id = $1", person.org_id)
        await connection.execute("DELETE FROM usage_records WHERE org_id = $1", person.org_id)
        try:
            await connect(months, publisher)
            months.advance_to(when((await months.subscription(person)).current_period_end))
            _, after = await months.until_invoices(person, 2)
            assert [(x.model, x.calls, x.amount_nanos) for x in after.lines] == [("", 2, 30 * USD)]
            assert sum(c.amount_nanos for c in await months.opened(person, after, after.lines[0])) == 30 * USD
            with pytest.raises(grpc.RpcError) as refused:
                await months.opened(person, before, before.lines[0])
            assert from_rpc_error(refused.value).reason == "CALLS_NOT_KEPT"
            (payout,) = await until_paid(months, publisher, 1)
            assert [(x.kind, x.model, x.count, x.amount_nanos) for x in payout.lines] == [
                (PayoutLine.KIND_CALLS, "", 3, 48 * USD)
            ]
        finally:
            await connection.executemany(
                "INSERT INTO usage_records SELECT * FROM jsonb_populate_record(NULL::usage_records, $1::text::jsonb)",
                [tuple(row) for row in kept],
            )
    await months.check()


async def test_a_call_on_a_final_invoice_that_is_refunded_has_a_credit_note(months: Months) -> None:
    person, publisher = await months.person(1000 * USD), await months.person()
    calls = await months.call(person, publisher, 3 * USD, 2 * USD)
    months.advance_to(when((await months.subscription(person)).current_period_end))
    (first,) = await months.until_invoices(person, 1)
    await refund(months, calls[0].request_id, publisher)
    (kept,) = await months.call(person, publisher, 7 * USD)
    months.advance_to(when((await months.subscription(person)).current_period_end))
    _, second = await months.until_invoices(person, 2)
    assert await months.get(person, first.invoice_id) == first
    assert [(line.amount_nanos, line.calls) for line in second.lines] == [(7 * USD, 1)]
    (opened,) = await months.opened(person, second, second.lines[0])
    assert (opened.record.request_id, opened.amount_nanos) == (kept.request_id, 7 * USD)
    (note,) = [i for i in await months.invoices(person) if i.kind == Invoice.KIND_CREDIT_NOTE]
    assert (note.total_nanos, note.corrects_number) == (-3 * USD, first.number)
    await months.check()
    months.advance_to(when((await months.subscription(publisher)).current_period_end))
    await asyncio.sleep(2.5)
    months.advance(DAY)

    async def statements() -> list[Invoice] | None:
        found = [i for i in await months.invoices(publisher) if i.kind == Invoice.KIND_SELF_BILLING]
        return found if found else None

    assert sum(i.total_nanos for i in await months.until(statements)) == await months.books.earned(publisher)
    await months.check()


async def test_who_may_refund_a_call(months: Months) -> None:
    person, publisher, other = await months.person(USD), await months.person(), await months.person()
    paid, = await months.call(person, publisher, 1000)  # fmt: skip
    free, = await months.call(person, publisher, 0)  # fmt: skip
    for by, call, reason in (
        (other, paid, "USAGE_RECORD_NOT_FOUND"), (person, paid, "USAGE_RECORD_NOT_FOUND"),
        (publisher, free, "CALL_NOT_REFUNDABLE"),
    ):  # fmt: skip
        with pytest.raises(grpc.RpcError) as refused:
            await refund(months, call.request_id, by)
        assert from_rpc_error(refused.value).reason == reason
    by_admin = Person("", "", await months.books.admin())
    made = await asyncio.gather(*(refund(months, paid.request_id, by_admin) for _ in range(5)))
    assert len({m.refund_id for m in made}) == 1
    assert await months.balance(person) == USD
    await months.check()


async def test_without_an_account_nothing_is_paid(months: Months) -> None:
    publisher = await months.person()
    request = payouts_pb2.GetPayoutAccountRequest()
    with pytest.raises(grpc.RpcError) as refused:
        await months.books.payouts.GetPayoutAccount(request, metadata=publisher.metadata)
    assert from_rpc_error(refused.value).reason == "PAYOUT_ACCOUNT_NOT_FOUND"


async def test_a_transfer_that_is_refused_is_payable_again(months: Months) -> None:
    person, publisher = await months.person(1000 * USD), await months.person()
    account = await connect(months, publisher)
    async with months.books.superuser() as connection:
        away = "UPDATE sandbox_objects SET kind = $2 WHERE id = $1"
        await connection.execute(away, account.provider_account, "account_closed")
        await months.call(person, publisher, 50 * USD)
        months.advance(15 * DAY)

        async def failed() -> Payout | None:
            found = await payouts(months, publisher)
            return found[-1] if found and found[-1].status == Payout.STATUS_FAILED else None

        payout = await months.until(failed)
        assert payout.failure_code == "resource_missing"
        assert await months.books.earned(publisher) == 40 * USD
        await months.check()
        await connection.execute(away, account.provider_account, "account")
    months.advance(8 * DAY)
    _, again = await until_paid(months, publisher, 2)
    assert again.amount_nanos == 40 * USD
    assert [x.kind for x in again.lines] == [PayoutLine.KIND_CARRIED]
    await months.check()
