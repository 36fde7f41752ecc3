"""Invoices beside the books: their totals are those of their lines and of the calls of their periods, they are paid by
their postings, credit notes are what was given back, and no number is missing."""

from services.billing.invoices.store import CREDIT_NOTE, INVOICE, PAID, InvoiceStore
from services.billing.ledger import WALLET
from services.billing.proof.found import INVOICES, Effects, Found, Range
from services.common.db import Connection


class InvoiceProof:
    """An `Area`."""

    def __init__(self, store: InvoiceStore) -> None:
        self._store = store

    async def prove(self, c: Connection, span: Range, effects: Effects, found: Found) -> None:
        rows, bounds = await self._store.between(c, **span.ids("inv")), span.ids("inv")
        starts = [r["period_start"] for r in rows if r["period_start"] is not None]
        ends = [r["period_end"] for r in rows if r["period_end"] is not None]
        moved = await self._store.calls_between(c, **bounds, start=min(starts), end=max(ends)) if starts else {}
        for row in rows:
            calls = moved.get(row["id"], 0)
            if row["number"] is not None:
                found.count(INVOICES, f"{row['kind'].replace('_', '-')}s", 1, row["due"] + row["prepaid"])
                due, prepaid = row["due"] - row["owed"], row["prepaid"] + row["owed"]
                if row["kind"] != CREDIT_NOTE and (due, prepaid, prepaid) != (
                    row["due_lines"], row["prepaid_lines"], calls
                ):  # fmt: skip
                    text = (
                        f"{row['number']} says {row['due']} due and {row['prepaid']} of calls; its lines say"
                        f" {row['due_lines']} and {row['prepaid_lines']}, the ledger {calls} of calls"
                    )
                    found.add(INVOICES, "INVOICE_DIFFERS", row["id"], text)
            paid = -effects.to(row["org_id"], row["id"], kind=WALLET)
            if row["kind"] == INVOICE and paid != (row["due"] - row["owed"] if row["status"] == PAID else 0):
                text = f"{row['due']} nanos, {row['status']}, and its posting moved {paid}"
                found.add(INVOICES, "INVOICE_DIFFERS", row["id"], text)
        for row in await self._store.wrong_notes(c, **bounds):
            text = (
                f"{row['number']} of {row['cause']} says {row['prepaid']}, its lines {row['lines']}, the ledger"
                f" {row['moved']}, or it is not of the call's invoice"
            )
            found.add(INVOICES, "INVOICE_DIFFERS", row["id"], text)

    async def prove_all(self, c: Connection, found: Found) -> None:
        for row in await self._store.number_gaps(c):
            text = f"{row['last']} numbers of {row['year']} were given, and {row['found']} invoices have one"
            found.add(INVOICES, "INVOICE_NUMBERS_DIFFER", row["issuer"], text)
