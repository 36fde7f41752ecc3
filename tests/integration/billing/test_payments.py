"""Cards and payments by the sandbox's provider, over real servers."""

import asyncio

import grpc
import pytest
from mercat.billing.v1 import billing_pb2, payments_pb2
from mercat.event.v1 import event_pb2

from services.billing.losses.store import LossStore
from services.billing.payments import PaymentParts
from services.billing.settings import BillingSettings
from services.billing.store import Store
from services.common import ids
from services.common.errors import from_rpc_error
from services.common.events import EVENT_STREAM
from tests.expect import failed
from tests.integration.billing.books import USD, Books, Person

Payment = payments_pb2.Payment


async def settled(books: Books, payment_id: str) -> list[event_pb2.PaymentSettled]:
    """What was told of a payment's end."""
    found: list[event_pb2.PaymentSettled] = []
    async with asyncio.timeout(10):
        while not found:
            subscription = await books.events.js.subscribe(
                "mercat.event.PaymentSettled", stream=EVENT_STREAM, ordered_consumer=True
            )
            try:
                while True:
                    event = event_pb2.PaymentSettled.FromString((await subscription.next_msg(0.3)).data)
                    found += [event] if event.payment_id == payment_id else []
            except TimeoutError:
                await subscription.unsubscribe()
    return found


async def test_a_card_is_charged_and_the_wallet_has_it(books: Books) -> None:
    person = await books.person()
    await books.card(person)
    paid = await books.pay(person, 25 * USD)
    assert paid.status == Payment.STATUS_SUCCEEDED
    assert (await books.wallet(person)).balance_nanos == 25 * USD
    (event,) = await settled(books, paid.payment_id)
    assert event == event_pb2.PaymentSettled(
        payment_id=paid.payment_id, org_id=person.org_id, purpose="top_up", subject=event.subject,
        amount_nanos=25 * USD, succeeded=True,
    )  # fmt: skip
    listed = await books.billing.ListTransactions(billing_pb2.ListTransactionsRequest(), metadata=person.metadata)
    assert [t.amount_nanos for t in listed.transactions] == [25 * USD]
    statement = await books.billing.GetStatement(billing_pb2.GetStatementRequest(), metadata=person.metadata)
    assert [e.cause for e in statement.entries] == [paid.payment_id]
    assert (await books.check()).clean


@pytest.mark.parametrize(
    ("card", "code"),
    [
        ("pm_card_chargeDeclined", "card_declined"),
        ("pm_card_chargeDeclinedInsufficientFunds", "insufficient_funds"),
        ("pm_card_chargeDeclinedExpiredCard", "expired_card"),
    ],
)
async def test_a_declined_card_says_why_and_nothing_is_posted(books: Books, card: str, code: str) -> None:
    person = await books.person()
    await books.card(person, card)
    paid = await books.pay(person, 25 * USD)
    assert (paid.status, paid.failure_code) == (Payment.STATUS_FAILED, code)
    assert (await books.wallet(person)).balance_nanos == 0
    (event,) = await settled(books, paid.payment_id)
    assert (event.succeeded, event.failure_code) == (False, code)


async def test_the_same_key_never_charges_twice_even_when_keys_are_forgotten(books: Books) -> None:
    person = await books.person()
    await books.card(person)
    first = await books.pay(person, 5 * USD, "one-key")
    async with books.superuser() as connection:  # as after their 24 hours
        await connection.execute("DELETE FROM idempotency_keys")
    again = await books.pay(person, 5 * USD, "one-key")
    assert again == first
    assert (await books.wallet(person)).balance_nanos == 5 * USD
    async with books.superuser() as connection:
        await connection.execute("DELETE FROM idempotency_keys")
    error = await failed(books.pay(person, 6 * USD, "one-key"))
    assert error.reason == "IDEMPOTENCY_KEY_REUSED"


