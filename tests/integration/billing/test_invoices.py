"""Invoices over real servers: numbers without gaps, and lines that are their calls to the nano."""

import asyncio
import json
import random
from collections.abc import AsyncIterator
from io import BytesIO

import asyncpg
import grpc
import pytest
import pytest_asyncio
from mercat.billing.v1 import invoices_pb2

from services.common.errors import from_rpc_error
from tests.integration.billing.months import DAY, USD, Invoice, Line, Months, Person, passing, when

PRICE = [["input_tokens", 3_000_000], ["output_tokens", 9_000_000]]  # nanos per million


@pytest_asyncio.fixture(scope="module")
async def months(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Months]:
    async with passing(tmp_path_factory.mktemp("invoices")) as made:
        async with made.books.superuser() as connection:
            add = "INSERT INTO prices VALUES ('prc_text', 'mdl_text', 'x/text', 'USD', $1, now())"
            await connection.execute(add, json.dumps(PRICE))
        yield made


async def texts(months: Months, consumer: Person, publisher: Person, count: int, seed: int) -> list[int]:
    """Calls of a text model with a price by token, and of another by the call; what they cost."""
    chance, calls = random.Random(seed), []
    for n in range(count):
        call = months.books.call(consumer, publisher, chance.randint(1, 10_000))
        if n % 3:
            call.model_id, call.model, call.price_id = "mdl_text", f"{publisher.username}/text", "prc_text"
            call.units.clear()
            call.units.update({"input_tokens": chance.randint(0, 50), "output_tokens": chance.randint(0, 50)})
            call.cost_nanos = 3 * call.units["input_tokens"] + 9 * call.units["output_tokens"] or 1
        calls.append(call)
    free, test = months.books.call(consumer, publisher, 0), months.books.call(consumer, publisher, 5, test=True)
    await months.books.send(*calls, free, test)
    await months.books.settled()
    return [call.cost_nanos for call in calls]


async def end_period(months: Months, person: Person) -> None:
    months.advance_to(when((await months.subscription(person)).current_period_end))


async def test_a_period_with_nothing_on_it_has_no_invoice(months: Months) -> None:
    person = await months.person(USD)
    await end_period(months, person)
    months.advance(31 * DAY)
    await asyncio.sleep(3)
    assert await months.invoices(person) == []
    await months.check()


@pytest.mark.parametrize("page", [0, 7])
async def test_every_line_opens_into_its_calls_to_the_nano(months: Months, page: int) -> None:
    person, publisher = await months.person(USD), await months.person()
    costs = await texts(months, person, publisher, 60, seed=page)
    await end_period(months, publisher)  # who came a little later
    after = await months.call(person, publisher, 111)
    (invoice,) = await months.until_invoices(person, 1)
    assert (invoice.prepaid_nanos, invoice.total_nanos, invoice.due_nanos) == (sum(costs), sum(costs), 0)
    assert {line.meter for line in invoice.lines} == {"requests", "input_tokens", "output_tokens"}
    seen = set()
    for line in invoice.lines:
        calls = await months.opened(person, invoice, line, page)
        assert len(calls) == line.calls == len({c.record.request_id for c in calls})
        assert sum(c.amount_nanos for c in calls) == line.amount_nanos
        assert sum(c.record.units[line.meter] for c in calls) == line.quantity
        seen |= {c.record.request_id for c in calls}
    assert len(seen) == len(costs)
    assert after[0].request_id not in seen
    await months.check()
    # The publisher has its own account of the same calls, and does not learn whose key called.
    (statement,) = await _statement(months, publisher)
    assert statement.total_nanos == await months.books.earned(publisher) - 111 * 4 // 5 - 1
    assert statement.number.startswith("SB-")
    for line in statement.lines:
        calls = await months.opened(publisher, statement, line, page)
        if line.kind == Line.KIND_EARNINGS:
            assert sum(c.amount_nanos for c in calls) == line.amount_nanos
            assert {c.record.key_id for c in calls} == {""}
        else:
            assert not calls


async def _statement(months: Months, publisher: Person) -> list[Invoice]:
    await end_period(months, publisher)
    await asyncio.sleep(2)  # the draft is made
    months.advance(DAY)
    return await months.until_invoices(publisher, 1, kind=Invoice.KIND_SELF_BILLING)


async def test_who_may_see_an_invoice(months: Months) -> None:
    person, publisher = await months.person(USD), await months.person()
    await months.call(person, publisher, 500)
    await end_period(months, person)
    (invoice,) = await months.until_invoices(person, 1)
    for request, method in (
        (invoices_pb2.GetInvoiceRequest(invoice_id=invoice.invoice_id), months.books.invoices.GetInvoice),
        (invoices_pb2.GetInvoicePdfRequest(invoice_id=invoice.invoice_id), months.books.invoices.GetInvoicePdf),
        (invoices_pb2.PayInvoiceRequest(invoice_id=invoice.invoice_id), months.books.invoices.PayInvoice),
    ):
        with pytest.raises(grpc.RpcError) as refused:
            await method(request, metadata=publisher.metadata)
        assert from_rpc_error(refused.value).reason == "INVOICE_NOT_FOUND"
    request = invoices_pb2.PayInvoiceRequest(invoice_id=invoice.invoice_id)
    with pytest.raises(grpc.RpcError) as refused:
        await months.books.invoices.PayInvoice(request, metadata=person.metadata)
    assert from_rpc_error(refused.value).reason == "INVOICE_STATE"


