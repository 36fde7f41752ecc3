"""Payments, refunds and disputes beside the books: their postings moved what their state says."""

from services.billing.payments.provider import Status
from services.billing.payments.reversals import PAID, PENDING
from services.billing.payments.store import PaymentStore, Row
from services.billing.proof.found import PAYMENTS, Effects, Found, Range
from services.common.db import Connection

_HELD = ("refunds", "disputes")


class PaymentProof:
    """An `Area`."""

    def __init__(self, store: PaymentStore) -> None:
        self._store = store

    async def prove(self, c: Connection, span: Range, effects: Effects, found: Found) -> None:
        for row in await self._store.payments_between(c, **span.ids("pay")):
            succeeded = row["status"] == Status.SUCCEEDED
            found.count(PAYMENTS, "payments", int(succeeded), row["amount"] if succeeded else 0)
            moved = effects.to(row["org_id"], row["id"])
            if moved != (row["amount"] if succeeded else 0):
                text = f"{row['amount']} nanos, {row['status']}, and its posting moved {moved}"
                found.add(PAYMENTS, "PAYMENT_DIFFERS", row["id"], text)
        for row in await self._store.reversals_between(c, span.after, span.until):
            self._reversal(row, effects, found)

    def _reversal(self, row: Row, effects: Effects, found: Found) -> None:
        paid = row["status"] == PAID
        found.count(PAYMENTS, f"{row['kind']}s", int(paid), row["amount"] if paid else 0)
        causes = (row["id"], f"{row['id']}:paid", f"{row['id']}:returned")
        effects.explain(*causes)
        wallet, held = effects.to(row["org_id"], *causes), effects.on(*causes, kinds=_HELD)
        left = effects.on(*causes, ending="_clearing")
        expected = {PENDING: (-row["taken"], row["amount"], 0), PAID: (-row["taken"], 0, row["amount"])}
        if (wallet, held, left) != expected.get(row["status"], (0, 0, 0)):
            text = f"{row['status']}: of {row['amount']} nanos {wallet} moved in the wallet,"
            text += f" {held} are withheld and {left} were paid"
            found.add(PAYMENTS, "REVERSAL_DIFFERS", row["id"], text)

    async def prove_all(self, c: Connection, found: Found) -> None:
        """Each is of a month."""
