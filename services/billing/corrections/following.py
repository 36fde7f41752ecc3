"""What follows when a call that was posted costs something else, by a correction or because it is refunded."""

from datetime import datetime

from mercat.usage.v1 import usage_pb2

from services.billing.budgets.spent import counts_as
from services.billing.budgets.store import BudgetStore
from services.billing.credits.grants import Grants
from services.billing.invoices.issuing import Issuing
from services.common.db import Connection


class Following:
    """Credit that is credit again, budgets that have spent less or more, and the note about an invoice that is
    issued."""

    def __init__(self, grants: Grants, budgets: BudgetStore, issuing: Issuing) -> None:
        self._grants = grants
        self._budgets = budgets
        self._issuing = issuing

    async def follow(
        self, c: Connection, call: usage_pb2.UsageRecord, cause: str, change: int, back: int, now: datetime
    ) -> None:
        """`change`: by how much the call costs more, nanos; `back`: how much of it is credit again. The row and the
        posting of the cause are made in the same transaction, with the wallet locked."""
        if back:
            await self._grants.give_back(c, call.org_id, call.request_id, cause, back)
        if change:
            await self._budgets.count(c, {counts_as(call): change}, now)
            await self._issuing.note(c, call, cause, now)
