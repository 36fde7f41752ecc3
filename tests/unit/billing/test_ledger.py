"""Postings are exact and balanced, whatever the amounts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing import ledger
from services.billing.ledger import BREAKAGE, CREDIT, EXPENSE, FEE, PAYABLE, PLATFORM, WALLET, Account

costs = st.integers(1, 2**62)
fees = st.integers(0, 1_000_000)
entries = st.lists(st.tuples(st.text("abc_", min_size=1), st.integers(-(2**62), 2**62)), min_size=1, max_size=4)


@given(costs, fees)
def test_a_charge_loses_and_makes_no_nano(cost: int, fee_ppm: int) -> None:
    moved = dict(ledger.charge("req_1", "org_a", "org_b", cost, fee_ppm).entries)
    assert sum(moved.values()) == 0
    assert moved[Account("org_a", WALLET)] == -cost
    fee, earned = moved.get(Account(PLATFORM, FEE), 0), moved.get(Account("org_b", PAYABLE), 0)
    assert fee + earned == cost
    assert fee >= 0
    assert earned >= 0
    assert abs(fee * 1_000_000 - cost * fee_ppm) <= 500_000  # half a nano at most


@given(costs, fees, st.integers(0, 100))
def test_credit_pays_its_part_and_the_wallet_the_rest(cost: int, fee_ppm: int, percent: int) -> None:
    credit = cost * percent // 100
    entries = ledger.charge("req_1", "org_a", "org_b", cost, fee_ppm, credit).entries
    moved = dict(entries)
    assert moved.get(Account("org_a", CREDIT), 0) == -credit
    assert moved.get(Account("org_a", WALLET), 0) == credit - cost
    assert all(moved.values())
    assert ledger.charges(entries, "org_a", "org_b", cost)
    assert not ledger.charges(entries, "org_a", "org_b", cost + 1)


@pytest.mark.parametrize("credit", [-1, 11])
def test_credit_is_a_part_of_the_cost(credit: int) -> None:
    with pytest.raises(ValueError, match="no more than the cost"):
        ledger.charge("req_1", "org_a", "org_b", 10, 0, credit)
    parts = (
        (Account("org_a", CREDIT), -credit),
        (Account("org_a", WALLET), credit - 10),
        (Account("org_b", PAYABLE), 10),
    )
    assert not ledger.charges(parts, "org_a", "org_b", 10), "neither pays less than nothing"


def test_a_grant_and_what_expires_of_it_are_the_platforms() -> None:
    made = [ledger.credit_grant("crg_1", "org_a", 10), ledger.credit_expiry("expiry:exp_1", "org_a", 4)]
    assert ledger.totals(made) == {
        Account("org_a", CREDIT): 6, Account(PLATFORM, EXPENSE): -10, Account(PLATFORM, BREAKAGE): 4,
    }  # fmt: skip
    for amount in (0, -1):
        with pytest.raises(ValueError, match="positive"):
            ledger.credit_grant("crg_1", "org_a", amount)
        with pytest.raises(ValueError, match="nothing is left"):
            ledger.credit_expiry("expiry:exp_1", "org_a", amount)


@pytest.mark.parametrize(
    ("cost", "fee_ppm", "fee"),
    [(1000, 200_000, 200), (1, 500_000, 0), (3, 500_000, 2), (5, 500_000, 2), (7, 200_000, 1), (9, 0, 0)],
)
def test_fees_are_rounded_half_even(cost: int, fee_ppm: int, fee: int) -> None:
    moved = dict(ledger.charge("req_1", "org_a", "org_b", cost, fee_ppm).entries)
    assert moved.get(Account(PLATFORM, FEE), 0) == fee


def test_a_publisher_may_call_its_own_model() -> None:
    moved = dict(ledger.charge("req_1", "org_a", "org_a", 1000, 200_000).entries)
    assert moved == {Account("org_a", WALLET): -1000, Account("org_a", PAYABLE): 800, Account(PLATFORM, FEE): 200}


@pytest.mark.parametrize("cost", [0, -1])
def test_what_costs_nothing_is_not_posted(cost: int) -> None:
    with pytest.raises(ValueError, match="only a call that costs"):
        ledger.charge("req_1", "org_a", "org_b", cost, 0)
    with pytest.raises(ValueError, match="positive"):
        ledger.top_up("topup:1", "org_a", cost)


@pytest.mark.parametrize("amounts", [(), (1,), (5, -4)])
def test_a_posting_that_does_not_balance_cannot_be_made(amounts: tuple[int, ...]) -> None:
    parts = tuple((Account(f"org_{n}", WALLET), amount) for n, amount in enumerate(amounts))
    with pytest.raises(ValueError, match="sum to zero"):
        ledger.Posting("req_1", "charge", parts)


def test_a_posting_names_an_account_once() -> None:
    account = Account("org_a", WALLET)
    with pytest.raises(ValueError, match="twice"):
        ledger.Posting("req_1", "charge", ((account, 1), (account, -1)))


@given(entries, st.randoms())
def test_a_digest_does_not_depend_on_order(some: list[tuple[str, int]], random: object) -> None:
    shuffled = list(some)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert ledger.digest("req_1", "charge", some) == ledger.digest("req_1", "charge", shuffled)


@given(entries, st.integers(0, 3), st.integers(1, 100))
def test_any_change_shows_in_the_digest(some: list[tuple[str, int]], at: int, by: int) -> None:
    original = ledger.digest("req_1", "charge", some)
    at %= len(some)
    edited = [*some[:at], (some[at][0], some[at][1] + by), *some[at + 1 :]]
    assert ledger.digest("req_1", "charge", edited) != original
    assert ledger.digest("req_1", "charge", [*some, ("acc_x", 0)]) != original
    assert ledger.digest("req_2", "charge", some) != original
    assert ledger.digest("req_1", "top_up", some) != original


@given(costs, fees, st.integers(1, 100))
def test_a_charge_is_known_at_any_fee_and_no_other_is_taken_for_it(cost: int, fee_ppm: int, by: int) -> None:
    entries = ledger.charge("req_1", "org_a", "org_b", cost, fee_ppm).entries
    assert ledger.charges(entries, "org_a", "org_b", cost)
    assert not ledger.charges(entries, "org_a", "org_b", cost + by)
    assert not ledger.charges(entries, "org_c", "org_b", cost)
    if any(account == Account("org_b", PAYABLE) for account, _ in entries):
        assert not ledger.charges(entries, "org_a", "org_c", cost)
    extra = ((Account("org_c", PAYABLE), by), (Account("org_c", WALLET), -by))
    assert not ledger.charges([*entries, *extra], "org_a", "org_b", cost)
    more = ((Account("org_b", PAYABLE), cost + by), (Account(PLATFORM, FEE), -by), (Account("org_a", WALLET), -cost))
    assert not ledger.charges(more, "org_a", "org_b", cost), "no fee is negative"


def test_a_publishers_own_call_is_a_charge_too() -> None:
    assert ledger.charges(ledger.charge("req_1", "org_a", "org_a", 5, 200_000).entries, "org_a", "org_a", 5)


def test_totals_add_up_by_account() -> None:
    made = [ledger.charge(f"req_{n}", "org_a", f"org_{n % 2}", 1000, 200_000) for n in range(4)]
    assert ledger.totals(made) == {
        Account("org_a", WALLET): -4000, Account("org_0", PAYABLE): 1600, Account("org_1", PAYABLE): 1600,
        Account(PLATFORM, FEE): 800,
    }  # fmt: skip
