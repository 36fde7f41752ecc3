"""Credit beside the books: what is left of grants, and what the accounts of credit hold."""

from services.billing.credits.store import CreditStore
from services.billing.proof.found import LEDGER, Effects, Found, Range
from services.common.db import Connection


class CreditProof:
    """An `Area`. Grants are spent over months, so all of them are proven every time."""

    def __init__(self, store: CreditStore) -> None:
        self._store = store

    async def prove(self, c: Connection, span: Range, effects: Effects, found: Found) -> None:
        """Nothing is of a month."""

    async def prove_all(self, c: Connection, found: Found) -> None:
        for row in await self._store.wrong_grants(c):
            parts = f"{row['remaining']} are left, {row['burnt']} spent and {row['lapsed']} expired"
            found.add(LEDGER, "GRANT_DIFFERS", row["id"], f"of {row['amount']} nanos {parts}")
        for row in await self._store.wrong_returns(c):
            text = f"{row['amount']} nanos are back by {row['cause']}, which does not say so"
            found.add(LEDGER, "GRANT_DIFFERS", row["id"], text)
        for row in await self._store.wrong_credit(c):
            text = f"the account holds {row['balance']} nanos, of the grants {row['remaining']} are left"
            found.add(LEDGER, "CREDIT_DIFFERS", row["org_id"], text)
