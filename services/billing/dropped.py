"""Postings of calls whose records are not kept any more, compared with what usage says they cost together. Pure."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime

from mercat.usage.v1 import usage_pb2

from services.billing.ledger import CREDIT, FEE, PAYABLE, PLATFORM, WALLET, Account
from services.common import ids

Moved = dict[tuple[datetime, Account], int]
_PAYS = (WALLET, CREDIT)


def add(moved: Moved, cause: str, entries: Iterable[tuple[Account, int]]) -> None:
    """Counts a posting, in the month of its call."""
    month = ids.timestamp(cause).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    for account, amount in entries:
        moved[month, account] = moved.get((month, account), 0) + amount


def differences(
    moved: Mapping[tuple[datetime, Account], int], sums: Iterable[usage_pb2.UsageSum]
) -> list[tuple[str, str]]:
    """Whose accounts moved otherwise than usage says, and how: consumers paid just what their calls cost, and
    publishers earned at most what calls to them cost, the platform the rest."""
    paid: dict[tuple[datetime, str], int] = {}
    sold: dict[tuple[datetime, str], int] = {}
    for s in sums:
        month = s.month.ToDatetime(UTC)
        for of, org_id in ((paid, s.org_id), (sold, s.publisher_org_id)):
            of[month, org_id] = of.get((month, org_id), 0) + s.cost_nanos
    found: list[tuple[str, str]] = []
    for month, org_id in sorted({*paid, *((m, a.org_id) for m, a in moved if a.kind in _PAYS)}):
        cost = paid.get((month, org_id), 0)
        spent = -sum(moved.get((month, Account(org_id, kind)), 0) for kind in _PAYS)
        if cost != spent:
            found.append((org_id, f"its calls of {month:%Y-%m} cost {cost} nanos by usage, {spent} by the ledger"))
    for month, account in sorted(moved):
        if account.kind == PAYABLE and not 0 <= moved[month, account] <= sold.get((month, account.org_id), 0):
            found.append(
                (
                    account.org_id,
                    f"it earned {moved[month, account]} nanos of calls of {month:%Y-%m}, more than they cost",
                )
            )
        elif account.kind not in (*_PAYS, PAYABLE) and account != Account(PLATFORM, FEE):
            found.append((account.org_id, f"calls of {month:%Y-%m} moved money of its {account.kind}"))
    return found
