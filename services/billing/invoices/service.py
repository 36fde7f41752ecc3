"""Invoices, for people."""

import asyncio
from datetime import UTC

from google.api import httpbody_pb2
from mercat.billing.v1 import invoices_pb2, invoices_pb2_grpc

from services.billing.invoices import lines
from services.billing.invoices.collection import Collection
from services.billing.invoices.issuing import Issuing
from services.billing.invoices.lines import COLLECTED, CORRECTION, PLATFORM_FEE, Call
from services.billing.invoices.rows import invoice_of
from services.billing.invoices.store import CREDIT_NOTE, DRAFT, OPEN, SELF_BILLING, InvoiceStore, Row
from services.billing.ledger import PAYABLE, WALLET
from services.billing.store import Store
from services.common import audit, pages, pricing
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import FailedPrecondition, NotFound
from services.common.rpc.context import ROLE_NAMES, Context, caller

_SCANNED = 5000  # calls looked at for one page of a line


def _drawn(invoice: invoices_pb2.Invoice) -> bytes:
    from services.billing.invoices.pdf import render  # slow to import, and most starts have no use for it

    return render(invoice)


class InvoiceNotFound(NotFound, reason="INVOICE_NOT_FOUND"): ...


class InvoiceState(FailedPrecondition, reason="INVOICE_STATE"):
    """What was asked does not go with how the invoice stands."""


class CallsNotKept(FailedPrecondition, reason="CALLS_NOT_KEPT"):
    """Usage has dropped the month of calls."""


