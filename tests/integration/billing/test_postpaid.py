"""What is used on a credit limit is on the period's invoice, and collected by card with it."""

from collections.abc import AsyncIterator
from io import BytesIO

import pytest
import pytest_asyncio
from mercat.billing.v1 import credits_pb2, invoices_pb2

from tests.integration.billing.months import DAY, USD, Invoice, Line, Months, Person, passing, when

CENT = USD // 100


@pytest_asyncio.fixture(scope="module")
async def months(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Months]:
    async with passing(tmp_path_factory.mktemp("postpaid")) as made:
        yield made


async def postpaid(months: Months, limit: int, credit: int = 0, card: str = "") -> Person:
    person = await months.person(credit, card)
    request = credits_pb2.SetCreditLimitRequest(org_id=person.org_id, limit_nanos=limit)
    await months.books.credits.SetCreditLimit(request, metadata=await months.books.admin())
    return person


async def end_period(months: Months, person: Person) -> None:
    months.advance_to(when((await months.subscription(person)).current_period_end))


async def limit(months: Months, person: Person) -> int:
    return (await months.books.wallet(person)).credit_limit_nanos


async def test_what_is_owed_is_on_the_invoice_and_collected_by_card(months: Months) -> None:
    from pypdf import PdfReader

    person, publisher = await postpaid(months, 100 * USD, 4 * USD, "pm_card_visa"), await months.person()
    await months.call(person, publisher, 7 * USD, 3 * USD + 1)
    assert await months.balance(person) == -6 * USD - 1
    await end_period(months, person)
    (invoice,) = await months.until_invoices(person, 1)
    assert [(x.kind, x.amount_nanos) for x in invoice.lines] == [
        (Line.KIND_USAGE, 7 * USD), (Line.KIND_USAGE, 3 * USD + 1),
    ] or sum(x.amount_nanos for x in invoice.lines) == 10 * USD + 1  # fmt: skip
    assert (invoice.total_nanos, invoice.owed_nanos, invoice.due_nanos) == (10 * USD + 1, 6 * USD + 1, 6 * USD + 1)
    assert invoice.prepaid_nanos == 4 * USD
    assert await months.balance(person) == CENT - 1, "the rest of a cent stays in the wallet"
    request = invoices_pb2.GetInvoicePdfRequest(invoice_id=invoice.invoice_id)
    document = (await months.books.invoices.GetInvoicePdf(request, metadata=person.metadata)).document
    text = "\n".join(page.extract_text() for page in PdfReader(BytesIO(document.data)).pages)
    for said in ("10.000000001 USD", "-4.00 USD", "6.000000001 USD"):
        assert said in text
    await months.check()
    # The next period owes what it used, and nothing twice.
    await months.call(person, publisher, 2 * USD)
    await end_period(months, person)
    _, second = await months.until_invoices(person, 2)
    assert (second.owed_nanos, second.total_nanos) == (2 * USD - CENT + 1, 2 * USD)
    await months.check()


async def test_a_fee_and_what_is_owed_are_collected_together(months: Months) -> None:
    person, publisher = await postpaid(months, 100 * USD, card="pm_card_visa"), await months.person()
    await months.change(person, "pro")
    months.advance(14 * DAY)
    await months.until_invoices(person, 1)
    left = await months.balance(person)  # of a cent
    await months.call(person, publisher, 5 * USD)
    revenue = await months.revenue()
    await end_period(months, person)
    _, invoice = await months.until_invoices(person, 2)
    assert (invoice.owed_nanos, invoice.due_nanos) == (5 * USD - left, 25 * USD - left)
    assert invoice.total_nanos == 25 * USD
    assert 0 <= await months.balance(person) < CENT
    assert await months.revenue() == revenue + 20 * USD


async def test_without_a_card_it_is_tried_again_and_then_nothing_more_is_on_credit(months: Months) -> None:
    person, publisher = await postpaid(months, 100 * USD), await months.person()
    await months.call(person, publisher, 8 * USD)
    await end_period(months, person)
    (invoice,) = await months.until_invoices(person, 1, Invoice.STATUS_OPEN)

    async def attempts(count: int) -> Invoice | None:
        got = await months.get(person, invoice.invoice_id)
        return got if got.attempts == count else None

    waits = [0, 1, 2, 2, 2]
    for n, wait in enumerate(waits, 1):
        months.advance(wait * DAY)
        got = await months.until(lambda n=n: attempts(n))  # type: ignore[misc]
    assert got.status == Invoice.STATUS_UNCOLLECTIBLE
    assert await limit(months, person) == 8 * USD
    assert (await months.subscription(person)).plan_id == "pay_as_you_go"
    await months.check()
    # It is still owed, and on the next invoice.
    await months.books.card(person, "pm_card_visa")
    await end_period(months, person)
    _, second = await months.until_invoices(person, 2)
    assert (second.owed_nanos, second.due_nanos, second.total_nanos) == (8 * USD, 8 * USD, 0)
    assert (await months.balance(person), second.prepaid_nanos) == (0, -8 * USD)
    await months.check()


async def test_what_is_paid_into_the_wallet_meanwhile_is_not_collected_again(months: Months) -> None:
    person, publisher = await postpaid(months, 100 * USD), await months.person()
    await months.call(person, publisher, 8 * USD)
    await end_period(months, person)
    (invoice,) = await months.until_invoices(person, 1, Invoice.STATUS_OPEN)

    async def failed() -> bool | None:
        return (await months.get(person, invoice.invoice_id)).attempts == 1 or None

    await months.until(failed)
    await months.books.top_up(person, 9 * USD)
    request = invoices_pb2.PayInvoiceRequest(invoice_id=invoice.invoice_id)
    await months.books.invoices.PayInvoice(request, metadata=person.metadata)
    (paid,) = await months.until_invoices(person, 1)
    assert (paid.status, paid.due_nanos) == (Invoice.STATUS_PAID, 8 * USD)
    assert await months.balance(person) == USD
    await months.check()


async def test_what_is_being_collected_is_not_on_the_next_invoice(months: Months) -> None:
    person, publisher = await postpaid(months, 100 * USD, card="pm_card_visa"), await months.person()
    await months.call(person, publisher, 8 * USD)
    months.advance(65 * DAY)  # two periods end at once
    (invoice,) = await months.until_invoices(person, 1)
    assert (invoice.owed_nanos, await months.balance(person)) == (8 * USD, 0)
    await months.call(person, publisher, 3 * USD)
    await end_period(months, person)
    _, second = await months.until_invoices(person, 2)
    assert (second.owed_nanos, await months.balance(person)) == (3 * USD, 0)
    await months.check()
