"""The tables of budgets. Whoever writes, or acts on what was read, holds the wallet's lock."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any, NamedTuple

from mercat.event.v1 import event_pb2

from services.billing.budgets import periods
from services.billing.ledger import CURRENCY
from services.common import outbox
from services.common.db import Connection, load_queries


class Spending(NamedTuple):
    """Whose calls, and the day they count into."""

    org_id: str
    day: date
    key_id: str
    model_id: str


@dataclass(frozen=True, slots=True)
class Budget:
    """A budget in the period of `day`; amounts in nanos, thresholds in percent of the limit."""

    budget_id: str
    org_id: str
    name: str
    key_id: str
    model_id: str
    model: str
    period: int
    limit: int
    notify_only: bool
    thresholds: tuple[int, ...]
    spent: int
    reserved: int
    day: date

    @property
    def start(self) -> date:
        return periods.start(self.period, self.day)

    @property
    def resets_at(self) -> datetime:
        return periods.midnight(periods.end(self.period, self.day))

    @property
    def free(self) -> int:
        """What nobody has spent or holds; less than nothing when the limit was lowered."""
        return self.limit - self.spent - self.reserved

    @property
    def reached(self) -> tuple[int, ...]:
        return tuple(percent for percent in self.thresholds if self.spent * 100 >= self.limit * percent)

    def counts(self, key_id: str, model_id: str) -> bool:
        """Whether a call of this key and model counts."""
        return self.key_id in ("", key_id) and self.model_id in ("", model_id)


class BudgetStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.billing.budgets")

    async def put_budget(self, c: Connection, **columns: Any) -> None:
        """Makes the budget of a name, or replaces it under the id that it has."""
        await self._q.put_budget(c, **columns)

    async def delete_budget(self, c: Connection, org_id: str, name: str) -> str:
        """Its id; empty when there is none."""
        rows = [r["id"] async for r in self._q.delete_budget(c, org_id=org_id, name=name)]
        return rows[0] if rows else ""

    async def states(self, c: Connection, org_ids: Iterable[str], day: date) -> list[Budget]:
        """All budgets of organisations in the periods that a day lies in, by name."""
        return [
            Budget(
                r["id"], r["org_id"], r["name"], r["key_id"], r["model_id"], r["model"], r["period"], r["limit_nanos"],
                r["notify_only"], tuple(r["thresholds"]), r["spent"], r["reserved"], day,
            )
            async for r in self._q.states(c, org_ids=sorted(set(org_ids)), day=day)
        ]  # fmt: skip

    async def count(self, c: Connection, spent: Mapping[Spending, int], now: datetime) -> None:
        """Adds what was posted, nanos (less than 0: given back), and tells of the thresholds that it reaches."""
        if not spent:
            return
        org_ids, days, key_ids, model_ids = zip(*spent, strict=True)
        rows = self._q.count(
            c, org_ids=list(org_ids), days=list(days), key_ids=list(key_ids), model_ids=list(model_ids),
            amounts=list(spent.values()),
        )  # fmt: skip
        watched = {(r["day"], r["org_id"]) async for r in rows if r["watched"]}
        for day in sorted({day for day, _ in watched}):
            await self.tell(c, [org_id for when, org_id in watched if when == day], day, now)

    async def tell(self, c: Connection, org_ids: Iterable[str], day: date, now: datetime) -> None:
        """Adds an event for each threshold reached in the periods of a day that was not told before."""
        budgets = {b.budget_id: b for b in await self.states(c, org_ids, day)}
        reached = [(b, percent) for b in budgets.values() for percent in b.reached]
        if not reached:
            return
        rows = self._q.add_notices(
            c, budget_ids=[b.budget_id for b, _ in reached], starts=[b.start for b, _ in reached],
            limits=[b.limit for b, _ in reached], percents=[percent for _, percent in reached], now=now,
        )  # fmt: skip
        for told in [r async for r in rows]:
            b = budgets[told["budget_id"]]
            event = event_pb2.BudgetThresholdReached(
                budget_id=b.budget_id, name=b.name, org_id=b.org_id, key_id=b.key_id, model=b.model,
                percent=told["percent"], limit_nanos=b.limit, spent_nanos=b.spent, currency=CURRENCY,
            )  # fmt: skip
            event.reset_time.FromDatetime(b.resets_at)
            await outbox.add(c, event)

    async def spending(self, c: Connection, since: date) -> tuple[date, dict[Spending, int], dict[Spending, int]]:
        """The day itself, or the first of which all is known; what was spent from it on, nanos; and what corrections
        and refunds have changed of that."""
        known = max(since, await self._q.known_since(c))
        spent = {_spending(r): r["spent"] async for r in self._q.spending(c, since=known)}
        return known, spent, {_spending(r): r["change"] async for r in self._q.changes(c, since=known)}


def _spending(r: Mapping[str, Any]) -> Spending:
    return Spending(r["org_id"], r["day"], r["key_id"], r["model_id"])