class InvoiceServicer(invoices_pb2_grpc.InvoiceServiceServicer):
    """Serves `mercat.billing.v1.InvoiceService`."""

    def __init__(
        self, database: Database, books: Store, store: InvoiceStore, issuing: Issuing, collection: Collection,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._database = database
        self._books = books
        self._store = store
        self._issuing = issuing
        self._collection = collection
        self._clock = clock

    async def ListInvoices(
        self, request: invoices_pb2.ListInvoicesRequest, context: Context
    ) -> invoices_pb2.ListInvoicesResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            rows = await self._store.list(connection, caller().org_id, str(key[0]) if key else None, most + 1)
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return invoices_pb2.ListInvoicesResponse(invoices=[invoice_of(r) for r in rows[:most]], next_page_token=token)

    async def GetInvoice(
        self, request: invoices_pb2.GetInvoiceRequest, context: Context
    ) -> invoices_pb2.GetInvoiceResponse:
        async with self._database.connection() as connection:
            row = await self._own(connection, request.invoice_id)
            found = await self._store.get_lines(connection, row["id"])
        return invoices_pb2.GetInvoiceResponse(invoice=invoice_of(row, found))

    async def GetInvoicePdf(
        self, request: invoices_pb2.GetInvoicePdfRequest, context: Context
    ) -> invoices_pb2.GetInvoicePdfResponse:
        invoice = (
            await self.GetInvoice(invoices_pb2.GetInvoiceRequest(invoice_id=request.invoice_id), context)
        ).invoice
        if not invoice.number:
            raise InvoiceState("the invoice is a draft; it has its number within a few seconds")
        document = httpbody_pb2.HttpBody(content_type="application/pdf", data=await asyncio.to_thread(_drawn, invoice))
        return invoices_pb2.GetInvoicePdfResponse(document=document)

    async def ListInvoiceLineUsage(
        self, request: invoices_pb2.ListInvoiceLineUsageRequest, context: Context
    ) -> invoices_pb2.ListInvoiceLineUsageResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        async with self._database.connection() as connection:
            row = await self._own(connection, request.invoice_id)
            line = await self._store.get_line(connection, row["id"], request.line_id)
            if line is None:
                raise InvoiceNotFound(f"the invoice has no line {request.line_id}")
            price = await self._store.get_prices(connection, [line["price_id"]])
        found: list[invoices_pb2.LineCall] = []
        if line["kind"] in (*COLLECTED, PLATFORM_FEE) or not line["calls"]:
            return invoices_pb2.ListInvoiceLineUsageResponse()
        if row["kind"] == CREDIT_NOTE:
            return await self._noted(row, line)
        earned = row["kind"] == SELF_BILLING
        after, scanned, last = str(key[0]) if key else "", 0, False
        while len(found) < most and scanned < _SCANNED and not last:
            page = await self._issuing.calls(
                row["org_id"], PAYABLE if earned else WALLET, row["period_start"], row["period_end"], after, 1000
            )
            last = len(page) < 1000
            for n, (posting_id, call, record) in enumerate(page):
                after, scanned = posting_id, scanned + 1
                if line["model"] and not call.model:
                    day = record.timestamp.ToDatetime(UTC).date()
                    raise CallsNotKept(f"the calls of {day:%Y-%m} are not kept any more; the invoice itself stays")
                amount = _part(line, call, price.get(line["price_id"], pricing.Price()))
                if amount is None:
                    continue
                if earned:  # whose key it was is the consumer's own business
                    for name in ("user_id", "key_id", "lease_id", "tags"):
                        record.ClearField(name)
                found.append(
                    invoices_pb2.LineCall(record=record, amount_nanos=amount, correction_id=call.correction_id)
                )
                if len(found) == most:
                    last = last and n == len(page) - 1
                    break
        token = "" if last else pages.encode([after])
        return invoices_pb2.ListInvoiceLineUsageResponse(calls=found, next_page_token=token)

    async def _noted(self, row: Row, line: Row) -> invoices_pb2.ListInvoiceLineUsageResponse:
        """The one call of a credit note."""
        async with self._database.connection() as connection:
            change = await self._store.change_of(connection, row["cause"])
        assert change is not None, "corrections and refunds are never deleted"
        record = await self._issuing.record(change["request_id"])
        if record is None:
            raise CallsNotKept("the record of the call is not kept any more; the credit note itself stays")
        noted = invoices_pb2.LineCall(record=record, amount_nanos=line["amount"], correction_id=change["correction_id"])
        return invoices_pb2.ListInvoiceLineUsageResponse(calls=[noted])

    async def PayInvoice(
        self, request: invoices_pb2.PayInvoiceRequest, context: Context
    ) -> invoices_pb2.PayInvoiceResponse:
        audit.about("invoice", request.invoice_id)
        async with self._database.transaction() as connection:
            row = await self._own(connection, request.invoice_id, lock=True)
            if row["status"] != OPEN:
                raise InvoiceState(f"the invoice is {row['status']}: there is nothing to collect")
            if row["next_attempt_at"] is not None:  # otherwise a payment is under way
                row = await self._store.update(connection, row, tell=False, next_attempt_at=self._clock.now())
        return invoices_pb2.PayInvoiceResponse(invoice=invoice_of(row))

    async def VoidInvoice(
        self, request: invoices_pb2.VoidInvoiceRequest, context: Context
    ) -> invoices_pb2.VoidInvoiceResponse:
        audit.about("invoice", request.invoice_id)
        async with self._database.transaction() as connection:
            row = await self._own(connection, request.invoice_id, lock=True)
            if row["status"] != OPEN:
                raise InvoiceState(f"the invoice is {row['status']}: only an open one can be voided")
            row = await self._collection.void(connection, row)
        return invoices_pb2.VoidInvoiceResponse(invoice=invoice_of(row))

    async def _own(self, connection: Connection, invoice_id: str, *, lock: bool = False) -> Row:
        """An invoice of the caller's organisation, or any of an administrator's; `lock`: and its wallet. Raises
        InvoiceNotFound."""
        row = await self._store.get(connection, invoice_id)
        principal = caller()
        if row is None or (row["org_id"] != principal.org_id and ROLE_NAMES.get(principal.role) != "admin"):
            raise InvoiceNotFound(f"you have no invoice {invoice_id}")
        if not lock:
            return row
        await self._books.lock_or_open_wallets(connection, [row["org_id"]])
        locked = await self._store.get(connection, invoice_id, lock=True)
        if locked is None or locked["status"] == DRAFT:
            raise InvoiceState("the invoice is a draft; it has its number within a few seconds")
        return locked


def _part(line: Row, call: Call, price: pricing.Price) -> int | None:
    """What of a call is in a line, nanos; None when it is not on it."""
    if (call.model, call.model_id) != (line["model"], line["model_id"]) or call.late != (line["kind"] == CORRECTION):
        return None
    if call.late and call.month != line["period_start"]:
        return None
    if not line["meter"]:  # of a publisher's statement
        return call.change
    if call.price_id != line["price_id"]:
        return None
    for part in lines.parts(call, price):
        if part.meter == line["meter"]:
            return part.amount
    return None