async def test_the_document_says_what_the_invoice_says(months: Months) -> None:
    from pypdf import PdfReader

    person, publisher = await months.person(USD), await months.person()
    await months.call(person, publisher, 123_456_789)
    await end_period(months, person)
    (invoice,) = await months.until_invoices(person, 1)
    request = invoices_pb2.GetInvoicePdfRequest(invoice_id=invoice.invoice_id)
    first, again = [await months.books.invoices.GetInvoicePdf(request, metadata=person.metadata) for _ in range(2)]
    assert first == again
    assert first.document.content_type == "application/pdf"
    text = "\n".join(page.extract_text() for page in PdfReader(BytesIO(first.document.data)).pages)
    for said in (invoice.number, "0.123456789 USD", f"{publisher.username}/m: requests", "Due", person.org_id):
        assert said in text


async def test_numbers_have_no_gaps_however_many_want_one_at_once(months: Months) -> None:
    people = [await months.person(USD) for _ in range(8)]
    for person in people:
        await months.call(person, people[0], 10)
    months.advance(32 * DAY)
    await asyncio.gather(*(months.until_invoices(person, 1) for person in people))
    async with months.books.superuser() as connection:
        rows = await connection.fetch("SELECT number, finalized_at FROM invoices WHERE number LIKE 'MER-%' ORDER BY 1")
    by_year: dict[str, list[int]] = {}
    for row in rows:
        _, year, number = row["number"].split("-")
        by_year.setdefault(year, []).append(int(number))
        assert row["finalized_at"].year == int(year)
    assert sum(map(len, by_year.values())) >= 8
    for numbers in by_year.values():
        assert numbers == list(range(1, len(numbers) + 1))
    await months.check()


async def test_a_voided_invoice_keeps_its_number_and_takes_nothing(months: Months) -> None:
    person = await months.person(card="pm_card_chargeDeclined")
    await months.change(person, "pro")
    months.advance(14 * DAY)
    (invoice,) = await months.until_invoices(person, 1, Invoice.STATUS_OPEN)
    request = invoices_pb2.VoidInvoiceRequest(invoice_id=invoice.invoice_id)
    with pytest.raises(grpc.RpcError) as refused:
        await months.books.invoices.VoidInvoice(request, metadata=person.metadata)
    assert from_rpc_error(refused.value).reason in ("ROLE_MISSING", "SCOPE_MISSING")
    voided = (await months.books.invoices.VoidInvoice(request, metadata=await months.books.admin())).invoice
    assert (voided.status, voided.number) == (Invoice.STATUS_VOID, invoice.number)
    months.advance(10 * DAY)
    await asyncio.sleep(3)
    assert (await months.get(person, invoice.invoice_id)).status == Invoice.STATUS_VOID
    await months.check()


async def test_final_invoices_are_not_changed_by_anybody(months: Months) -> None:
    person, publisher = await months.person(USD), await months.person()
    await months.call(person, publisher, 500)
    await end_period(months, person)
    (invoice,) = await months.until_invoices(person, 1)
    connection = await asyncpg.connect(months.books.postgres_url)
    try:
        await connection.execute("SET search_path TO billing")
        for statement in (
            "UPDATE invoices SET due = due + 1 WHERE id = $1", "UPDATE invoices SET number = 'MER-1' WHERE id = $1",
            "DELETE FROM invoices WHERE id = $1", "UPDATE invoice_lines SET amount = 1 WHERE invoice_id = $1",
            "DELETE FROM invoice_lines WHERE invoice_id = $1",
        ):  # fmt: skip
            with pytest.raises(asyncpg.RaiseError, match="final|immutable"):
                await connection.execute(statement, invoice.invoice_id)
    finally:
        await connection.close()


@pytest.mark.parametrize(
    ("statement", "code"),
    [
        ("UPDATE invoices SET prepaid = prepaid + 1 WHERE id = $1", "INVOICE_DIFFERS"),
        ("UPDATE invoice_lines SET amount = amount - 1 WHERE invoice_id = $1", "INVOICE_DIFFERS"),
        ("UPDATE invoices SET number = 'X' || number WHERE id = $1", "INVOICE_NUMBERS_DIFFER"),
    ],
)
async def test_the_check_names_what_was_tampered_with(months: Months, statement: str, code: str) -> None:
    person, publisher = await months.person(USD), await months.person()
    await months.call(person, publisher, 500)
    await end_period(months, person)
    (invoice,) = await months.until_invoices(person, 1)
    async with months.books.superuser() as connection:
        copy = await connection.fetchrow("SELECT * FROM invoices WHERE id = $1", invoice.invoice_id)
        amount = await connection.fetchval("SELECT amount FROM invoice_lines WHERE invoice_id = $1", invoice.invoice_id)
        await connection.execute(statement, invoice.invoice_id)
        checked = await months.books.check()
        assert code in {d.code for d in checked.discrepancies}
        await connection.execute(
            "UPDATE invoices SET prepaid = $2, number = $3 WHERE id = $1", copy["id"], copy["prepaid"], copy["number"]
        )
        await connection.execute(
            "UPDATE invoice_lines SET amount = $2 WHERE invoice_id = $1", invoice.invoice_id, amount
        )  # fmt: skip
    await months.check()
