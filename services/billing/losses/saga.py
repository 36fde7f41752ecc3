"""Losses from a dispute's beginning to its end: the calls that its money paid are found, the newest first, their
publishers' shares are held from payouts, and taken when the dispute is lost. A row says how far that is; a death
between two steps leaves one that is due again."""

from collections.abc import Callable
from datetime import datetime

from mercat.billing.v1 import billing_pb2

from services.billing.ledger import CURRENCY, Posting
from services.billing.losses import sharing
from services.billing.losses.sharing import Tracing
from services.billing.losses.store import CHARGED, HELD, OPEN, RELEASED, LossStore, Row
from services.billing.store import NEWEST, Store
from services.common import failpoints, ids
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.repeating import repeat

_AT_ONCE = 20
_LOST, _WON = "paid", "returned"  # how the dispute ended
_PAGE = 1000  # calls


class Losses:
    """Sees them through."""

    def __init__(self, database: Database, books: Store, store: LossStore, clock: Clock) -> None:
        self._database = database
        self._books = books
        self._store = store
        self._clock = clock

    async def run(self) -> None:
        """Takes everything that is due its next step, for ever."""
        await repeat(self.advance, "losses wait", batch=_AT_ONCE)

    async def advance(self) -> int:
        """How many were due."""
        async with self._database.connection() as connection:
            due = await self._store.due_losses(connection, _AT_ONCE)
        for reversal_id in due:
            await self._advance(reversal_id)
            failpoints.passing("losses.advanced")
        return len(due)

    async def _advance(self, reversal_id: str) -> None:
        async with self._database.connection() as connection:
            before = loss = await self._store.get_loss(connection, reversal_id)
        found = await self._trace(loss) if loss["status"] == OPEN else None
        now = self._clock.now()
        async with self._database.transaction() as connection:
            # Behind this lock losses of one organisation are held one after the other: no call bears two of them.
            await self._books.lock_or_open_wallets(connection, [loss["org_id"]])
            loss = await self._store.get_loss(connection, reversal_id, lock=True)
            if loss["status"] == OPEN and found is not None:
                if loss["others"] == before["others"]:
                    await self._store.hold(connection, reversal_id, found.first, found.last, found.shares)
            elif loss["status"] == HELD and loss["dispute"] == _LOST:
                await self._share(connection, loss, sharing.charged, CHARGED, -1, now)
            elif loss["status"] == CHARGED and loss["dispute"] == _WON:
                await self._share(connection, loss, sharing.returned, RELEASED, 1, now)
            elif loss["status"] == HELD and loss["dispute"] == _WON:
                await self._store.end(connection, reversal_id, RELEASED, now)

    async def _trace(self, loss: Row) -> Tracing:
        """What was posted before the dispute does not change, so it is read outside of any transaction."""
        found, before = Tracing(loss["amount"]), NEWEST[0]
        while found.left:
            async with self._database.connection() as connection:
                page = await self._store.paid_calls(connection, loss, before, _PAGE)
            found.follow(page)
            if len(page) < _PAGE:
                break
            before = page[-1].posting_id
        return found

    async def _share(
        self,
        c: Connection,
        loss: Row,
        posting: Callable[[str, str, int], Posting],
        status: str,
        sign: int,
        now: datetime,
    ) -> None:
        shares = await self._store.get_shares(c, loss["reversal_id"])
        made = [(org_id, amount, posting(loss["reversal_id"], org_id, amount)) for org_id, amount in shares]
        await self._books.post(c, [p for _, _, p in made], now)
        for org_id, amount, p in made:
            await self._books.add_transaction(
                c, id=ids.new("txn"), user_id="", org_id=org_id, amount=sign * amount, currency=CURRENCY,
                type=billing_pb2.Transaction.TYPE_DISPUTE, status="succeeded", cause=p.cause, now=now,
            )  # fmt: skip
        await self._store.end(c, loss["reversal_id"], status, now)
