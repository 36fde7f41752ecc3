"""Corrections and refunds on documents: lines of a period that is open change, one that is closed has credit notes and
lines of corrections on the next invoice, and publishers' statements say the same."""

import asyncio
from collections.abc import AsyncIterator
from io import BytesIO

import asyncpg
import grpc
import pytest
import pytest_asyncio
from mercat.billing.v1 import invoices_pb2, payouts_pb2
from mercat.usage.v1 import usage_pb2

from services.common.errors import from_rpc_error
from tests.integration.billing.months import DAY, USD, Invoice, Line, Months, Person, passing, when

ROW = 1000  # nanos


@pytest_asyncio.fixture(scope="module")
async def months(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Months]:
    async with passing(tmp_path_factory.mktemp("notes")) as made:
        yield made


async def calls(
    months: Months, consumer: Person, publisher: Person, count: int, price_id: str = ""
) -> list[usage_pb2.UsageRecord]:
    """Posted calls of three rows, a thousand nanos each."""
    price_id = price_id or await months.books.price(publisher, rows=ROW * 1_000_000, output_tokens=ROW * 1_000_000)
    made = [months.books.call(consumer, publisher, 3 * ROW) for _ in range(count)]
    for call in made:
        call.price_id = price_id
    await months.books.charge(*made)
    return made


async def issued(months: Months, person: Person, count: int = 1) -> Invoice:
    """The period's invoice, once it has ended: the person's so many."""
    months.advance_to(when((await months.subscription(person)).current_period_end))
    return (await months.until_invoices(person, count))[-1]


async def notes(months: Months, person: Person) -> list[Invoice]:
    found = [i for i in await months.invoices(person) if i.kind == Invoice.KIND_CREDIT_NOTE]
    return [await months.get(person, i.invoice_id) for i in found]


async def statements(months: Months, publisher: Person, count: int) -> list[Invoice]:
    months.advance_to(when((await months.subscription(publisher)).current_period_end))
    await asyncio.sleep(2.5)
    months.advance(DAY)
    return await months.until_invoices(publisher, count, kind=Invoice.KIND_SELF_BILLING)


async def refund(months: Months, request_id: str) -> None:
    request = payouts_pb2.RefundCallRequest(request_id=request_id, reason="it was wrong")
    await months.books.payouts.RefundCall(request, metadata=await months.books.admin())


async def opens(months: Months, person: Person, invoice: Invoice) -> None:
    """Every line is what it opens into."""
    for line in invoice.lines:
        if line.kind == Line.KIND_PLATFORM_FEE:
            continue
        opened = await months.opened(person, invoice, line, 2)
        assert sum(c.amount_nanos for c in opened) == line.amount_nanos, line


async def test_lines_of_a_period_that_is_open_change(months: Months) -> None:
    person, publisher = await months.person(USD), await months.person()
    fewer, more, void, refunded, _ = await calls(months, person, publisher, 5)
    await months.books.correct(fewer.request_id, units={"rows": 1})
    await months.books.correct(more.request_id, units={"rows": 10, "output_tokens": 4})
    await months.books.correct(more.request_id, units={"rows": 9})
    await months.books.correct(void.request_id, void=True)
    await refund(months, refunded.request_id)
    invoice = await issued(months, person)
    assert [(x.kind, x.meter, x.quantity, x.calls, x.amount_nanos) for x in invoice.lines] == [
        (Line.KIND_USAGE, "output_tokens", 4, 1, 4 * ROW), (Line.KIND_USAGE, "rows", 1 + 9 + 3, 3, 13 * ROW),
    ]  # fmt: skip
    assert invoice.prepaid_nanos == USD - await months.balance(person) == 17 * ROW
    await opens(months, person, invoice)
    corrected = [c for c in await months.opened(person, invoice, invoice.lines[1]) if c.correction_id]
    assert sorted(c.amount_nanos for c in corrected) == [-3 * ROW, -2 * ROW, -1 * ROW, 7 * ROW]
    assert {c.record.request_id for c in corrected} == {fewer.request_id, more.request_id, void.request_id}
    assert await notes(months, person) == []
    await months.check()
    (statement,) = await statements(months, publisher, 1)
    earned = [x for x in statement.lines if x.kind == Line.KIND_EARNINGS]
    assert [(x.calls, x.amount_nanos) for x in earned] == [(3, 17 * ROW)]
    assert statement.total_nanos == await months.books.earned(publisher)
    await opens(months, publisher, statement)
    await months.check()


