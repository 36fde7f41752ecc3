"""What postings of a month moved, against what usage says its calls cost together."""

from datetime import UTC, datetime

from mercat.usage.v1 import usage_pb2

from services.billing import ledger
from services.billing.dropped import Moved, add, differences
from services.billing.ledger import CREDIT, PAYABLE, PLATFORM, WALLET, Account
from services.common import ids
from tests.charging import charge

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
    return charge(ids.new("req", int(MAY.timestamp() * 1000) + 5), org_id, publisher, cost, 200_000, credit)


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


def test_a_posting_counts_in_the_month_of_its_call() -> None:
    moved: Moved = {}
    account = Account("org_a", WALLET)
    late = datetime(2026, 5, 31, 23, 59, 59, 999_000, tzinfo=UTC)
    for moment, amount in ((MAY, 1), (datetime(2026, 5, 17, 13, 14, 15, 678_000, tzinfo=UTC), 10), (late, 100)):
        add(moved, ids.new("req", int(moment.timestamp() * 1000)), [(account, amount), (account, -1)])
    add(moved, ids.new("req", int(datetime(2026, 6, 1, tzinfo=UTC).timestamp() * 1000)), [(account, 7)])
    assert moved == {(MAY, account): 108, (datetime(2026, 6, 1, tzinfo=UTC), account): 7}


def test_each_difference_is_told() -> None:
    fees = Account(PLATFORM, ledger.FEE)
    moved = {
        (MAY, Account("org_a", WALLET)): -70, (MAY, Account("org_a", CREDIT)): -30,  # as usage says
        (MAY, Account("org_b", WALLET)): -1,  # of which usage knows nothing
        (MAY, Account("org_c", PAYABLE)): 60, (MAY, Account("org_d", PAYABLE)): 81,
        (MAY, Account("org_e", PAYABLE)): -1,
        (MAY, Account("org_g", PAYABLE)): 0, (MAY, Account("org_i", PAYABLE)): 1,
        (MAY, fees): 5, (MAY, Account("org_f", ledger.FEE)): 5, (MAY, Account(PLATFORM, "disputes")): 5,
    }  # fmt: skip
    sums = [_sum("org_a", "org_c", 60), _sum("org_a", "org_d", 40), _sum("org_h", "org_d", 40)]
    may = "nanos of calls of 2026-05, more than they cost"
    assert differences(moved, sums) == [
        ("org_b", "its calls of 2026-05 cost 0 nanos by usage, 1 by the ledger"),
        ("org_h", "its calls of 2026-05 cost 40 nanos by usage, 0 by the ledger"),
        ("", "calls of 2026-05 moved money of its disputes"),
        ("org_d", f"it earned 81 {may}"),
        ("org_e", f"it earned -1 {may}"),
        ("org_f", "calls of 2026-05 moved money of its platform_fee"),
        ("org_i", f"it earned 1 {may}"),
    ]


def test_months_are_apart() -> None:
    june = datetime(2026, 6, 1, tzinfo=UTC)
    of_june = _sum("org_a", "org_b", 30)
    of_june.month.FromDatetime(june)
    moved = {
        (june, Account("org_a", WALLET)): -30, (june, Account("org_b", PAYABLE)): 20,
        (MAY, Account("org_a", WALLET)): -50, (MAY, Account("org_b", PAYABLE)): 50,
    }  # fmt: skip
    assert differences(moved, [of_june, _sum("org_a", "org_b", 20), _sum("org_a", "org_b", 30)]) == []
    assert differences({**moved, (june, Account("org_b", PAYABLE)): 31}, [of_june, _sum("org_a", "org_b", 50)]) == [
        ("org_b", "it earned 31 nanos of calls of 2026-06, more than they cost")
    ]
