"""Postings are exact and balanced, whatever the amounts."""

import hashlib

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from services.billing import ledger
from services.billing.ledger import (
    BREAKAGE,
    CLEARING,
    CREDIT,
    EXPENSE,
    FEE,
    PAYABLE,
    PLATFORM,
    WALLET,
    Account,
    Posting,
)
from tests.charging import charge

costs = st.integers(1, 2**62)
fees = st.integers(0, 1_000_000)
entries = st.lists(st.tuples(st.text("abc_", min_size=1), st.integers(-(2**62), 2**62)), min_size=1, max_size=4)


@given(costs, fees)
def test_a_charge_loses_and_makes_no_nano(cost: int, fee_ppm: int) -> None:
    moved = dict(charge("req_1", "org_a", "org_b", cost, fee_ppm).entries)
    assert sum(moved.values()) == 0
    assert moved[Account("org_a", WALLET)] == -cost
    fee, earned = moved.get(Account(PLATFORM, FEE), 0), moved.get(Account("org_b", PAYABLE), 0)
    assert fee + earned == cost
    assert fee >= 0
    assert earned >= 0
    assert abs(fee * 1_000_000 - cost * fee_ppm) <= 500_000  # half a nano at most


@given(costs, fees, st.integers(0, 100))
@example(1000, 0, 0)
@example(1000, 200_000, 100)
@example(1000, 1_000_000, 30)
def test_credit_pays_its_part_and_the_wallet_the_rest(cost: int, fee_ppm: int, percent: int) -> None:
    credit = cost * percent // 100
    entries = charge("req_1", "org_a", "org_b", cost, fee_ppm, credit).entries
    moved = dict(entries)
    assert moved.get(Account("org_a", CREDIT), 0) == -credit
    assert moved.get(Account("org_a", WALLET), 0) == credit - cost
    assert all(moved.values())
    assert ledger.charges(entries, "org_a", "org_b", cost)
    assert not ledger.charges(entries, "org_a", "org_b", cost + 1)


@pytest.mark.parametrize("credit", [-1, 11])
def test_credit_is_a_part_of_the_cost(credit: int) -> None:
    with pytest.raises(ValueError, match=r"^credit pays no more than the cost$"):
        charge("req_1", "org_a", "org_b", 10, 0, credit)
    parts = (
        (Account("org_a", CREDIT), -credit),
        (Account("org_a", WALLET), credit - 10),
        (Account("org_b", PAYABLE), 10),
    )
    assert not ledger.charges(parts, "org_a", "org_b", 10), "neither pays less than nothing"


def test_a_call_is_one_posting() -> None:
    wallet, earned, fee = Account("org_a", WALLET), Account("org_b", PAYABLE), Account(PLATFORM, FEE)
    credit = Account("org_a", CREDIT)
    for cost, fee_ppm, paid, entries in (
        (10, 200_000, 0, ((wallet, -10), (earned, 8), (fee, 2))),
        (10, 200_000, 3, ((wallet, -7), (credit, -3), (earned, 8), (fee, 2))),
        (10, 200_000, 10, ((credit, -10), (earned, 8), (fee, 2))),
        (10, 1_000_000, 0, ((wallet, -10), (fee, 10))),
        (2, 500_000, 1, ((wallet, -1), (credit, -1), (earned, 1), (fee, 1))),
        (1, 0, 0, ((wallet, -1), (earned, 1))),
    ):
        assert charge("req_1", "org_a", "org_b", cost, fee_ppm, paid) == Posting("req_1", "charge", entries)
        assert ledger.charges(entries, "org_a", "org_b", cost)


@pytest.mark.parametrize(
    ("paid", "credit", "earned", "fee"),
    [
        (-9, 0, 10, 0), (-10, 0, 9, 0), (-10, 0, 8, 1), (-11, 0, 10, 0),  # not what it cost
        (1, -11, 10, 0), (-11, 1, 10, 0),  # paid less than nothing
        (-10, 0, -1, 11), (-10, 0, 11, -1),  # earned less than nothing
    ],
)  # fmt: skip
def test_what_is_no_charge(paid: int, credit: int, earned: int, fee: int) -> None:
    parts = (
        (Account("org_a", WALLET), paid), (Account("org_a", CREDIT), credit), (Account("org_b", PAYABLE), earned),
        (Account(PLATFORM, FEE), fee),
    )  # fmt: skip
    assert not ledger.charges(parts, "org_a", "org_b", 10)


def test_entries_of_one_account_are_taken_together() -> None:
    parts = ((Account("org_a", WALLET), -4), (Account("org_b", PAYABLE), 10), (Account("org_a", WALLET), -6))
    assert ledger.charges(parts, "org_a", "org_b", 10)


def test_a_correction_is_one_posting() -> None:
    wallet, earned, fee = Account("org_a", WALLET), Account("org_b", PAYABLE), Account(PLATFORM, FEE)
    for cost, part, entries in (
        (10, 2, ((wallet, -10), (earned, 8), (fee, 2))),
        (-1, 0, ((wallet, 1), (earned, -1))),
        (3, 3, ((wallet, -3), (fee, 3))),
        (0, 1, ((earned, -1), (fee, 1))),
    ):
        assert ledger.correction("cor_1", "org_a", "org_b", cost, part) == Posting("cor_1", "correction", entries)
        assert ledger.corrects(entries, "org_a", "org_b", cost)
    credit = Account("org_a", CREDIT)
    for parts in (
        ((wallet, -9), (earned, 8), (fee, 2)), ((wallet, -10), (earned, 7), (fee, 2)),
        ((wallet, -11), (credit, 1), (earned, 8), (fee, 2)),
        ((wallet, -10), (earned, 8), (fee, 2), (Account("org_c", PAYABLE), 0)), (),
    ):  # fmt: skip
        assert not ledger.corrects(parts, "org_a", "org_b", 10)


