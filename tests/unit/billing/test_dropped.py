"""What postings of a month moved, against what usage says its calls cost together."""

from datetime import UTC, datetime

from mercat.usage.v1 import usage_pb2

from services.billing import ledger
from services.billing.dropped import Moved, add, differences
from services.billing.ledger import Account
from services.common import ids

MAY = datetime(2026, 5, 1, tzinfo=UTC)


def _moved(*postings: ledger.Posting) -> Moved:
    moved: Moved = {}
    for posting in postings:
        add(moved, posting.cause, posting.entries)
    return moved


def _sum(org_id: str, publisher: str, cost: int) -> usage_pb2.UsageSum:
    made = usage_pb2.UsageSum(org_id=org_id, publisher_org_id=publisher, cost_nanos=cost)
    made.month.FromDatetime(MAY)
    return made


def _call(org_id: str, publisher: str, cost: int, credit: int = 0) -> ledger.Posting:
    return ledger.charge(ids.new("req", int(MAY.timestamp() * 1000) + 5), org_id, publisher, cost, 200_000, credit)


def test_what_agrees_is_not_named() -> None:
    fix = ledger.correction(ids.new("cor", int(MAY.timestamp() * 1000) + 9), "org_a", "org_b", -30, -6)
    moved = _moved(_call("org_a", "org_b", 100, credit=40), _call("org_a", "org_c", 50, credit=50), fix)
    assert {month for month, _ in moved} == {MAY}
    assert differences(moved, [_sum("org_a", "org_b", 70), _sum("org_a", "org_c", 50)]) == []
    assert differences({}, []) == []


def test_what_does_not_is() -> None:
    moved = _moved(_call("org_a", "org_b", 100))
    for sums in ([], [_sum("org_a", "org_b", 99)], [_sum("org_a", "org_b", 100), _sum("org_d", "org_b", 1)]):
        assert {org_id for org_id, _ in differences(moved, sums)} & {"org_a", "org_d"}
    # Somebody else earned it.
    assert [org_id for org_id, _ in differences(moved, [_sum("org_a", "org_c", 100)])] == ["org_b"]
    stray = {**moved, (MAY, Account("org_e", "bonus")): 1}
    assert [org_id for org_id, _ in differences(stray, [_sum("org_a", "org_b", 100)])] == ["org_e"]
