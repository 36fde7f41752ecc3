"""Months in the life of an account, by its commands, on the whole platform and a Stripe: sign-up, trial, invoices, an
upgrade, a card that fails, a refund, a dispute, a correction after an invoice was final, and payouts to two publishers.
The books are proven at every step."""

import json
import time
from collections.abc import Callable, Iterator
from datetime import UTC, timedelta
from io import BytesIO
from pathlib import Path
from typing import Any, TypeVar

import httpx
import pytest
from mercat.billing.v1 import invoices_pb2, payments_pb2, payouts_pb2, plans_pb2
from pypdf import PdfReader

from services.common import money
from tests import graphs
from tests.integration.billing.test_receipts import call
from tests.integration.payments.conftest import settings
from tests.platform import USD, Account, Platform
from tests.stripe_server import Stripe, serving

T = TypeVar("T")
Invoice, Line, Status = invoices_pb2.Invoice, invoices_pb2.InvoiceLine, plans_pb2.Subscription
PRICES = (USD, 3 * USD // 4)  # a call


class Story:
    """Who is in it, and what can be done and seen."""

    def __init__(self, platform: Platform, stripe: Stripe) -> None:
        self.platform, self.stripe = platform, stripe
        self.person = platform.sign_up()
        self.publishers = [platform.publisher() for _ in PRICES]
        self.models = [
            platform.publish(publisher, graphs.tiny(), price={"requests": price * 1_000_000})
            for publisher, price in zip(self.publishers, PRICES, strict=True)
        ]
        self.calls: list[tuple[int, str]] = []  # which model, request id

    def mercat(self, *words: str, by: Account | None = None, status: int = 0) -> str:
        done = self.platform.command(*words, MERCAT_API_KEY=(by or self.person).api_key)
        assert done.returncode == status, done.stdout + done.stderr
        return done.stdout + done.stderr

    def read(self, *words: str, by: Account | None = None) -> Any:
        return json.loads(self.mercat(*words, "--json", by=by))

    def call(self, model: int, times: int = 1) -> None:
        for _ in range(times):
            self.calls.append((model, call(self.person, self.models[model])))

    def end_period(self) -> None:
        end = self.plan().current_period_end.ToDatetime(UTC)
        self.mercat("clock", "set", (end + timedelta(seconds=1)).isoformat())

    def plan(self) -> plans_pb2.Subscription:
        return self.person.plans.GetSubscription(plans_pb2.GetSubscriptionRequest()).subscription

    def until(self, what: Callable[[], T | None], seconds: float = 30) -> T:
        deadline = time.monotonic() + seconds
        while not (found := what()):
            assert time.monotonic() < deadline
            time.sleep(0.1)
        return found

    def invoices(self, person: Account | None = None) -> list[Invoice]:
        """Oldest first."""
        who = person or self.person
        listed = who.invoices.ListInvoices(invoices_pb2.ListInvoicesRequest()).invoices
        return [
            who.invoices.GetInvoice(invoices_pb2.GetInvoiceRequest(invoice_id=i.invoice_id)).invoice
            for i in reversed(listed)
        ]

    def until_invoices(self, count: int, status: int = Invoice.STATUS_PAID) -> list[Invoice]:
        def there() -> list[Invoice] | None:
            found = [i for i in self.invoices() if i.kind == Invoice.KIND_INVOICE]
            return found if len(found) == count and found[-1].status == status else None

        return self.until(there)

    def until_plan(self, plan_id: str, status: int) -> None:
        self.until(lambda: (self.plan().plan_id, self.plan().status) == (plan_id, status))

    def proven(self) -> dict[str, int]:
        """The books are clean; what accounts hold."""
        checked = self.platform.admin().check_ledger()
        assert checked.clean, checked.discrepancies
        assert sum(checked.balances_nanos.values()) == 0
        return dict(checked.balances_nanos)

    def opened(self, invoice: Invoice, line: Line) -> dict[str, int]:
        words = ("invoices", "usage", invoice.invoice_id, line.line_id, "-n", "1000")
        return {c["record"]["requestId"]: int(c["amountNanos"]) for c in self.read(*words)["calls"]}


@pytest.fixture
def story(own_platform: Callable[..., Platform], tmp_path: Path) -> Iterator[Story]:
    with serving(tmp_path) as stripe:
        platform = own_platform(env=settings(stripe) | {"MERCAT_TEST_CLOCK": "true", "MERCAT_PAYOUT_MINIMUM": "1"})
        stripe.webhooks(f"{platform.rest}/v1/stripe/webhooks")
        yield Story(platform, stripe)


def test_a_year_of_an_account(story: Story, tmp_path: Path) -> None:
    person, mercat = story.person, story.mercat
    first, second = story.publishers
    for publisher in story.publishers:
        connected = story.read("payouts", "connect", "--schedule", "weekly", "--return-url", "http://x", by=publisher)
        assert not connected["account"]["ready"]
        story.stripe.onboard(connected["account"]["providerAccount"])
    mercat("plan", "offer", story.models[1], "9", by=second)

    # Sign-up: a card, credit, a trial; calls are paid as they are made.
    mercat("cards", "add", "pm_card_visa")
    mercat("topup", "200", "--card")
    assert "trialing" in mercat("plan", "change", "pro")
    story.call(0, 5)
    story.call(1, 4)
    assert person.balance() == 192 * USD
    story.proven()

    # The trial ends: what is left of the month is charged.
    mercat("clock", "advance", "14d")
    (trial,) = story.until_invoices(1)
    assert 0 < trial.due_nanos < 20 * USD
    assert story.plan().status == Status.STATUS_ACTIVE
    story.proven()

    # The first month: next month's fee is collected, and the month's calls are on it, paid.
    story.end_period()
    month = story.until_invoices(2)[-1]
    assert (month.due_nanos, month.prepaid_nanos) == (20 * USD, 8 * USD)
    by_kind = {(line.kind, line.model): line for line in month.lines}
    for number, price in enumerate(PRICES):
        line = by_kind[Line.KIND_USAGE, story.models[number]]
        made = {request_id for model, request_id in story.calls if model == number}
        assert story.opened(month, line) == dict.fromkeys(made, price)
    revenue = story.proven()["subscription_revenue"]
    assert revenue == trial.due_nanos + 20 * USD

    # The same invoice for people, by REST and by the command line.
    answer = httpx.get(
        f"{story.platform.rest}/v1/invoices/{month.invoice_id}/pdf",
        headers={"authorization": f"Bearer {person.api_key}"},
    )  # fmt: skip
    assert (answer.status_code, answer.headers["content-type"]) == (200, "application/pdf")
    text = PdfReader(BytesIO(answer.content)).pages[0].extract_text()
    assert all(said in text for said in (month.number, "28.00 USD", "20.00 USD", story.models[0]))
    mercat("invoices", "pdf", month.invoice_id, "-o", str(tmp_path / "invoice.pdf"))
    assert (tmp_path / "invoice.pdf").read_bytes() == answer.content
    assert month.number in mercat("invoices", "list")

    # An upgrade in the middle of the month, and a model by the month: each is charged at once for the rest of it.
    mercat("clock", "advance", "10d")
    org_id = person.profile.org_id
    mercat("plan", "enterprise", org_id, "--monthly", "120", "--fee", "5", by=story.platform.admin())
    upgrade = story.until_invoices(3)[-1]
    credit, charge = (line.amount_nanos for line in upgrade.lines)
    assert abs(charge + 6 * credit) <= 6
    mercat("plan", "subscribe", story.models[1])
    subscribed = story.until_invoices(4)[-1]
    held = story.proven()
    assert held["subscription_revenue"] == revenue + upgrade.due_nanos + money.share(subscribed.due_nanos, 200_000)
    story.call(0, 3)

    # The second month: the card fails, calls go on, it is tried again, and another card pays.
    mercat("cards", "add", "pm_card_chargeCustomerFail", "--default")
    story.end_period()
    story.until_invoices(5, Invoice.STATUS_OPEN)
    story.until_plan("enterprise", Status.STATUS_PAST_DUE)
    story.call(0, 4)
    mercat("clock", "advance", "25h")
    story.until(lambda: story.invoices()[-1].attempts == 2)
    story.proven()
    mercat("cards", "add", "pm_card_visa", "--default")
    mercat("clock", "advance", "3d")
    late = story.until_invoices(5)[-1]
    assert late.due_nanos == 129 * USD
    story.until_plan("enterprise", Status.STATUS_ACTIVE)
    story.proven()

    # A call on a final invoice is refunded: who called has the money at once, and a credit note that says so.
    balance, wrong = person.balance(), story.calls[0][1]
    mercat("payouts", "refund", wrong, "--reason", "it was wrong", by=first)
    assert person.balance() == balance + USD
    note = story.invoices()[-1]
    assert (note.kind, note.total_nanos, note.corrects_number) == (Invoice.KIND_CREDIT_NOTE, -USD, month.number)
    assert story.opened(note, note.lines[0]) == {wrong: -USD}
    story.proven()

    # A dispute of the first payment is lost.
    paid = person.payments.ListPayments(payments_pb2.ListPaymentsRequest(page_size=100)).payments[-1]
    (intent,) = [
        pi["id"] for pi in story.stripe.get("/v1/payment_intents", limit=100)["data"]
        if pi["metadata"].get("payment_id") == paid.payment_id
    ]  # fmt: skip
    dispute = story.stripe.dispute(intent, 1000)
    story.until(lambda: person.balance() == balance - 9 * USD)
    story.stripe.close_dispute(dispute, "lost")
    story.until(lambda: story.proven().get("disputes_held", 0) == 0)

    # The third month, of which the note is none.
    story.end_period()
    third = story.until_invoices(6)[-1]
    assert third.due_nanos == 129 * USD
    (usage,) = [line for line in third.lines if line.kind in (Line.KIND_USAGE, Line.KIND_CORRECTION)]
    assert list(story.opened(third, usage).values()) == [USD] * 4
    assert story.invoices()[1] == month, "what was final is as it was"
    story.proven()

    # Both publishers are paid what their models brought, to the nano, and have statements of it.
    mercat("clock", "advance", "16d")
    story.until(lambda: all(publisher_settled(publisher) for publisher in story.publishers))
    story.proven()
    for publisher, model in zip(story.publishers, story.models, strict=True):
        payouts = [
            publisher.payouts.GetPayout(payouts_pb2.GetPayoutRequest(payout_id=p.payout_id)).payout
            for p in publisher.payouts.ListPayouts(payouts_pb2.ListPayoutsRequest()).payouts
        ]
        assert all(sum(line.amount_nanos for line in p.lines) == p.amount_nanos for p in payouts)
        calls = sum(1 for number, _ in story.calls if story.models[number] == model)
        assert sum(line.count for p in payouts for line in p.lines if line.model == model) == calls
        sent = sum(t["amount"] for t in transfers(story, publisher)) * USD // 100
        assert sent == sum(p.amount_nanos for p in payouts) > 0
        statements = [i for i in story.invoices(publisher) if i.kind == Invoice.KIND_SELF_BILLING]
        assert sum(i.total_nanos for i in statements) > 0
        assert "paid" in mercat("payouts", "list", by=publisher)

    # And it ends with its period.
    assert "ends at" in mercat("plan", "cancel")
    story.end_period()
    story.until_plan("free", Status.STATUS_ACTIVE)
    story.proven()
    numbers = [i.number for i in story.invoices() if i.kind == Invoice.KIND_INVOICE]
    assert numbers == sorted(numbers)


def publisher_settled(publisher: Account) -> bool:
    listed = publisher.payouts.ListPayouts(payouts_pb2.ListPayoutsRequest()).payouts
    return bool(listed) and all(p.status == payouts_pb2.Payout.STATUS_PAID for p in listed) and publisher.earned() < USD


def transfers(story: Story, publisher: Account) -> list[Any]:
    account = publisher.payouts.GetPayoutAccount(payouts_pb2.GetPayoutAccountRequest()).account.provider_account
    listed = publisher.payouts.ListPayouts(payouts_pb2.ListPayoutsRequest()).payouts
    return [
        t for p in listed
        for t in story.stripe.get("/v1/transfers", destination=account, transfer_group=p.payout_id)["data"]
    ]  # fmt: skip
