"""The tables of payouts, and what publishers earned."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from mercat.event.v1 import event_pb2

from services.billing.budgets.store import Spending
from services.billing.invoices.store import walk
from services.billing.ledger import CURRENCY
from services.common import ids, outbox
from services.common.db import Connection, load_queries

Row = Mapping[str, Any]
PENDING, PAID, FAILED = "pending", "paid", "failed"
CALLS, SUBSCRIPTIONS, REFUNDS, CARRIED = "calls", "subscriptions", "refunds", "carried"
Line = tuple[str, str, int, int]  # kind, model, count, amount


class PayoutStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.billing.payouts")

    # Accounts

    async def put_account(
        self, c: Connection, *, org_id: str, user_id: str, provider: str, ref: str, ready: bool, schedule: str,
        anchor: datetime, next_at: datetime, now: datetime,
    ) -> Row:  # fmt: skip
        row: Row = await self._q.put_account(
            c, org_id=org_id, user_id=user_id, provider=provider, ref=ref, ready=ready, schedule=schedule,
            anchor=anchor, next_at=next_at, now=now,
        )  # fmt: skip
        return row

    async def get_account(self, c: Connection, org_id: str, *, lock: bool = False) -> Row | None:
        query = self._q.lock_account if lock else self._q.get_account
        row: Row | None = await query(c, org_id=org_id)
        return row

    async def due_accounts(self, c: Connection, now: datetime, most: int) -> list[Row]:
        return [r async for r in self._q.due_accounts(c, now=now, most=most)]

    async def move_account(self, c: Connection, org_id: str, *, ready: bool, next_at: datetime) -> None:
        await self._q.move_account(c, org_id=org_id, ready=ready, next_at=next_at)

    # Earnings, nanos

    async def lock_payable(self, c: Connection, org_id: str) -> int:
        return int(await self._q.lock_payable(c, org_id=org_id) or 0)

    async def earned(self, c: Connection, org_id: str, start: datetime, end: datetime) -> int:
        """By calls and subscriptions within a time."""
        after, until = walk(start, end)
        return int(await self._q.earned(c, org_id=org_id, start=start, end_=end, after=after, until=until))

    async def subscriptions_earned(self, c: Connection, org_id: str, start: datetime, end: datetime) -> Row:
        after, until = walk(start, end)
        row: Row = await self._q.subscriptions_earned(
            c, org_id=org_id, start=start, end_=end, after=after, until=until
        )  # fmt: skip
        return row

    async def taken_back(self, c: Connection, org_id: str) -> list[Row]:
        """posting_id and amount of what is in no payout yet: less than 0, or a correction."""
        return [r async for r in self._q.taken_back(c, org_id=org_id)]

    # Payouts

    async def add_payout(
        self, c: Connection, *, org_id: str, user_id: str, amount: int, provider: str, account_ref: str,
        earned_from: datetime | None, earned_until: datetime, carried_in: int, carried_out: int,
        taken_back: Sequence[str], now: datetime,
    ) -> str:  # fmt: skip
        payout_id = ids.new("po")
        await self._q.add_payout(
            c, id=payout_id, org_id=org_id, user_id=user_id, amount=amount, currency=CURRENCY, provider=provider,
            account_ref=account_ref, earned_from=earned_from, earned_until=earned_until, carried_in=carried_in,
            carried_out=carried_out, now=now,
        )  # fmt: skip
        await self._q.add_adjustments(c, payout_id=payout_id, posting_ids=list(taken_back))
        await self._tell(c, payout_id, org_id, amount, PENDING, "")
        return payout_id

    async def adjusted(self, c: Connection, payout_id: str) -> Row:
        row: Row = await self._q.adjusted(c, payout_id=payout_id)
        return row

    async def last_payout(self, c: Connection, org_id: str) -> Row | None:
        row: Row | None = await self._q.last_payout(c, org_id=org_id)
        return row

    async def get_payout(self, c: Connection, payout_id: str, *, lock: bool = False) -> Row | None:
        query = self._q.lock_payout if lock else self._q.get_payout
        row: Row | None = await query(c, id=payout_id)
        return row

    async def list_payouts(self, c: Connection, org_id: str, before: str | None, most: int) -> list[Row]:
        return [r async for r in self._q.list_payouts(c, org_id=org_id, before=before, most=most)]

    async def claim_payouts(self, c: Connection, now: datetime, until: datetime, most: int) -> list[Row]:
        return [r async for r in self._q.claim_payouts(c, now=now, until=until, most=most)]

    async def put_off_payout(self, c: Connection, payout_id: str, at: datetime) -> None:
        await self._q.put_off_payout(c, id=payout_id, at=at)

    async def settle_payout(self, c: Connection, row: Row, status: str, ref: str, code: str, now: datetime) -> None:
        await self._q.settle_payout(
            c, id=row["id"], status=status, provider_ref=ref or None, failure_code=code, now=now
        )  # fmt: skip
        await self._tell(c, row["id"], row["org_id"], row["amount"], status, code)

    async def paid_out(self, c: Connection, org_id: str) -> int:
        return int(await self._q.paid_out(c, org_id=org_id))

    async def add_lines(self, c: Connection, payout_id: str, lines: Sequence[Line]) -> None:
        """Once; a second time changes nothing."""
        kinds, models, counts, amounts = zip(*lines, strict=True)
        await self._q.add_payout_lines(
            c, payout_id=payout_id, kinds=list(kinds), models=list(models), counts=list(counts), amounts=list(amounts)
        )

    async def get_lines(self, c: Connection, payout_id: str) -> list[Row]:
        return [r async for r in self._q.get_payout_lines(c, payout_id=payout_id)]

    async def _tell(self, c: Connection, payout_id: str, org_id: str, amount: int, status: str, code: str) -> None:
        event = event_pb2.PayoutChanged(
            payout_id=payout_id, org_id=org_id, amount_nanos=amount, status=status, failure_code=code
        )
        await outbox.add(c, event)

    # Refunds of calls

    async def add_call_refund(
        self, c: Connection, *, request_id: str, publisher_org_id: str, amount: int, reason: str, now: datetime,
        counted: Spending,
    ) -> tuple[Row, bool]:  # fmt: skip
        """The refund of a call, and whether it was made now. `counted`: whose call it was, and what it counts into."""
        made: Row | None = await self._q.add_call_refund(
            c, id=ids.new("rfd"), request_id=request_id, org_id=counted.org_id, publisher_org_id=publisher_org_id,
            amount=amount, key_id=counted.key_id, model_id=counted.model_id, day=counted.day, reason=reason, now=now,
        )  # fmt: skip
        if made is None:
            found: Row = await self._q.get_call_refund(c, request_id=request_id)
            return found, False
        event = event_pb2.CallRefunded(
            refund_id=made["id"], request_id=request_id, org_id=counted.org_id, publisher_org_id=publisher_org_id,
            amount_nanos=amount,
        )  # fmt: skip
        await outbox.add(c, event)
        return made, True

    async def corrected(self, c: Connection, request_id: str) -> bool:
        return bool(await self._q.is_corrected(c, request_id=request_id))

    # The proof of the books

    async def payouts_between(self, c: Connection, after: str, until: str) -> list[Row]:
        """Those of ids from one on until just before another, with what their lines say."""
        return [r async for r in self._q.payouts_between(c, after=after, until=until)]

    async def call_refunds_between(self, c: Connection, after: str, until: str) -> list[Row]:
        return [r async for r in self._q.call_refunds_between(c, after=after, until=until)]
