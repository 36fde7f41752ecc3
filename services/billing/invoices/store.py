"""The tables of invoices, and the postings of the calls on them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields
from datetime import UTC, datetime, timedelta
from typing import Any

from mercat.event.v1 import event_pb2

from services.billing.invoices.lines import Line
from services.billing.ledger import CREDIT, CURRENCY, WALLET
from services.billing.prices.store import price_of
from services.common import ids, outbox, pricing
from services.common.db import Connection, load_queries

Row = Mapping[str, Any]
INVOICE, SELF_BILLING, CREDIT_NOTE = "invoice", "self_billing", "credit_note"
DRAFT, OPEN, PAID, VOID, UNCOLLECTIBLE = "draft", "open", "paid", "void", "uncollectible"
_LONGEST_CALL = timedelta(days=62)  # from a call's arrival to its posting, and more: a job may run for a week
_SECOND, _EPOCH = timedelta(seconds=1), datetime(1970, 1, 1, tzinfo=UTC)


class InvoiceStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.billing.invoices")

    async def add(
        self, c: Connection, *, org_id: str, user_id: str, kind: str, lines: Sequence[Line], now: datetime,
        start: datetime | None = None, end: datetime | None = None, owed: int = 0, cause: str | None = None,
        corrects: str | None = None,
    ) -> str | None:  # fmt: skip
        """A draft's id; None when its period has an invoice already. `owed`: nanos by which the wallet is below zero;
        `cause`, `corrects`: of a credit note, the correction or refund it is of and the invoice it corrects."""
        made: str | None = await self._q.add_invoice(
            c, id=ids.new("inv"), org_id=org_id, user_id=user_id, kind=kind, currency=CURRENCY, start=start, end_=end,
            cause=cause, corrects=corrects, owed=owed, now=now,
        )  # fmt: skip
        if made:
            await self.add_lines(c, made, lines, 0)
        return made

    async def add_lines(self, c: Connection, invoice_id: str, lines: Sequence[Line], first: int) -> None:
        if lines:
            await self._q.add_lines(
                c, ids=[ids.new("il") for _ in lines], invoice_id=invoice_id, first=first,
                kinds=[x.kind for x in lines], descriptions=[x.description for x in lines],
                subscriptions=[x.subscription_id for x in lines], model_ids=[x.model_id for x in lines],
                models=[x.model for x in lines], publishers=[x.publisher_org_id for x in lines],
                fees=[x.fee_ppm for x in lines], meters=[x.meter for x in lines], prices=[x.price_id for x in lines],
                quantities=[x.quantity for x in lines], calls=[x.calls for x in lines],
                amounts=[x.amount for x in lines], starts=[x.start for x in lines], ends=[x.end for x in lines],
            )  # fmt: skip

    async def get_lines(self, c: Connection, invoice_id: str) -> list[Row]:
        return [r async for r in self._q.get_lines(c, invoice_id=invoice_id)]

    async def get_line(self, c: Connection, invoice_id: str, line_id: str) -> Row | None:
        row: Row | None = await self._q.get_line(c, invoice_id=invoice_id, id=line_id)
        return row

    async def get(self, c: Connection, invoice_id: str, *, lock: bool = False) -> Row | None:
        query = self._q.lock_invoice if lock else self._q.get_invoice
        row: Row | None = await query(c, id=invoice_id)
        return row

    async def list(self, c: Connection, org_id: str, before: str | None, most: int) -> Sequence[Row]:
        return [r async for r in self._q.list_invoices(c, org_id=org_id, before=before, most=most)]

    async def drafts(self, c: Connection, settled: datetime, most: int) -> Sequence[Row]:
        """Those of statements only when they were made before `settled`."""
        return [r async for r in self._q.drafts(c, settled=settled, most=most)]

    async def drop_draft(self, c: Connection, invoice_id: str) -> None:
        await self._q.drop_draft(c, id=invoice_id)

    async def take_number(self, c: Connection, issuer: str, year: int) -> str:
        """The issuer's next number of a year, such as MER-2026-000001. Whoever else wants one waits until this
        transaction ends, so that none is skipped."""
        number: int = await self._q.take_number(c, issuer=issuer, year=year)
        return f"{issuer}-{year}-{number:06d}"

    async def finalise(
        self, c: Connection, invoice_id: str, *, number: str, status: str, prepaid: int, due: int,
        next_attempt_at: datetime | None, paid_at: datetime | None, now: datetime,
    ) -> Row:  # fmt: skip
        row: Row = await self._q.finalise(
            c, id=invoice_id, number=number, status=status, prepaid=prepaid, due=due, next_attempt_at=next_attempt_at,
            paid_at=paid_at, now=now,
        )  # fmt: skip
        await self._tell(c, row)
        return row

    async def due(self, c: Connection, now: datetime, most: int) -> Sequence[Row]:
        return [r async for r in self._q.due_invoices(c, now=now, most=most)]

    async def update(self, c: Connection, row: Row, *, tell: bool = True, **changes: Any) -> Row:
        """Changes how a locked invoice is paid."""
        columns = ("status", "attempts", "failure_code", "first_failed_at", "next_attempt_at", "paid_at")
        values = {name: changes.get(name, row[name]) for name in columns}
        changed: Row = await self._q.update_invoice(c, id=row["id"], **values)
        if tell:
            await self._tell(c, changed)
        return changed

    async def _tell(self, c: Connection, row: Row) -> None:
        event = event_pb2.InvoiceChanged(
            invoice_id=row["id"], org_id=row["org_id"], number=row["number"], status=row["status"],
            due_nanos=row["due"], attempts=row["attempts"], failure_code=row["failure_code"],
        )  # fmt: skip
        if row["next_attempt_at"] is not None:
            event.next_attempt_at.FromDatetime(row["next_attempt_at"])
        await outbox.add(c, event)

    async def failing_subscriptions(self, c: Connection, org_id: str) -> set[str]:
        return {r["subscription_id"] async for r in self._q.failing_subscriptions(c, org_id=org_id)}

    async def charges(
        self, c: Connection, org_id: str, account: str, start: datetime, end: datetime, after: str, most: int
    ) -> Sequence[Row]:
        """Postings of calls, refunds and corrections that moved an organisation's account of a kind within a time;
        `after` is the last page's last posting."""
        first, until = walk(start, end)
        kinds = [WALLET, CREDIT] if account == WALLET else [account]  # a call may be paid from both
        rows = self._q.charges(
            c, org_id=org_id, kinds=kinds, earned=account != WALLET, start=start, end_=end, after=after, first=first,
            until=until, most=most,
        )  # fmt: skip
        return [r async for r in rows]

    async def change_of(self, c: Connection, cause: str) -> Row | None:
        """What a correction or refund changed of a call."""
        row: Row | None = await self._q.change_of(c, cause=cause)
        return row

    async def invoice_of_call(self, c: Connection, org_id: str, request_id: str) -> Row | None:
        """The invoice, issued by now, on which a call is."""
        row: Row | None = await self._q.invoice_of_call(c, org_id=org_id, request_id=request_id)
        return row

    async def owed_on_open_invoices(self, c: Connection, org_id: str) -> int:
        """Nanos below zero that are being collected already."""
        return int(await self._q.owed_on_open_invoices(c, org_id=org_id))

    async def get_prices(self, c: Connection, price_ids: Sequence[str]) -> dict[str, pricing.Price]:
        """Those of them that there are, by id."""
        rows = self._q.get_prices(c, ids=list(price_ids))
        return {r["id"]: pricing.read(price_of(r)) async for r in rows}

    async def model_fees(self, c: Connection, org_id: str, start: datetime, end: datetime) -> Sequence[Row]:
        return [r async for r in self._q.model_fees(c, org_id=org_id, start=start, end_=end)]

    # The proof of the books

    async def between(self, c: Connection, after: str, until: str) -> Sequence[Row]:
        """Those of ids from one on until just before another, with what their lines say."""
        return [r async for r in self._q.invoices_between(c, after=after, until=until)]

    async def calls_between(
        self, c: Connection, after: str, until: str, start: datetime, end: datetime
    ) -> dict[str, int]:
        """By invoice of such ids: what calls of its period moved, nanos. All periods lie between two instants."""
        first, last = walk(start, end)
        rows = self._q.calls_of_invoices(c, after=after, until=until, first=first, last=last)
        return {r["id"]: r["moved"] async for r in rows}

    async def wrong_notes(self, c: Connection, after: str, until: str) -> Sequence[Row]:
        return [r async for r in self._q.wrong_notes(c, after=after, until=until)]

    async def number_gaps(self, c: Connection) -> Sequence[Row]:
        return [r async for r in self._q.number_gaps(c)]


def walk(start: datetime, end: datetime) -> tuple[str, str]:
    """Posting ids between which everything lies that was posted within a time: a posting is named after its cause."""

    def at(moment: datetime) -> str:
        return ids.first("pst", (moment - _EPOCH) // timedelta(milliseconds=1))

    return at(start - _LONGEST_CALL), at(end + _SECOND)


def line_of(row: Row) -> Line:
    renamed = {"start": "period_start", "end": "period_end"}
    return Line(**{f.name: row[renamed.get(f.name, f.name)] for f in fields(Line)})
