"""What was spent by key, model and day, told again from the calls themselves: for the proof of the books."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime, timedelta

from mercat.usage.v1 import usage_pb2

from services.billing.budgets import periods
from services.billing.budgets.store import Spending


def counts_as(r: usage_pb2.UsageRecord) -> Spending:
    """What a call counts into."""
    return Spending(r.org_id, periods.set_aside(r)[1], r.key_id, r.model_id)


def since(now: datetime) -> date:
    """The first day of last month: what was spent before is of no budget that anybody looks at."""
    return (now.date().replace(day=1) - timedelta(days=1)).replace(day=1)


@dataclass
class Spent:
    """What the table says, nanos, from a day on; and what the calls cost that were recorded before it was read and had
    been posted. None: nobody knows which had been."""

    known_since: date
    table: Mapping[Spending, int]
    changed: Mapping[Spending, int]  # by corrections and refunds
    before: usage_pb2.SumSpendingResponse | None
    _least: dict[Spending, int] = field(init=False)

    def __post_init__(self) -> None:
        self._least = _sums(self.before) if self.before is not None else {}

    def unlike(self) -> set[str]:
        """The organisations of which the table may not be what their calls cost: more was posted meanwhile, or it is
        wrong."""
        names = self.table.keys() | self._least.keys() | self.changed.keys()
        return {s.org_id for s in names if s.day >= self.known_since and self._of(s) != self.table.get(s, 0)}

    def differences(self, after: usage_pb2.SumSpendingResponse) -> Iterator[tuple[str, str]]:
        """The organisation, and a sentence for people. `after`: what the calls of such organisations cost that were
        recorded when the table had been read; the table lies between both."""
        most = _sums(after)
        for one in sorted(self.table.keys() | self._least.keys() | self.changed.keys()):
            table, calls = self.table.get(one, 0), most.get(one, 0) + self.changed.get(one, 0)
            if one.day >= self.known_since and table != self._of(one) and not self._of(one) <= table <= calls:
                who = f"by {one.key_id or 'sessions'} on {one.model_id} on {one.day}"
                yield one.org_id, f"{table} nanos are counted as spent {who}, the posted calls cost {calls}"

    def _of(self, one: Spending) -> int:
        return self._least.get(one, 0) + self.changed.get(one, 0)


def _sums(response: usage_pb2.SumSpendingResponse) -> dict[Spending, int]:
    return {
        Spending(s.org_id, s.day.ToDatetime(UTC).date(), s.key_id, s.model_id): s.cost_nanos for s in response.spending
    }
