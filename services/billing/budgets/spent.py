"""What was spent by key, model and day, told again from the calls themselves: for the reconciler."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime, timedelta

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
    """What the table says, nanos, from a day on."""

    known_since: date = date.max
    table: Mapping[Spending, int] = field(default_factory=dict)
    changed: Mapping[Spending, int] = field(default_factory=dict)  # by corrections and refunds
    _calls: dict[Spending, int] = field(default_factory=dict)
    _expected: set[str] = field(default_factory=set)

    def add(self, call: usage_pb2.UsageRecord) -> None:
        """A call whose posting the table knows."""
        counted = counts_as(call)
        if counted.day >= self.known_since:
            self._calls[counted] = self._calls.get(counted, 0) + call.cost_nanos

    def expect(self, cause: str) -> None:
        """The table knows a posting whose call is yet to be found."""
        self._expected.add(cause)

    def add_expected(self, call: usage_pb2.UsageRecord) -> None:
        """A call that was found, by itself."""
        if call.request_id in self._expected:
            self.add(call)

    def differences(self) -> Iterator[tuple[str, str]]:
        """The organisation, and a sentence for people."""
        for one in sorted(self.table.keys() | self._calls.keys() | self.changed.keys()):
            table, calls = self.table.get(one, 0), self._calls.get(one, 0) + self.changed.get(one, 0)
            if table != calls:
                who = f"by {one.key_id or 'sessions'} on {one.model_id} on {one.day}"
                yield one.org_id, f"{table} nanos are counted as spent {who}, the posted calls cost {calls}"