async def test_what_a_call_on_an_issued_invoice_cost_too_much_has_a_credit_note(months: Months) -> None:
    person, publisher = await months.person(USD), await months.person()
    fewer, refunded, _ = await calls(months, person, publisher, 3)
    before = await issued(months, person)
    await statements(months, publisher, 1)
    await months.books.correct(fewer.request_id, units={"rows": 2})
    await months.books.correct(fewer.request_id, units={"rows": 0})
    await refund(months, refunded.request_id)
    found = await notes(months, person)
    assert [n.total_nanos for n in found] == [-ROW, -2 * ROW, -3 * ROW]
    for note, call in zip(found, (fewer, fewer, refunded), strict=True):
        assert (note.status, note.due_nanos) == (Invoice.STATUS_PAID, 0)
        assert (note.corrects_invoice_id, note.corrects_number) == (before.invoice_id, before.number)
        assert note.number.startswith("CN-")
        (line,) = note.lines
        assert (line.kind, line.amount_nanos, line.meter) == (Line.KIND_CORRECTION, note.total_nanos, "rows")
        month = when(call.timestamp)
        said = f"Correction of {call.request_id}, {month:%Y-%m}: {publisher.username}/m: rows"
        assert (line.description, when(line.period_start).month) == (said, month.month)
        (opened,) = await months.opened(person, note, line)
        assert (opened.record.request_id, opened.amount_nanos) == (call.request_id, line.amount_nanos)
        assert bool(opened.correction_id) == (call is fewer)
    assert await months.get(person, before.invoice_id) == before
    # Nothing of that is on the next invoice.
    (after,) = await calls(months, person, publisher, 1)
    invoice = await issued(months, person, 2)
    assert [(x.kind, x.calls, x.amount_nanos) for x in invoice.lines] == [(Line.KIND_USAGE, 1, 3 * ROW)]
    assert (await months.opened(person, invoice, invoice.lines[0]))[0].record.request_id == after.request_id
    await months.check()
    # The publisher's next statement has all of it, and both of them are what was earned.
    first, second = await statements(months, publisher, 2)
    corrected = [x for x in second.lines if x.kind == Line.KIND_CORRECTION]
    assert [(x.calls, x.amount_nanos) for x in corrected] == [(3, -6 * ROW)]
    assert corrected[0].description.startswith("Correction of 3 calls, ")
    assert first.total_nanos + second.total_nanos == await months.books.earned(publisher)
    await opens(months, publisher, second)
    opened_calls = await months.opened(publisher, second, corrected[0])
    assert sorted(c.record.request_id for c in opened_calls) == sorted(
        [fewer.request_id, fewer.request_id, refunded.request_id]
    )
    assert {c.record.key_id for c in opened_calls} == {""}
    await months.check()


async def test_what_it_cost_too_little_is_on_the_next_invoice(months: Months) -> None:
    person, publisher = await months.person(USD), await months.person()
    more, other, free, _ = await calls(months, person, publisher, 4)
    await issued(months, person)
    await months.books.correct(more.request_id, units={"rows": 5})
    await months.books.correct(other.request_id, units={"rows": 4, "output_tokens": 2})
    assert await notes(months, person) == []
    await calls(months, person, publisher, 1, price_id=more.price_id)
    invoice = await issued(months, person, 2)
    month = f"{when(more.timestamp):%Y-%m}"
    model = f"{publisher.username}/m"
    assert [(x.kind, x.description, x.quantity, x.calls, x.amount_nanos) for x in invoice.lines] == [
        (Line.KIND_USAGE, f"{model}: rows", 3, 1, 3 * ROW),
        (Line.KIND_CORRECTION, f"Correction of {other.request_id}, {month}: {model}: output tokens", 2, 1, 2 * ROW),
        (Line.KIND_CORRECTION, f"Correction of 2 calls, {month}: {model}: rows", 3, 2, 3 * ROW),
    ]
    assert (invoice.prepaid_nanos, invoice.due_nanos) == (8 * ROW, 0)
    await opens(months, person, invoice)
    # What is taken back after that is a note of the invoice that the call was on first.
    await months.books.correct(more.request_id, units={"rows": 3})
    (note,) = await notes(months, person)
    assert (note.total_nanos, note.corrects_number) == (-2 * ROW, (await months.until_invoices(person, 2))[0].number)
    assert free.request_id not in str(invoice)
    await months.check()


async def test_a_call_that_was_free_is_on_no_invoice_until_it_costs_something(months: Months) -> None:
    person, publisher = await months.person(USD), await months.person()
    price_id = await months.books.price(publisher, output_tokens=ROW * 1_000_000)
    call = months.books.call(person, publisher, 0)
    call.price_id = price_id
    await months.books.charge(call)
    end = when((await months.subscription(person)).current_period_end)
    months.advance_to(end)

    async def another_period() -> bool | None:
        return when((await months.subscription(person)).current_period_end) > end or None

    await months.until(another_period)
    await months.books.correct(call.request_id, units={"output_tokens": 7})
    first = await issued(months, person)
    assert [(x.kind, x.meter, x.amount_nanos) for x in first.lines] == [
        (Line.KIND_CORRECTION, "output_tokens", 7 * ROW)
    ]
    await months.books.correct(call.request_id, units={"output_tokens": 2})
    (note,) = await notes(months, person)
    assert (note.total_nanos, note.corrects_invoice_id) == (-5 * ROW, first.invoice_id)
    await opens(months, person, first)
    await months.check()


