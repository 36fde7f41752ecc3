"""Disputes of money that was spent reach who earned it: held while they are open, taken when they are lost."""

import asyncio
import hashlib
import hmac
import json
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from secrets import token_hex

import pytest
import pytest_asyncio
from google.api import httpbody_pb2
from mercat.billing.v1 import billing_pb2, payments_pb2, payments_pb2_grpc, payouts_pb2

from tests.integration.billing.months import DAY, USD, Months, Person, passing, when
from tests.stripe_server import KEY, SECRET, Stripe, serving

Payout = payouts_pb2.Payout


@dataclass
class Shop:
    """Months in which cards are paid with, and a Stripe that decides about disputes."""

    months: Months
    stripe: Stripe

    async def pay(self, person: Person, nanos: int) -> str:
        """Stripe's name for a payment by card."""
        await self.months.books.card(person)
        paid = await self.months.books.pay(person, nanos)
        assert paid.status == payments_pb2.Payment.STATUS_SUCCEEDED
        found = self.stripe.get("/v1/payment_intents", limit=100)["data"]
        return next(str(pi["id"]) for pi in found if pi["metadata"].get("payment_id") == paid.payment_id)

    async def tell(self, dispute: str) -> None:
        """Stripe says that something is new about a dispute."""
        now = int(time.time())  # signatures are of the machine's time
        about = {"object": {"id": dispute, "object": "dispute"}}
        event = {"id": f"evt_{token_hex(8)}", "type": "charge.dispute.updated", "created": now, "data": about}
        body = json.dumps(event).encode()
        mac = hmac.new(SECRET.encode(), b"%d." % now + body, hashlib.sha256).hexdigest()
        request = payments_pb2.ReceiveStripeEventRequest(body=httpbody_pb2.HttpBody(data=body))
        stub = payments_pb2_grpc.WebhookServiceStub(self.months.books.channel)
        await stub.ReceiveStripeEvent(request, metadata=[("stripe-signature", f"t={now},v1={mac}")])

    async def dispute(self, intent: str, nanos: int) -> str:
        made = self.stripe.dispute(intent, nanos // (USD // 100))
        await self.tell(made)
        return made

    async def end(self, dispute: str, status: str) -> None:
        self.stripe.close_dispute(dispute, status)
        await self.tell(dispute)

    async def earnings(self, person: Person) -> billing_pb2.GetEarningsResponse:
        return await self.months.books.billing.GetEarnings(billing_pb2.GetEarningsRequest(), metadata=person.metadata)

    async def until_disputed(self, person: Person, nanos: int) -> billing_pb2.GetEarningsResponse:
        async def so() -> billing_pb2.GetEarningsResponse | None:
            got = await self.earnings(person)
            return got if got.disputed_nanos == nanos else None

        return await self.months.until(so)

    async def until_earned(self, person: Person, nanos: int) -> None:
        async def so() -> bool | None:
            got = await self.earnings(person)
            return (got.payable_nanos, got.disputed_nanos) == (nanos, 0) or None

        await self.months.until(so)

    async def payouts(self, person: Person) -> list[Payout]:
        request = payouts_pb2.ListPayoutsRequest()
        got = await self.months.books.payouts.ListPayouts(request, metadata=person.metadata)
        return [p for p in got.payouts if p.status == Payout.STATUS_PAID]


@pytest.fixture(scope="module")
def stripe(tmp_path_factory: pytest.TempPathFactory) -> "AsyncIterator[Stripe]":
    with serving(tmp_path_factory.mktemp("stripe")) as made:
        yield made  # type: ignore[misc]


@pytest_asyncio.fixture(scope="module")
async def shop(stripe: Stripe, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    settings = {"stripe_secret_key": KEY, "stripe_webhook_secret": SECRET, "stripe_api_base": stripe.url}
    async with passing(tmp_path_factory.mktemp("losses"), **settings) as months:
        yield Shop(months, stripe)


async def connect(shop: Shop, person: Person) -> None:
    request = payouts_pb2.ConnectPayoutAccountRequest(
        schedule=payouts_pb2.PAYOUT_SCHEDULE_WEEKLY, return_url="https://x.example"
    )
    made = await shop.months.books.payouts.ConnectPayoutAccount(request, metadata=person.metadata)
    shop.stripe.onboard(made.account.provider_account)


async def test_a_dispute_holds_what_its_money_brought_and_takes_it_when_it_is_lost(shop: Shop) -> None:
    months = shop.months
    person, older, newer = [await months.person() for _ in range(3)]
    await connect(shop, older)
    paid = await shop.pay(person, 100 * USD)
    await months.call(person, older, 60 * USD)
    await months.call(person, newer, 20 * USD, 10 * USD)
    lost = (await months.check()).balances_nanos.get("platform_loss", 0)
    dispute = await shop.dispute(paid, 100 * USD)
    # The wallet has ten; ninety were spent, of which a fifth was the platform's.
    held = await shop.until_disputed(newer, 24 * USD)
    assert (held.payable_nanos, held.available_nanos) == (24 * USD, 0)
    await shop.until_disputed(older, 48 * USD)
    assert await months.balance(person) == 0
    assert (await months.check()).balances_nanos["platform_loss"] == lost - 90 * USD
    months.advance(16 * DAY)  # it would have been paid out by now
    await asyncio.sleep(2.5)
    assert await shop.payouts(older) == []
    assert (await shop.earnings(older)).available_nanos == 0
    await shop.end(dispute, "lost")
    await shop.until_earned(newer, 0)
    await shop.until_earned(older, 0)
    assert (await months.check()).balances_nanos["platform_loss"] == lost - 18 * USD
    listed = await months.books.billing.ListTransactions(billing_pb2.ListTransactionsRequest(), metadata=newer.metadata)
    assert [(t.type, t.amount_nanos) for t in listed.transactions] == [
        (billing_pb2.Transaction.TYPE_DISPUTE, -24 * USD)
    ]


async def test_a_dispute_that_is_won_lets_go(shop: Shop) -> None:
    months = shop.months
    person, publisher = await months.person(), await months.person()
    await connect(shop, publisher)
    paid = await shop.pay(person, 50 * USD)
    await months.call(person, publisher, 50 * USD)
    dispute = await shop.dispute(paid, 50 * USD)
    await shop.until_disputed(publisher, 40 * USD)
    await shop.end(dispute, "won")
    await shop.until_earned(publisher, 40 * USD)
    assert await months.balance(person) == 0
    months.advance(16 * DAY)

    async def paid_out() -> list[Payout] | None:
        return await shop.payouts(publisher) or None

    (payout,) = await months.until(paid_out)
    assert payout.amount_nanos == 40 * USD
    await months.check()


async def test_only_what_was_lost_is_taken_the_newest_calls_first(shop: Shop) -> None:
    months = shop.months
    person, older, newer = [await months.person() for _ in range(3)]
    paid = await shop.pay(person, 100 * USD)
    await months.call(person, older, 50 * USD)
    refunded, _ = await months.call(person, newer, 20 * USD, 30 * USD)
    request = payouts_pb2.RefundCallRequest(request_id=refunded.request_id, reason="it was wrong")
    await months.books.payouts.RefundCall(request, metadata=newer.metadata)
    await months.call(person, newer, 20 * USD)
    # Fifty by the newer one's calls and fifty by the older's; forty of them disputed.
    dispute = await shop.dispute(paid, 40 * USD)
    await shop.until_disputed(newer, 32 * USD)
    assert (await shop.earnings(older)).disputed_nanos == 0
    await shop.end(dispute, "lost")
    await shop.until_earned(newer, 8 * USD)
    # A second dispute finds the calls that the first one did not.
    second = await shop.dispute(paid, 30 * USD)
    await shop.until_disputed(older, 24 * USD)
    assert (await shop.earnings(newer)).disputed_nanos == 0
    await shop.end(second, "lost")
    await shop.until_earned(older, 16 * USD)
    await months.check()


async def test_one_that_is_won_after_all_gives_back_what_was_taken(shop: Shop) -> None:
    months = shop.months
    person, publisher = await months.person(), await months.person()
    paid = await shop.pay(person, 50 * USD)
    (call,) = await months.call(person, publisher, 50 * USD)
    dispute = await shop.dispute(paid, 50 * USD)
    await shop.until_disputed(publisher, 40 * USD)
    await shop.end(dispute, "lost")
    await shop.until_earned(publisher, 0)
    before = (await months.check()).balances_nanos["platform_loss"]
    await shop.end(dispute, "won")
    await shop.until_earned(publisher, 40 * USD)
    assert (await months.check()).balances_nanos["platform_loss"] == before + 10 * USD
    async with months.books.superuser() as connection:
        edit = "UPDATE loss_shares SET amount = amount + $2 WHERE publisher_org_id = $1"
        await connection.execute("UPDATE reversals SET status = 'paid' WHERE org_id = $1", person.org_id)
        await connection.execute("UPDATE losses SET status = 'charged' WHERE org_id = $1", person.org_id)
        codes = {d.code for d in (await months.books.check()).discrepancies}
        await connection.execute("UPDATE losses SET status = 'released' WHERE org_id = $1", person.org_id)
        await connection.execute("UPDATE reversals SET status = 'returned' WHERE org_id = $1", person.org_id)
        assert {"LOSS_DIFFERS", "REVERSAL_DIFFERS"} <= codes
        await connection.execute(edit, publisher.org_id, 100 * USD)
        codes = {d.code for d in (await months.books.check()).discrepancies}
        await connection.execute(edit, publisher.org_id, -100 * USD)
    assert codes == {"LOSS_DIFFERS"}
    assert when(call.timestamp) < months.now()
    await months.check()
