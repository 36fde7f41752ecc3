"""From a draft to a number. Drafts of a period wait until the calls of the period are read from usage, outside any
transaction; which calls those are was settled when the draft was made, with the wallet locked: every call that was
posted before is in the period, and none comes to it later, since postings of calls take their time with it locked."""

import logging
from collections.abc import AsyncIterator, Sequence
from datetime import datetime, timedelta

from mercat.billing.v1 import billing_pb2
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc

from services.billing.invoices import lines
from services.billing.invoices.lines import EARNINGS, PLATFORM_FEE, Call, EarningLines, Line, UsageLines
from services.billing.invoices.store import DRAFT, INVOICE, OPEN, PAID, SELF_BILLING, InvoiceStore, Row, line_of
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
ISSUER = "MER"


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

    async def close_period(
        self, c: Connection, org_id: str, user_id: str, own: Sequence[Line], start: datetime, end: datetime,
        now: datetime,
    ) -> None:  # fmt: skip
        """Drafts the invoice of a period that has ended, and its publisher's statement. The wallet must be locked."""
        for kind, some in ((INVOICE, own), (SELF_BILLING, ())):
            await self._store.add(
                c, org_id=org_id, user_id=user_id, kind=kind, lines=some, now=now, start=start, end=end
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
            found |= {cause: _outlived(cause, row["amounts"]) for cause, row in posted.items()}
        calls = []
        for row in rows:
            record = found[row["request_id"]]
            call = Call(
                record.request_id, record.model_id, record.model, record.price_id, record.cost_nanos,
                row["amount"], dict(record.units), refund=row["refund"], rated=pricing.rated_of(record.rating),
            )  # fmt: skip
            calls.append((row["posting_id"], call, record))
        return calls

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
        if not own:
            await self._store.drop_draft(c, invoice_id)
            return
        statement = row["kind"] == SELF_BILLING
        due, prepaid = lines.due(own), lines.prepaid(own)
        if statement:  # what is owed to the publisher has been credited call by call
            prepaid = sum(line.amount for line in own if line.kind in (EARNINGS, PLATFORM_FEE))
        issuer = f"SB-{row['org_id'][-8:].upper()}" if statement else ISSUER
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


def _outlived(request_id: str, amounts: Sequence[int]) -> usage_pb2.UsageRecord:
    """What a posting says of a call."""
    record = usage_pb2.UsageRecord(request_id=request_id, cost_nanos=sum(amount for amount in amounts if amount > 0))
    record.timestamp.FromDatetime(ids.timestamp(request_id))
    return record
