"""What a payout is: whole cents, and not a nano of it lost."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing.ledger import PAYABLE, PLATFORM, Account, Posting
from services.billing.payments.amounts import CENT
from services.billing.payments.postings import clearing
from services.billing.payouts import sums
from services.billing.payouts.saga import MONTHLY, WEEKLY, following
from services.billing.payouts.sums import PAYING, Sum

amounts = st.integers(0, 10**15)


@given(st.lists(st.tuples(amounts, st.integers(-(10**13), 0)), max_size=12))
def test_what_is_carried_makes_the_payouts_add_up(months: list[tuple[int, int]]) -> None:
    carried, paid = 0, 0
    for earned, refunded in months:
        one = Sum(earned, refunded, carried)
        assert one.amount >= 0
        assert one.amount % CENT == 0
        assert one.left < CENT
        assert one.amount + one.left == one.total
        paid, carried = paid + one.amount, one.left
    assert paid + carried == sum(e + r for e, r in months)


@given(amounts, st.integers(-(10**13), 0), amounts, amounts)
def test_what_disputes_hold_is_carried(earned: int, refunded: int, carried: int, held: int) -> None:
    one, free = Sum(earned, refunded, carried, held), Sum(earned, refunded, carried)
    assert one.amount + one.left == one.total == free.total
    assert 0 <= one.amount <= free.amount
    assert one.amount == 0 or one.left >= held
    assert one.amount % CENT == 0


@given(st.integers(1, 10**15))
def test_a_payout_that_is_paid_or_returned_leaves_nothing_on_its_way(amount: int) -> None:
    begun = dict(sums.begun("po_1", "org_p", amount).entries)
    for end in (sums.paid("po_1", amount, "sandbox"), sums.returned("po_1", "org_p", amount)):
        assert begun[PAYING] + dict(end.entries)[PAYING] == 0
    assert begun[Account("org_p", PAYABLE)] == -amount


def test_a_refund_is_the_charge_the_other_way() -> None:
    charge = {
        Account("org_c", "customer_wallet"): -10,
        Account("org_p", PAYABLE): 8,
        Account(PLATFORM, "platform_fee"): 2,
    }
    assert dict(sums.call_refund("rfd_1", charge).entries) == {account: -amount for account, amount in charge.items()}


@given(st.integers(0, 10**9), st.integers(0, 10**8))
def test_paydays_follow_each_other(anchor: int, later: int) -> None:
    start = datetime(2020, 1, 1, tzinfo=UTC) + timedelta(seconds=anchor)
    now = start + timedelta(seconds=later)
    for schedule, most in ((WEEKLY, 7), (MONTHLY, 31)):
        day = following(schedule, start, now)
        assert now < day <= now + timedelta(days=most)
        assert following(schedule, start, day) > day


def test_a_hold_is_as_long_as_postings_may_take() -> None:
    assert sums.hold_of(7) == timedelta(days=7)
    assert sums.hold_of(0) == sums.SETTLED


def test_a_sum_is_what_was_earned_less_what_was_given_back_and_what_is_carried() -> None:
    one = Sum(1005 * CENT + 7, -3 * CENT, 1)
    assert (one.total, one.amount, one.left) == (1002 * CENT + 8, 1002 * CENT, 8)
    owed = Sum(CENT, -3 * CENT, 5)
    assert (owed.total, owed.amount, owed.left) == (-2 * CENT + 5, 0, -2 * CENT + 5)


def test_each_posting_is_exact() -> None:
    payable, sandbox = Account("org_p", PAYABLE), clearing("sandbox")
    assert sums.begun("po_1", "org_p", 1) == Posting("po_1", "payout", ((payable, -1), (PAYING, 1)))
    assert sums.paid("po_1", 5, "sandbox") == Posting("po_1:paid", "payout_paid", ((PAYING, -5), (sandbox, 5)))
    assert sums.returned("po_1", "org_p", 5) == Posting(
        "po_1:returned", "payout_returned", ((PAYING, -5), (payable, 5))
    )
    assert sums.call_refund("rfd_1", {payable: 5, PAYING: -5}) == Posting(
        "rfd_1", "call_refund", ((payable, -5), (PAYING, 5))
    )
    for amount in (0, -1):
        with pytest.raises(ValueError, match=r"^a payout is positive$"):
            sums.begun("po_1", "org_p", amount)