async def test_a_credit_note_of_what_credit_paid(months: Months) -> None:
    person, publisher = await months.person(USD), await months.person()
    await months.books.give(person, 2 * ROW)
    (call,) = await calls(months, person, publisher, 1)
    assert (await issued(months, person)).prepaid_nanos == 3 * ROW
    await months.books.correct(call.request_id, units={"rows": 1})
    (note,) = await notes(months, person)
    assert note.total_nanos == -2 * ROW
    wallet = await months.books.wallet(person)
    assert (wallet.balance_nanos, wallet.promotional_nanos) == (USD, ROW)
    await months.check()


async def test_the_document_of_a_credit_note(months: Months) -> None:
    from pypdf import PdfReader

    person, publisher = await months.person(USD), await months.person()
    (call,) = await calls(months, person, publisher, 1)
    before = await issued(months, person)
    await months.books.correct(call.request_id, void=True)
    (note,) = await notes(months, person)
    request = invoices_pb2.GetInvoicePdfRequest(invoice_id=note.invoice_id)
    got = await months.books.invoices.GetInvoicePdf(request, metadata=person.metadata)
    text = "\n".join(page.extract_text() for page in PdfReader(BytesIO(got.document.data)).pages)
    for said in (f"Credit note {note.number}", f"Invoice {before.number}", "-0.000003 USD", "Credited"):
        assert said in text
    with pytest.raises(grpc.RpcError) as refused:
        await months.books.invoices.GetInvoicePdf(request, metadata=publisher.metadata)
    assert from_rpc_error(refused.value).reason == "INVOICE_NOT_FOUND"


async def test_numbers_of_credit_notes_have_no_gaps(months: Months) -> None:
    person, publisher = await months.person(USD), await months.person()
    made = await calls(months, person, publisher, 8)
    await issued(months, person)
    again = [months.books.correct(made[0].request_id, units={"rows": 3}) for _ in range(3)]  # which change nothing
    done = await asyncio.gather(
        *(months.books.correct(call.request_id, units={"rows": 1}) for call in made), *again, return_exceptions=True
    )
    assert sum(isinstance(d, grpc.RpcError) for d in done) <= 3
    found = await notes(months, person)
    numbers = sorted(int(n.number.rpartition("-")[2]) for n in found)
    assert len(found) >= 8
    assert numbers == list(range(numbers[0], numbers[0] + len(found)))
    async with months.books.superuser() as connection:
        rows = await connection.fetch("SELECT number FROM invoices WHERE number LIKE 'CN-%'")
        last = await connection.fetchval("SELECT sum(last) FROM invoice_numbers WHERE issuer = 'CN'")
    assert len(rows) == last
    await months.check()


@pytest.mark.parametrize(
    ("statement", "undo"),
    [
        ("UPDATE invoices SET prepaid = prepaid - 1 WHERE id = $1",
         "UPDATE invoices SET prepaid = prepaid + 1 WHERE id = $1"),
        ("UPDATE invoice_lines SET amount = amount - 1 WHERE invoice_id = $1",
         "UPDATE invoice_lines SET amount = amount + 1 WHERE invoice_id = $1"),
        ("UPDATE invoices SET org_id = org_id || 'x' WHERE id = $1",
         "UPDATE invoices SET org_id = rtrim(org_id, 'x') WHERE id = $1"),
    ],
)  # fmt: skip
async def test_the_check_names_a_credit_note_that_was_tampered_with(months: Months, statement: str, undo: str) -> None:
    person, publisher = await months.person(USD), await months.person()
    (call,) = await calls(months, person, publisher, 1)
    await issued(months, person)
    await months.books.correct(call.request_id, void=True)
    (note,) = await notes(months, person)
    async with months.books.superuser() as connection:
        await connection.execute(statement, note.invoice_id)
        try:
            found = {(d.code, d.subject) for d in (await months.books.check()).discrepancies}
        finally:
            await connection.execute(undo, note.invoice_id)
    assert ("INVOICE_DIFFERS", note.invoice_id) in found
    await months.check()
    connection = await asyncpg.connect(months.books.postgres_url)
    try:
        with pytest.raises(asyncpg.RaiseError, match="final"):
            await connection.execute("UPDATE billing.invoices SET corrects = NULL WHERE id = $1", note.invoice_id)
    finally:
        await connection.close()