def test_money_comes_in_and_credit_is_given_and_expires() -> None:
    wallet, clearing = Account("org_a", WALLET), Account(PLATFORM, CLEARING)
    credit, expense, breakage = Account("org_a", CREDIT), Account(PLATFORM, EXPENSE), Account(PLATFORM, BREAKAGE)
    for make, kind, entries, refusal in (
        (ledger.top_up, "top_up", ((wallet, 1), (clearing, -1)), "a top-up is positive"),
        (ledger.credit_grant, "credit_grant", ((credit, 1), (expense, -1)), "a grant is positive"),
        (ledger.credit_expiry, "credit_expiry", ((credit, -1), (breakage, 1)), "nothing is left to expire"),
    ):
        assert make("cause", "org_a", 1) == Posting("cause", kind, entries)
        for amount in (0, -1):
            with pytest.raises(ValueError, match=f"^{refusal}$"):
                make("cause", "org_a", amount)
    made = [ledger.credit_grant("crg_1", "org_a", 10), ledger.credit_expiry("expiry:exp_1", "org_a", 4)]
    assert ledger.totals(e for p in made for e in p.entries) == {credit: 6, expense: -10, breakage: 4}


@pytest.mark.parametrize(
    ("cost", "fee_ppm", "fee"),
    [(1000, 200_000, 200), (1, 500_000, 0), (3, 500_000, 2), (5, 500_000, 2), (7, 200_000, 1), (9, 0, 0)],
)
def test_fees_are_rounded_half_even(cost: int, fee_ppm: int, fee: int) -> None:
    moved = dict(charge("req_1", "org_a", "org_b", cost, fee_ppm).entries)
    assert moved.get(Account(PLATFORM, FEE), 0) == fee


def test_a_publisher_may_call_its_own_model() -> None:
    moved = dict(charge("req_1", "org_a", "org_a", 1000, 200_000).entries)
    assert moved == {Account("org_a", WALLET): -1000, Account("org_a", PAYABLE): 800, Account(PLATFORM, FEE): 200}


@pytest.mark.parametrize("cost", [0, -1])
def test_what_costs_nothing_is_not_posted(cost: int) -> None:
    with pytest.raises(ValueError, match=r"^only a call that costs something is posted$"):
        charge("req_1", "org_a", "org_b", cost, 0)


def test_a_digest_is_of_cause_kind_and_entries_by_account() -> None:
    """The books keep digests for ever: they must never be computed otherwise."""
    entries = [("acc_b", -7), ("acc_a", 10), ("acc_b", -3)]
    made = hashlib.sha256(b"req_1\ncharge\nacc_a 10\nacc_b -3\nacc_b -7").digest()
    assert ledger.digest("req_1", "charge", entries) == made
    kept = hashlib.sha256(b"req_1\ncharge\nacc_b -7\nacc_a 10\nacc_b -3").digest()
    assert ledger.digest_in_order("req_1", "charge", entries) == kept


@pytest.mark.parametrize("amounts", [(), (1,), (5, -4)])
def test_a_posting_that_does_not_balance_cannot_be_made(amounts: tuple[int, ...]) -> None:
    parts = tuple((Account(f"org_{n}", WALLET), amount) for n, amount in enumerate(amounts))
    with pytest.raises(ValueError, match=r"^the posting of req_1 does not sum to zero$"):
        ledger.Posting("req_1", "charge", parts)


def test_a_posting_names_an_account_once() -> None:
    account = Account("org_a", WALLET)
    with pytest.raises(ValueError, match=r"^the posting of req_1 names an account twice$"):
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
    entries = charge("req_1", "org_a", "org_b", cost, fee_ppm).entries
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
    assert ledger.charges(charge("req_1", "org_a", "org_a", 5, 200_000).entries, "org_a", "org_a", 5)


def test_totals_add_up_by_account() -> None:
    made = [charge(f"req_{n}", "org_a", f"org_{n % 2}", 1000, 200_000) for n in range(4)]
    assert ledger.totals(e for p in made for e in p.entries) == {
        Account("org_a", WALLET): -4000, Account("org_0", PAYABLE): 1600, Account("org_1", PAYABLE): 1600,
        Account(PLATFORM, FEE): 800,
    }  # fmt: skip


def test_what_is_given_up_is_breakage() -> None:
    posting = ledger.forfeit("fft_1", "org_1", {ledger.WALLET: 5, ledger.PAYABLE: 0})
    entries = ((Account("org_1", ledger.WALLET), -5), (Account("", ledger.BREAKAGE), 5))
    assert posting == Posting("fft_1", "forfeit", entries)
    both = ledger.forfeit("fft_2", "org_1", {ledger.WALLET: 5, ledger.PAYABLE: 7})
    assert dict(both.entries)[Account("", ledger.BREAKAGE)] == 12


@pytest.mark.parametrize("amounts", [{}, {ledger.WALLET: 0}, {ledger.WALLET: -1}])
def test_nothing_is_not_given_up(amounts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="^nothing is left to give up$"):
        ledger.forfeit("fft_1", "org_1", amounts)