async def test_only_whole_cents_are_charged(books: Books) -> None:
    person = await books.person()
    await books.card(person)
    error = await failed(books.pay(person, USD + 1))
    assert [v.field for v in error.violations] == ["amount_nanos"]
    error = await failed(books.pay(person, USD // 100))
    assert [v.field for v in error.violations] == ["amount_nanos"]


async def test_without_a_card_nothing_is_begun(books: Books) -> None:
    person = await books.person()
    assert (await failed(books.pay(person, USD))).reason == "NO_PAYMENT_METHOD"


async def test_cards_are_listed_chosen_and_forgotten(books: Books) -> None:
    person = await books.person()
    first = await books.card(person)
    second = await books.card(person, "pm_card_mastercard", default=False)

    async def cards() -> list[tuple[str, str, bool]]:
        got = await books.payments.ListPaymentMethods(
            payments_pb2.ListPaymentMethodsRequest(), metadata=person.metadata
        )
        return [(m.payment_method_id, m.last4, m.is_default) for m in got.payment_methods]

    assert await cards() == [(second, "4444", False), (first, "4242", True)]
    chosen = payments_pb2.SetDefaultPaymentMethodRequest(payment_method_id=second)
    await books.payments.SetDefaultPaymentMethod(chosen, metadata=person.metadata)
    assert await cards() == [(second, "4444", True), (first, "4242", False)]
    detach = payments_pb2.DetachPaymentMethodRequest(payment_method_id=second)
    await books.payments.DetachPaymentMethod(detach, metadata=person.metadata)
    assert await cards() == [(first, "4242", True)]
    error = await failed(books.pay(person, USD, card=second))
    assert error.reason == "PAYMENT_METHOD_NOT_FOUND"
    async with books.superuser() as connection:
        ref = await connection.fetchval("SELECT ref FROM payment_methods WHERE id = $1", second)
    error = await failed(books.card(person, ref))
    assert (error.reason, error.metadata["code"]) == ("CARD_REFUSED", "detached")


async def test_other_peoples_cards_and_payments_are_not_there(books: Books) -> None:
    owner, other = await books.person(), await books.person()
    card = await books.card(owner)
    paid = await books.pay(owner, USD)
    assert (await failed(books.paid(other, paid.payment_id))).reason == "PAYMENT_NOT_FOUND"
    await books.card(other)
    assert (await failed(books.pay(other, USD, card=card))).reason == "PAYMENT_METHOD_NOT_FOUND"
    async with books.superuser() as connection:
        ref = await connection.fetchval("SELECT ref FROM payment_methods WHERE id = $1", card)
    assert (await failed(books.card(other, ref))).reason == "CARD_REFUSED"
    assert (await failed(books.card(other, "pm_nothing"))).reason == "CARD_REFUSED"


async def test_its_owner_must_prove_who_they_are_in_time(books: Books) -> None:
    person = await books.person()
    await books.card(person, "pm_card_authenticationRequired")
    paid = await books.pay(person, USD)
    assert paid.status == Payment.STATUS_REQUIRES_ACTION
    assert paid.client_secret


async def automatic(books: Books, person: Person, threshold: int, amount: int) -> None:
    wanted = payments_pb2.AutoTopUp(enabled=True, threshold_nanos=threshold, amount_nanos=amount)
    request = payments_pb2.SetAutoTopUpRequest(auto_top_up=wanted)
    await books.payments.SetAutoTopUp(request, metadata=person.metadata)


async def test_a_wallet_below_its_threshold_is_topped_up_once(books: Books) -> None:
    person, publisher = await books.person(3 * USD), await books.person()
    await books.card(person)
    await automatic(books, person, 2 * USD, 10 * USD)
    await books.send(books.call(person, publisher, 2 * USD))
    async with asyncio.timeout(20):
        while (await books.wallet(person)).balance_nanos != 11 * USD:
            await asyncio.sleep(0.1)
    await asyncio.sleep(1)
    assert (await books.wallet(person)).balance_nanos == 11 * USD


async def test_automatic_top_ups_are_turned_off_after_refusals(books: Books) -> None:
    person = await books.person(USD)
    await books.card(person, "pm_card_chargeDeclinedInsufficientFunds")
    await automatic(books, person, 2 * USD, 10 * USD)
    async with asyncio.timeout(30):
        while True:
            got = await books.payments.GetAutoTopUp(payments_pb2.GetAutoTopUpRequest(), metadata=person.metadata)
            if not got.auto_top_up.enabled:
                break
            async with books.superuser() as connection:  # as after the pause
                await connection.execute("UPDATE auto_top_ups SET next_attempt_at = now() - interval '1 minute'")
            await asyncio.sleep(0.2)
    assert got.auto_top_up.failures == 3
    listed = await books.payments.ListPayments(payments_pb2.ListPaymentsRequest(), metadata=person.metadata)
    assert [p.failure_code for p in listed.payments] == ["insufficient_funds"] * 3


async def test_who_never_proves_who_they_are_is_not_charged(books: Books) -> None:
    person = await books.person()
    await books.card(person, "pm_card_authenticationRequired")
    paid = await books.pay(person, USD)
    assert paid.status == Payment.STATUS_REQUIRES_ACTION
    async with books.superuser() as connection:  # as a day later
        await connection.execute(
            "UPDATE payments SET created_at = created_at - interval '24 hours', next_attempt_at = now() WHERE id = $1",
            paid.payment_id,
        )
    async with asyncio.timeout(20):
        while paid.status == Payment.STATUS_REQUIRES_ACTION:
            await asyncio.sleep(0.1)
            paid = await books.paid(person, paid.payment_id)
    assert (paid.status, paid.failure_code) == (Payment.STATUS_FAILED, "authentication_required")
    assert (await books.wallet(person)).balance_nanos == 0


async def refund(books: Books, payment_id: str, nanos: int = 0, key: str = "") -> payments_pb2.Refund:
    request = payments_pb2.RefundPaymentRequest(payment_id=payment_id, amount_nanos=nanos)
    metadata = await books.admin() + ([("idempotency-key", key)] if key else [])
    return (await books.payments.RefundPayment(request, metadata=metadata)).refund


async def refunded(books: Books) -> billing_pb2.CheckLedgerResponse:
    """The books when nothing is withheld any more."""
    async with asyncio.timeout(20):
        while True:
            checked = await books.check()
            assert checked.clean, checked.discrepancies
            if checked.balances_nanos.get("refunds", 0) == 0:
                return checked
            await asyncio.sleep(0.1)


async def test_of_refunds_at_once_no_more_goes_back_than_was_paid(books: Books) -> None:
    person = await books.person()
    await books.card(person)
    paid = await books.pay(person, 10 * USD)
    made = await asyncio.gather(*(refund(books, paid.payment_id, 4 * USD) for _ in range(6)), return_exceptions=True)
    errors = [from_rpc_error(e).reason for e in made if isinstance(e, grpc.RpcError)]
    assert errors == ["NOT_REFUNDABLE"] * 4
    assert (await books.wallet(person)).balance_nanos == 2 * USD
    await refunded(books)


async def test_a_refund_of_one_key_happens_once_even_when_keys_are_forgotten(books: Books) -> None:
    person = await books.person()
    await books.card(person)
    paid = await books.pay(person, 10 * USD)
    first = await refund(books, paid.payment_id, 3 * USD, paid.payment_id)
    async with books.superuser() as connection:
        await connection.execute("DELETE FROM idempotency_keys")
    again = await refund(books, paid.payment_id, 3 * USD, paid.payment_id)
    assert again.refund_id == first.refund_id
    assert (await books.wallet(person)).balance_nanos == 7 * USD
    await refunded(books)


async def test_what_workers_hold_is_not_refunded_and_what_is_short_is_lost(books: Books) -> None:
    person, publisher = await books.person(), await books.person()
    await books.card(person)
    paid = await books.pay(person, 10 * USD)
    lease = await books.acquire(person, 4 * USD)
    call = books.call(person, publisher, 4 * USD, lease_id=lease.lease_id)
    lost = (await refunded(books)).balances_nanos.get("platform_loss", 0)
    made = await refund(books, paid.payment_id)
    assert (made.amount_nanos, made.taken_nanos) == (10 * USD, 10 * USD - lease.granted_nanos)
    await books.send(call)
    await books.close(lease.lease_id, 4 * USD)
    assert await books.until_free(person) == lease.granted_nanos - 4 * USD
    assert (await refunded(books)).balances_nanos["platform_loss"] == lost - lease.granted_nanos


async def test_a_failed_payment_has_nothing_to_refund(books: Books) -> None:
    person = await books.person()
    await books.card(person, "pm_card_chargeDeclined")
    paid = await books.pay(person, 10 * USD)
    assert (await failed(refund(books, paid.payment_id))).reason == "NOT_REFUNDABLE"
    assert (await failed(refund(books, "pay_unknown"))).reason == "PAYMENT_NOT_FOUND"
    with_scopes = payments_pb2.RefundPaymentRequest(payment_id=paid.payment_id)
    error = await failed(books.payments.RefundPayment(with_scopes, metadata=person.metadata))
    assert error.reason == "SCOPE_MISSING"


@pytest.mark.parametrize(
    ("edit", "undo", "code"),
    [
        ("UPDATE payments SET amount = amount + 10000000", "UPDATE payments SET amount = amount - 10000000", "PAYMENT"),
        ("UPDATE payments SET status = 'failed'", "UPDATE payments SET status = 'succeeded'", "PAYMENT"),
        ("UPDATE reversals SET status = 'returned'", "UPDATE reversals SET status = 'paid'", "REVERSAL"),
        ("UPDATE reversals SET taken = taken - 1", "UPDATE reversals SET taken = taken + 1", "REVERSAL"),
    ],
)
async def test_the_reconciler_names_payments_and_refunds_that_were_edited(
    books: Books, edit: str, undo: str, code: str
) -> None:
    person = await books.person()
    await books.card(person)
    paid = await books.pay(person, 10 * USD)
    made = await refund(books, paid.payment_id, USD)
    await refunded(books)
    subject = paid.payment_id if code == "PAYMENT" else made.refund_id
    async with books.superuser() as connection:
        await connection.execute(f"{edit} WHERE id = $1", subject)
        try:
            found = (await books.check()).discrepancies
        finally:
            await connection.execute(f"{undo} WHERE id = $1", subject)
    assert (f"{code}_DIFFERS", subject) in [(d.code, d.subject) for d in found]
    assert (await books.check()).clean


async def test_what_is_due_is_charged_in_whole_cents_and_all_of_it_is_in_the_wallet(books: Books) -> None:
    deps = books.deps["billing"]
    assert isinstance(deps.settings, BillingSettings)
    payments = PaymentParts(deps, Store(), LossStore(), deps.settings).payments
    person = await books.person()
    await books.card(person)

    async def start(amount: int, subject: str) -> str:
        async with deps.database.transaction() as connection:
            return await payments.start(
                connection, org_id=person.org_id, amount=amount, purpose="top_up", subject=subject
            )

    one, two = ids.new("txn"), ids.new("txn")
    paid = await books.paid(person, await start(12_345_678_901, one))
    assert (paid.status, paid.amount_nanos) == (Payment.STATUS_SUCCEEDED, 12_350_000_000)
    assert await start(12_345_678_901, one) == paid.payment_id
    least = await books.paid(person, await start(1, two))
    assert least.amount_nanos == USD // 2, "the least that is charged"
    assert (await books.wallet(person)).balance_nanos == 12_850_000_000
    (event,) = await settled(books, paid.payment_id)
    assert (event.purpose, event.subject, event.succeeded) == ("top_up", one, True)


async def test_a_payment_of_a_transaction_that_fails_is_never_begun(books: Books) -> None:
    deps = books.deps["billing"]
    assert isinstance(deps.settings, BillingSettings)
    payments = PaymentParts(deps, Store(), LossStore(), deps.settings).payments
    person = await books.person()
    await books.card(person)

    async def fails() -> None:
        async with deps.database.transaction() as connection:
            await payments.start(
                connection, org_id=person.org_id, amount=USD, purpose="invoice", subject=ids.new("inv")
            )
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await fails()
    await asyncio.sleep(1.5)
    listed = await books.payments.ListPayments(payments_pb2.ListPaymentsRequest(), metadata=person.metadata)
    assert not listed.payments
