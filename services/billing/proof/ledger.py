"""What the ledger's postings are of: transactions."""

from services.billing.proof.found import LEDGER, Effects, Found, Range
from services.billing.proof.store import ProofStore
from services.common.db import Connection


class LedgerProof:
    """An `Area`."""

    def __init__(self, store: ProofStore) -> None:
        self._store = store

    async def prove(self, c: Connection, span: Range, effects: Effects, found: Found) -> None:
        async for row in self._store.transactions(c, span):
            effects.explain(row["cause"])
            moved = effects.to(row["org_id"], row["cause"])
            if row["status"] == "succeeded":
                found.count(LEDGER, "transactions", 1, row["amount"])
                if moved != row["amount"]:
                    text = f"{row['amount']} nanos by the transaction, {moved} by its posting"
                    found.add(LEDGER, "TRANSACTION_DIFFERS", row["id"], text)

    async def prove_all(self, c: Connection, found: Found) -> None:
        async for code, subject, text in self._store.derived(c):
            found.add(LEDGER, code, subject, text)
