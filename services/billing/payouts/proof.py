"""Payouts and refunds of calls beside the books."""

from services.billing.payouts.store import FAILED, PAID, PENDING, PayoutStore, Row
from services.billing.payouts.sums import PAYING
from services.billing.proof.found import PAYOUTS, Effects, Found, Range, entries_of
from services.billing.store import Store
from services.common.db import Connection

_PAGE = 500  # calls whose charges are looked up at a time


class PayoutProof:
    """An `Area`."""

    def __init__(self, books: Store, store: PayoutStore) -> None:
        self._books = books
        self._store = store

    async def prove(self, c: Connection, span: Range, effects: Effects, found: Found) -> None:
        for row in await self._store.payouts_between(c, **span.ids("po")):
            self._payout(row, effects, found)
        refunds = await self._store.call_refunds_between(c, **span.ids("rfd"))
        for at in range(0, len(refunds), _PAGE):
            page = refunds[at : at + _PAGE]
            charges = await self._books.postings_of(c, [r["request_id"] for r in page])
            for row in page:
                found.count(PAYOUTS, "refunds of calls", 1, row["amount"])
                left = dict(effects.of(row["id"]))
                charge = charges.get(row["request_id"])
                for account, amount in entries_of(charge) if charge is not None else ():
                    left[account] = left.get(account, 0) + amount
                if row["id"] not in effects.moved or any(left.values()):
                    text = f"it does not give back what {row['request_id']} cost"
                    found.add(PAYOUTS, "REFUND_DIFFERS", row["id"], text)

    def _payout(self, row: Row, effects: Effects, found: Found) -> None:
        paid = row["status"] == PAID
        found.count(PAYOUTS, "payouts", int(paid), row["amount"] if paid else 0)
        causes = (row["id"], f"{row['id']}:paid", f"{row['id']}:returned")
        effects.explain(*causes)
        moved, under_way = effects.to(row["org_id"], *causes), effects.on(*causes, kinds=(PAYING.kind,))
        expected = (0 if row["status"] == FAILED else -row["amount"], row["amount"] if row["status"] == PENDING else 0)
        if (moved, under_way) != expected or row["lines"] != row["amount"]:
            text = (
                f"{row['status']}: of {row['amount']} nanos {moved} moved, {under_way} are under way,"
                f" and its lines say {row['lines']}"
            )
            found.add(PAYOUTS, "PAYOUT_DIFFERS", row["id"], text)

    async def prove_all(self, c: Connection, found: Found) -> None:
        """Each is of a month."""
