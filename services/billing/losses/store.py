"""The tables of losses."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.billing.losses.sharing import Paid, Share
from services.common.db import Connection, load_queries

Row = Mapping[str, Any]
OPEN, HELD, CHARGED, RELEASED = "open", "held", "charged", "released"


class LossStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.billing.losses")

    async def add_loss(
        self, c: Connection, reversal_id: str, org_id: str, amount: int, since: datetime, now: datetime
    ) -> None:
        """A dispute's money, of which `amount` nanos were spent after `since`."""
        await self._q.add_loss(
            c, reversal_id=reversal_id, org_id=org_id, amount=amount, since=since, until=now, now=now
        )  # fmt: skip

    async def due_losses(self, c: Connection, most: int) -> list[str]:
        """The disputes of those that are due a step."""
        return [r["reversal_id"] async for r in self._q.due_losses(c, most=most)]

    async def get_loss(self, c: Connection, reversal_id: str, *, lock: bool = False) -> Row:
        query = self._q.lock_loss if lock else self._q.get_loss
        row: Row = await query(c, reversal_id=reversal_id)
        return row

    async def paid_calls(self, c: Connection, loss: Row, before: str, most: int) -> list[Paid]:
        """Calls that the organisation's wallet paid, newest first, before a posting."""
        rows = self._q.paid_calls(
            c, org_id=loss["org_id"], since=loss["paid_since"], until=loss["paid_until"], before=before, most=most
        )
        return [
            Paid(r["posting_id"], r["publisher_org_id"], r["paid"], r["earned"], r["cost"]) async for r in rows
        ]  # fmt: skip

    async def hold(self, c: Connection, reversal_id: str, first: str, last: str, shares: Mapping[str, Share]) -> None:
        """Holds the shares of publishers; `first` and `last`: the postings between which the calls are."""
        await self._q.hold_loss(c, reversal_id=reversal_id, first=first, last=last)
        some = {org_id: share for org_id, share in shares.items() if share.amount}
        await self._q.add_shares(
            c, reversal_id=reversal_id, publishers=list(some), calls=[s.calls for s in some.values()],
            amounts=[s.amount for s in some.values()],
        )  # fmt: skip

    async def get_shares(self, c: Connection, reversal_id: str) -> Sequence[tuple[str, int]]:
        """Publishers, and nanos of each."""
        rows = self._q.get_shares(c, reversal_id=reversal_id)
        return [(r["publisher_org_id"], r["amount"]) async for r in rows]

    async def end(self, c: Connection, reversal_id: str, status: str, now: datetime) -> None:
        await self._q.end_loss(c, reversal_id=reversal_id, status=status, now=now)

    async def held_of(self, c: Connection, publisher_org_id: str) -> int:
        """What of a publisher's earnings open disputes may take, nanos."""
        return int(await self._q.held_of(c, publisher_org_id=publisher_org_id))

    async def shares_between(self, c: Connection, after: str, until: str) -> Sequence[Row]:
        """Of disputes begun in a time, by the digits of their ids, each with all that was lost and shared of it."""
        return [r async for r in self._q.shares_between(c, after=after, until=until)]
