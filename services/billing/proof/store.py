"""The ledger's side: sums over postings and entries, computed where they lie."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

from services.billing.ledger import Account
from services.billing.proof.found import Range, beyond
from services.common.db import Connection, load_queries

Row = Mapping[str, Any]
_PART = 250_000  # postings that are read at a time


class ProofStore:
    """Reads within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.billing.proof")

    async def first_posting(self, c: Connection, span: Range) -> str | None:
        """The digits of the first one's id."""
        found: str | None = await self._q.first_posting(c, after=span.after, until=span.until)
        return found

    async def parts(self, c: Connection, span: Range) -> list[Range]:
        """A time in parts of about as many postings."""
        found: list[Range] = []
        while True:
            bound = await self._q.next_bound(c, after=span.after, until=span.until, rows=_PART)
            found.append(span._replace(until=bound or span.until))
            if bound is None:
                return found
            span = span._replace(after=bound)

    async def prove_postings(self, c: Connection, part: Range, seed: int) -> list[Row]:
        """Sums of calls by `digits`, and by `id` each of the other postings: see the query."""
        return [r async for r in self._q.prove_postings(c, **part.ids("pst"), seed=seed)]

    async def accounts(self, c: Connection, account_ids: set[str]) -> Mapping[str, Account]:
        """Those of them that there are, as they are now."""
        return {
            r["id"]: Account(r["org_id"], r["kind"]) async for r in self._q.accounts_of(c, ids=sorted(account_ids))
        }  # fmt: skip

    async def moved_by_calls(self, c: Connection, span: Range) -> dict[Account, int]:
        rows = self._q.moved_by_calls(c, **span.ids("pst"))
        return {Account(r["org_id"], r["kind"]): r["amount"] async for r in rows}

    async def postings_of_calls(self, c: Connection, digits: str) -> dict[str, Row]:
        """By cause: those of calls whose ids begin with some digits, with their entries."""
        rows = self._q.postings_of_calls(c, digits=digits, beyond=beyond(digits))
        return {r["cause"]: r async for r in rows}

    async def trial_balance(self, c: Connection) -> dict[str, int]:
        """What all accounts of a kind hold together, nanos."""
        return {r["kind"]: r["balance"] async for r in self._q.trial_balance(c)}

    async def transactions(self, c: Connection, span: Range) -> AsyncIterator[Row]:
        async for row in self._q.transactions(c, after=span.after, until=span.until):
            yield row

    async def derived(self, c: Connection) -> AsyncIterator[tuple[str, str, str]]:
        """What follows from the rest of the books and does not: code, subject, message."""
        async for row in self._q.strange_postings(c):
            yield "POSTING_UNEXPLAINED", row["id"], "it has no id of a posting"
        async for row in self._q.wrong_balances(c):
            text = f"the balance is {row['balance']}, its entries sum to {row['total']}"
            yield "BALANCE_DIFFERS", row["account_id"], text
        async for row in self._q.wrong_reservations(c):
            text = f"{row['reserved']} nanos are reserved, leases hold {row['held']}"
            yield "RESERVATION_DIFFERS", row["org_id"], text
        async for row in self._q.negative_wallets(c):
            text = f"the wallet holds {row['balance']} nanos, below its credit limit"
            yield "WALLET_NEGATIVE", row["org_id"], text
        async for row in self._q.wrong_wallets(c):
            yield "WALLET_MISPLACED", row["org_id"], f"the wallet's account {row['account_id']} is not its own"
