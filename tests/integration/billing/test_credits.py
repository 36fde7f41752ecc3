"""Credit over real servers: in which order it is spent, what becomes of it when it expires, and wallets below zero."""

import asyncio
from datetime import UTC, timedelta

import grpc
import pytest
from mercat.billing.v1 import billing_pb2, credits_pb2

from services.common import ids
from services.common.errors import InsufficientCredit
from tests.expect import failed
from tests.integration.billing.books import USD, Books, Person

Type = billing_pb2.Transaction.Type


async def left(books: Books, person: Person) -> list[int]:
    """Of each grant, oldest first."""
    return [grant.remaining_nanos for grant in reversed(await books.grants(person))]


async def moved(books: Books, person: Person, cause: str) -> dict[str, int]:
    """What a posting did to the person's accounts."""
    statement = await books.billing.GetStatement(billing_pb2.GetStatementRequest(), metadata=person.metadata)
    return {e.account: e.amount_nanos for e in statement.entries if e.cause == cause}


async def test_calls_spend_by_priority_then_expiry_then_age_and_the_wallet_last(books: Books) -> None:
    person, publisher = await books.person(USD), await books.person()
    for priority, lasts in ((1, None), (1, 5000), (1, 4000), (0, None), (1, 4000)):
        await books.give(person, 100, priority=priority, lasts=lasts)
    wallet = await books.wallet(person)
    assert (wallet.balance_nanos, wallet.promotional_nanos, wallet.available_nanos) == (USD, 500, USD + 500)
    lease = await books.acquire(person, 1000)
    costs = {70: [100, 100, 100, 30, 100], 90: [100, 100, 40, 0, 100], 60: [100, 100, 0, 0, 80]}
    for cost, expected in costs.items():
        await books.charge(books.call(person, publisher, cost, lease_id=lease.lease_id))
        assert await left(books, person) == expected
    last = books.call(person, publisher, 300, lease_id=lease.lease_id)
    await books.charge(last)
    assert await left(books, person) == [0, 0, 0, 0, 0]
    assert await moved(books, person, last.request_id) == {"promotional_credit": -280, "customer_wallet": -20}
    assert (await books.wallet(person)).balance_nanos == USD - 20
    assert await books.earned(publisher) == (70 + 90 + 60 + 300) * 8 // 10
    await books.close(lease.lease_id, 520)
    assert (await books.check()).clean


async def test_posting_again_spends_no_credit_twice(books: Books) -> None:
    person, publisher = await books.person(), await books.person()
    await books.give(person, 1000)
    lease = await books.acquire(person, 300)
    calls = [books.call(person, publisher, 100, lease_id=lease.lease_id) for _ in range(3)]
    for some in (calls[:2], calls[1:], calls):
        await books.charge(*some)
    assert await left(books, person) == [700]
    await books.close(lease.lease_id, 300)
    assert (await books.check()).clean


async def test_a_grant_is_given_once_under_one_key_and_is_a_transaction(books: Books) -> None:
    person = await books.person()
    first = await books.give(person, USD, key="once")
    assert await books.give(person, USD, key="once") == first
    assert await books.grants(person) == [first]
    listed = await books.billing.ListTransactions(billing_pb2.ListTransactionsRequest(), metadata=person.metadata)
    assert [(t.type, t.amount_nanos) for t in listed.transactions] == [(Type.TYPE_CREDIT_GRANT, USD)]
    checked = await books.check()
    assert checked.clean
    assert checked.balances_nanos["promotion_expense"] <= -USD


async def test_what_is_left_expires_when_no_call_can_spend_it_any_more(books: Books) -> None:
    person, publisher = await books.person(), await books.person()
    grant = await books.give(person, 1000, lasts=60)
    lease = await books.acquire(person, 400)
    assert lease.ends_at == grant.expires_at, "no call begins to spend from it later"
    call = books.call(person, publisher, 300, lease_id=lease.lease_id)
    books.clock.moved += timedelta(seconds=61)
    assert (await books.wallet(person)).promotional_nanos == 0
    with pytest.raises(InsufficientCredit):
        await books.acquire(person, 1, worker="wrk_2")
    renewed = await books.leases.RenewLeases(
        billing_pb2.RenewLeasesRequest(worker_id="wrk_1", lease_ids=[lease.lease_id])
    )
    assert list(renewed.ended_lease_ids) == [lease.lease_id]
    assert not renewed.lost_lease_ids, "a call under way may end"
    await asyncio.sleep(3)  # the sweep has passed
    (shown,) = await books.grants(person)
    assert (shown.remaining_nanos, shown.expired_nanos) == (0, 0)
    await books.charge(call)  # which began before
    await books.close(lease.lease_id, 300)
    async with asyncio.timeout(20):
        while (shown := (await books.grants(person))[0]).expired_nanos != 700:
            await asyncio.sleep(0.1)
    listed = await books.billing.ListTransactions(billing_pb2.ListTransactionsRequest(), metadata=person.metadata)
    assert [(t.type, t.amount_nanos) for t in listed.transactions] == [
        (Type.TYPE_CREDIT_EXPIRY, -700), (Type.TYPE_CREDIT_GRANT, 1000),
    ]  # fmt: skip
    checked = await books.check()
    assert checked.clean, checked.discrepancies
    assert checked.balances_nanos["breakage"] >= 700


