"""From a draft to a number. Drafts of a period wait until the calls of the period are read from usage, outside any
transaction; which calls those are was settled when the draft was made, with the wallet locked: every call that was
posted before is in the period, and none comes to it later, since postings of calls take their time with it locked."""

import json
import logging
from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from mercat.billing.v1 import billing_pb2
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc

from services.billing.invoices import lines
from services.billing.invoices.lines import EARNINGS, Call, EarningLines, Line, State, UsageLines
from services.billing.invoices.store import (
    CREDIT_NOTE,
    DRAFT,
    INVOICE,
    OPEN,
    PAID,
    SELF_BILLING,
    InvoiceStore,
    Row,
    line_of,
)
from services.billing.ledger import CURRENCY, PAYABLE, WALLET
from services.billing.store import Store
from services.common import failpoints, ids, money, pricing
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.repeating import repeat
from services.common.rpc.channels import InternalChannel

log = logging.getLogger(__name__)
_PAGE = 1000  # calls
_AT_ONCE = 20  # drafts
# From when on a publisher's postings of a period are all there: their transactions do not lock its wallet.
_SETTLED = timedelta(minutes=2)
ISSUERS = {INVOICE: "MER", CREDIT_NOTE: "CN"}


class Issuing:
    """Makes drafts and finalises them."""

    def __init__(
        self, database: Database, books: Store, store: InvoiceStore, control: InternalChannel, clock: Clock
    ) -> None:
        self._database = database
        self._books = books
        self._store = store
        self._usage = usage_pb2_grpc.SettlementServiceStub(control)
        self._clock = clock

    async def bill(self, c: Connection, org_id: str, user_id: str, own: Sequence[Line], now: datetime) -> str:
        """An invoice of these lines alone, final at once; its id, empty when there is nothing to bill. The wallet must
        be locked."""
        if not any(line.amount for line in own):
            return ""
        made = await self._store.add(c, org_id=org_id, user_id=user_id, kind=INVOICE, lines=own, now=now)
        assert made is not None, "only periods are unique"
        await self._finalise(c, made, now)
        return made

    async def note(self, c: Connection, record: usage_pb2.UsageRecord, cause: str, now: datetime) -> str:
        """The credit note of what a correction or refund, made before in this transaction, gave back for a call on an
        invoice that is issued, final at once; its id. Empty where it gave nothing back or the invoice is to come: then
        it is on the one of the period that is open. The wallet must be locked."""
        change = await self._store.change_of(c, cause)
        assert change is not None
        call = call_of(record, change, late=True)
        corrected = await self._store.invoice_of_call(c, record.org_id, record.request_id) if call.change < 0 else None
        if corrected is None:
            return ""
        folded = UsageLines(await self._store.get_prices(c, [call.price_id]))
        folded.add(call)
        made = await self._store.add(
            c, org_id=record.org_id, user_id=corrected["user_id"], kind=CREDIT_NOTE, lines=folded.lines(now, now),
            now=now, cause=cause, corrects=corrected["id"],
        )  # fmt: skip
        assert made is not None, "only periods are unique"
        await self._finalise(c, made, now)
        return made

    async def close_period(
        self, c: Connection, org_id: str, user_id: str, own: Sequence[Line], start: datetime, end: datetime,
        now: datetime,
    ) -> None:  # fmt: skip
        """Drafts the invoice of a period that has ended, and its publisher's statement. The wallet must be locked: what
        it is below zero is collected with the invoice, but for what open ones collect already."""
        wallet = await self._books.get_wallet(c, org_id)
        below = -int(wallet["balance"]) if wallet else 0
        owed = max(below - await self._store.owed_on_open_invoices(c, org_id), 0)
        for kind, some, due in ((INVOICE, own, owed), (SELF_BILLING, (), 0)):
            await self._store.add(
                c, org_id=org_id, user_id=user_id, kind=kind, lines=some, now=now, start=start, end=end, owed=due
            )

    async def run(self) -> None:
        """Finalises drafts, for ever."""
        await repeat(self.finalise_drafts, "invoices wait", batch=_AT_ONCE)

    async def finalise_drafts(self) -> int:
        """How many there were."""
        async with self._database.connection() as connection:
            drafts = await self._store.drafts(connection, self._clock.now() - _SETTLED, _AT_ONCE)
        for draft in drafts:
            calls = await self._fold(draft)
            failpoints.passing("invoices.folded")
            async with self._database.transaction() as connection:
                await self._books.lock_or_open_wallets(connection, [draft["org_id"]])
                row = await self._store.get(connection, draft["id"], lock=True)
                if row is None or row["status"] != DRAFT:  # another process was quicker
                    continue
                before = await self._store.get_lines(connection, draft["id"])
                if draft["kind"] == SELF_BILLING:
                    calls = [*calls, *await self._model_fees(connection, draft)]
                await self._store.add_lines(connection, draft["id"], calls, len(before))
                await self._finalise(connection, draft["id"], self._clock.now())
            failpoints.passing("invoices.finalised")
        return len(drafts)

    async def _fold(self, draft: Row) -> Sequence[Line]:
        if draft["period_start"] is None:
            return ()
        start, end = draft["period_start"], draft["period_end"]
        own = draft["kind"] == SELF_BILLING
        usage, earnings = UsageLines({}), EarningLines()
        async for page in self.walk(draft["org_id"], PAYABLE if own else WALLET, start, end):
            if own:
                for _, call, _ in page:
                    earnings.add(call)
                continue
            async with self._database.connection() as connection:
                wanted = {call.price_id for _, call, _ in page} - set(usage.prices)
                usage.prices = {**usage.prices, **await self._store.get_prices(connection, sorted(wanted))}
            for _, call, _ in page:
                usage.add(call)
        return (earnings if own else usage).lines(start, end)

    async def walk(
        self, org_id: str, account: str, start: datetime, end: datetime
    ) -> AsyncIterator[Sequence[tuple[str, Call, usage_pb2.UsageRecord]]]:
        """Pages of all the calls that `calls` answers page by page."""
        after = ""
        while True:
            page = await self.calls(org_id, account, start, end, after, _PAGE)
            if page:
                yield page
                after = page[-1][0]
            if len(page) < _PAGE:
                return

    async def calls(
        self, org_id: str, account: str, start: datetime, end: datetime, after: str, most: int
    ) -> Sequence[tuple[str, Call, usage_pb2.UsageRecord]]:
        """A page of the calls that moved an account of a kind within a time: posting id, call, record. Of one whose
        record is not kept any more there is what the ledger knows: it has no model.

        Raises:
            Unavailable: usage cannot be asked.
        """
        async with self._database.connection() as connection:
            rows = await self._store.charges(connection, org_id, account, start, end, after, most)
        if not rows:
            return ()
        found: dict[str, usage_pb2.UsageRecord] = {}
        async for page in self._usage.ExportUsage(
            usage_pb2.ExportUsageRequest(request_ids={r["request_id"] for r in rows})
        ):
            found |= {r.request_id: r for r in page.records}
        if missing := {r["request_id"] for r in rows} - set(found):  # stored they were: usage stores first
            async with self._database.connection() as connection:
                posted = await self._books.postings_of(connection, sorted(missing))
            found |= {cause: _outlived(cause, posted[cause]["amounts"] if cause in posted else ()) for cause in missing}
        calls = []
        for row in rows:
            record = found[row["request_id"]]
            late = row["charged_at"] or ids.timestamp(row["request_id"])
            calls.append((row["posting_id"], call_of(record, row, moved=row["amount"], late=late < start), record))
        return calls

    async def record(self, request_id: str) -> usage_pb2.UsageRecord | None:
        """A call's record, while it is kept. Raises Unavailable."""
        request = usage_pb2.ExportUsageRequest(request_ids=[request_id])
        async for page in self._usage.ExportUsage(request):
            for record in page.records:
                return record
        return None

    async def _model_fees(self, c: Connection, draft: Row) -> Sequence[Line]:
        start, end = draft["period_start"], draft["period_end"]
        made: list[Line] = []
        for row in await self._store.model_fees(c, draft["org_id"], start, end):
            text = f"Subscriptions to {row['model']}"
            made.append(
                Line(EARNINGS, text, row["amount"], start, end, model_id=row["model_id"], model=row["model"])
            )  # fmt: skip
            fee = money.share(row["amount"], row["fee_ppm"])
            if fee:
                made.append(lines.fee_line(row["model"], row["model_id"], fee, start, end))
        return made

    async def _finalise(self, c: Connection, invoice_id: str, now: datetime) -> None:
        """Gives a draft its number and begins to collect it; one with nothing on it is dropped."""
        row = await self._store.get(c, invoice_id)
        assert row is not None
        own = [line_of(r) for r in await self._store.get_lines(c, invoice_id)]
        if not own and not row["owed"]:
            await self._store.drop_draft(c, invoice_id)
            return
        statement = row["kind"] == SELF_BILLING
        due, prepaid = lines.due(own) + row["owed"], lines.prepaid(own) - row["owed"]
        issuer = f"SB-{row['org_id'][-8:].upper()}" if statement else ISSUERS[row["kind"]]
        number = await self._store.take_number(c, issuer, now.year)
        await self._store.finalise(
            c, invoice_id, number=number, status=OPEN if due > 0 else PAID, prepaid=prepaid, due=due,
            next_attempt_at=now if due > 0 else None, paid_at=None if due > 0 else now, now=now,
        )  # fmt: skip
        if due <= 0 and not statement:
            await self.post(c, row, own, now)

    async def post(self, c: Connection, row: Row, own: Sequence[Line], now: datetime) -> None:
        """What a paid invoice does to the books, and its transaction."""
        posting = lines.posting(row["id"], row["org_id"], own)
        if posting is None:
            return
        await self._books.post(c, [posting], now)
        due = lines.due(own)
        await self._books.add_transaction(
            c, id=ids.new("txn"), user_id=row["user_id"], org_id=row["org_id"], amount=-due, currency=CURRENCY,
            type=billing_pb2.Transaction.TYPE_REFUND if due < 0 else billing_pb2.Transaction.TYPE_CHARGE,
            status="succeeded", cause=row["id"], now=now,
        )  # fmt: skip


def call_of(record: usage_pb2.UsageRecord, row: Row, *, moved: int = 0, late: bool = False) -> Call:
    """A recorded call, or what a row (as of `InvoiceStore.charges`) says was changed of it."""
    call = Call(
        record.request_id, record.model_id, record.model, record.price_id, record.cost_nanos, moved, dict(record.units),
        refund=row["refund"], rated=pricing.rated_of(record.rating),
        late=late and (row["refund"] or bool(row["correction_id"])),
    )  # fmt: skip
    if not row["correction_id"]:
        return call
    units_before = json.loads(row["units_before"]) if row["units_before"] else call.units
    return replace(
        call, units=json.loads(row["units"]), cost=row["cost"], before=State(units_before, row["cost_before"]),
        correction_id=row["correction_id"],
    )  # fmt: skip


def _outlived(request_id: str, amounts: Sequence[int]) -> usage_pb2.UsageRecord:
    """What a posting says of a call."""
    record = usage_pb2.UsageRecord(request_id=request_id, cost_nanos=sum(amount for amount in amounts if amount > 0))
    record.timestamp.FromDatetime(ids.timestamp(request_id))
    return record