async def test_a_wallet_goes_below_zero_as_far_as_its_limit(books: Books) -> None:
    person, publisher = await books.person(100), await books.person()
    admin = await books.admin()

    def limit(nanos: int) -> grpc.aio.UnaryUnaryCall[object, object]:
        request = credits_pb2.SetCreditLimitRequest(org_id=person.org_id, limit_nanos=nanos)
        return books.credits.SetCreditLimit(request, metadata=admin)

    assert (await limit(500)).wallet.available_nanos == 600
    with pytest.raises(InsufficientCredit):
        await books.acquire(person, 601)
    lease = await books.acquire(person, 400)
    error = await failed(limit(299))
    assert (error.reason, error.metadata["used_nanos"]) == ("CREDIT_LIMIT_IN_USE", "300")
    await books.charge(books.call(person, publisher, 350, lease_id=lease.lease_id))
    await books.close(lease.lease_id, 350)
    assert await books.until_free(person) == -250
    assert (await limit(250)).wallet.available_nanos == 0
    await books.give(person, 400)
    error = await failed(limit(249))
    assert (error.reason, error.metadata["used_nanos"]) == ("CREDIT_LIMIT_IN_USE", "250"), "what is owed stays owed"
    assert (await books.check()).clean
    wallet = (await books.top_up(person, 1000)).wallet
    assert (wallet.balance_nanos, wallet.available_nanos) == (750, 1400)
    assert (await limit(0)).wallet.available_nanos == 1150


async def test_only_administrators_give_and_only_to_somebody(books: Books) -> None:
    person = await books.person()
    request = credits_pb2.CreateCreditGrantRequest(org_id=person.org_id, amount_nanos=1)
    error = await failed(books.credits.CreateCreditGrant(request, metadata=person.metadata))
    assert error.code is grpc.StatusCode.PERMISSION_DENIED
    admin = await books.admin()
    nobody = credits_pb2.CreateCreditGrantRequest(org_id=ids.new("org"), amount_nanos=1)
    assert (await failed(books.credits.CreateCreditGrant(nobody, metadata=admin))).reason == "ORGANIZATION_NOT_FOUND"
    to_nobody = credits_pb2.SetCreditLimitRequest(org_id=ids.new("org"))
    assert (await failed(books.credits.SetCreditLimit(to_nobody, metadata=admin))).reason == "ORGANIZATION_NOT_FOUND"
    request.expires_at.FromDatetime(books.clock.now().astimezone(UTC) - timedelta(seconds=1))
    error = await failed(books.credits.CreateCreditGrant(request, metadata=admin))
    assert [v.field for v in error.violations] == ["expires_at"]
    assert await books.grants(person) == []


@pytest.mark.parametrize(
    ("change", "undo", "code"),
    [
        ("credit_grants SET remaining = remaining + 1", "credit_grants SET remaining = remaining - 1", "GRANT_DIFFERS"),
        ("credit_burns SET amount = amount + 1", "credit_burns SET amount = amount - 1", "GRANT_DIFFERS"),
    ],
)
async def test_edited_credit_is_named(books: Books, change: str, undo: str, code: str) -> None:
    person, publisher = await books.person(), await books.person()
    grant = await books.give(person, 1000)
    lease = await books.acquire(person, 100)
    await books.charge(books.call(person, publisher, 100, lease_id=lease.lease_id))
    await books.close(lease.lease_id, 100)
    column = "grant_id" if "burns" in change else "id"
    assert (await books.check()).clean
    async with books.superuser() as connection:
        await connection.execute(f"UPDATE {change} WHERE {column} = $1", grant.grant_id)
        found = {(d.code, d.subject) for d in (await books.check()).discrepancies}
        await connection.execute(f"UPDATE {undo} WHERE {column} = $1", grant.grant_id)
    assert (code, grant.grant_id) in found
    assert found - {(code, grant.grant_id)} <= {("CREDIT_DIFFERS", person.org_id)}
    assert (await books.check()).clean
