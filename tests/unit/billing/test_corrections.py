"""What corrections change: exact, and undone without a nano left."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.billing import ledger
from services.billing.corrections.amounts import cost_of, credit_back, difference, fee_of
from services.billing.ledger import CREDIT, FEE, PAYABLE, PLATFORM, WALLET, Account
from services.common import pricing
from services.common.pricing import PLAIN, Component, Price, Rated, Tier, TooDear
from tests.charging import charge

meters = st.sampled_from(["requests", "rows", "input_tokens", "output_tokens"])
counts = st.dictionaries(meters, st.integers(0, 10**9), max_size=4)
prices = st.dictionaries(meters, st.integers(0, 10**9), max_size=4).map(
    lambda d: Price(tuple(Component(meter, nanos) for meter, nanos in d.items()))
)
ratings = st.builds(Rated, counts, st.integers(0, 1_000_000), st.none() | st.integers(0, 1_000_000))


@given(prices, ratings, counts, counts)
def test_a_call_at_its_price_is_priced_again(
    price: Price, rated: Rated, before: dict[str, int], after: dict[str, int]
) -> None:
    recorded = pricing.cost(price, before, rated)
    assert cost_of(price, rated, before, recorded, after) == pricing.cost(price, after, rated)


def test_it_stays_where_it_was_in_the_month_and_keeps_its_discount() -> None:
    tiers = (Tier(1000, 2_000_000), Tier(0, 1_000_000))
    price = Price((Component("rows", tiers=tiers),))
    rated = Rated({"rows": 990}, 500_000)
    assert cost_of(price, rated, {"rows": 20}, 15, {"rows": 10}) == 10
    assert cost_of(price, rated, {"rows": 20}, 15, {"rows": 30}) == 20
    assert cost_of(Price(price.components, minimum=100), rated, {"rows": 20}, 50, {"rows": 0}) == 0


@given(prices, ratings, counts, st.integers(0, 10**15))
def test_what_is_recorded_costs_what_it_cost_and_nothing_costs_nothing(
    price: Price, rated: Rated, units: dict[str, int], cost: int
) -> None:
    explained = any(units.values()) or pricing.cost(price, units, rated) == cost
    assert cost_of(price, rated, units, cost, units) == (cost if explained else 0)
    assert cost_of(price, rated, units, cost, dict.fromkeys(units, 0)) == 0


def test_what_the_record_does_not_explain_keeps_its_share() -> None:
    price = Price((Component("rows", 1_000_000),))
    assert cost_of(price, PLAIN, {"rows": 100}, 10, {"rows": 50}) == 5
    assert cost_of(price, PLAIN, {"rows": 100}, 10, {"rows": 55}) == 6  # half to even
    assert cost_of(price, PLAIN, {"rows": 1}, 3, {"rows": 5}) == 15
    assert cost_of(price, PLAIN, {"rows": 0}, 7, {"rows": 5}) == 7, "nothing of the price explains it"
    seventh = (2**63 - 1) // 7
    assert cost_of(price, PLAIN, {"rows": 1}, seventh, {"rows": 7}) == 2**63 - 1
    with pytest.raises(TooDear, match=r"^a cost past int64 nanos$"):
        cost_of(price, PLAIN, {"rows": 1}, seventh + 1, {"rows": 7})
    with pytest.raises(TooDear):
        cost_of(Price((Component("rows", 10**15),)), PLAIN, {"rows": 0}, 0, {"rows": 10**15})


@given(
    st.integers(1, 2**60),
    st.integers(0, 1_000_000),
    st.lists(st.integers(0, 2**60), max_size=5),
    st.integers(0, 1_000_000),
)
def test_corrections_and_their_undoing_leave_nothing(cost: int, fee_ppm: int, later: list[int], today: int) -> None:
    first = charge("req_1", "org_a", "org_b", cost, fee_ppm)
    share = (dict(first.entries).get(Account(PLATFORM, FEE), 0), cost)
    postings, before, fee = [first], cost, share[0]
    for n, after in enumerate([*later, 0]):
        changed = fee_of(after, share, today)
        if (after, changed) != (before, fee):
            posting = ledger.correction(f"cor_{n}", "org_a", "org_b", after - before, changed - fee)
            assert ledger.corrects(posting.entries, "org_a", "org_b", after - before)
            assert not ledger.corrects(posting.entries, "org_a", "org_b", before - after) or before == after
            assert not ledger.corrects(
                [*posting.entries, (Account("org_c", PAYABLE), 1)], "org_a", "org_b", after - before
            )
            postings.append(posting)
        held = ledger.totals(e for p in postings for e in p.entries)
        assert held[Account("org_a", WALLET)] == -after
        assert held.get(Account("org_b", PAYABLE), 0) + held.get(Account(PLATFORM, FEE), 0) == after
        assert 0 <= held.get(Account(PLATFORM, FEE), 0) <= after
        before, fee = after, changed
    assert not any(ledger.totals(e for p in postings for e in p.entries).values())


@given(st.integers(1, 2**60), st.integers(0, 2**60), st.lists(st.integers(0, 2**60), max_size=6))
def test_credit_comes_back_as_if_the_call_had_cost_that_from_the_start(
    cost: int, credit: int, later: list[int]
) -> None:
    credit = min(credit, cost)
    postings, before, paid = [charge("req_1", "org_a", "org_b", cost, 0, credit)], cost, credit
    for n, after in enumerate([*later, 0]):
        back = credit_back(paid, after)
        if after != before:
            posting = ledger.correction(f"cor_{n}", "org_a", "org_b", after - before, 0, back)
            assert ledger.corrects(posting.entries, "org_a", "org_b", after - before)
            postings.append(posting)
        before, paid = after, paid - back
        held = ledger.totals(e for p in postings for e in p.entries)
        assert held.get(Account("org_a", CREDIT), 0) == -paid
        assert held.get(Account("org_a", WALLET), 0) == paid - after
        assert paid == min(credit, after, *later[: n + 1])
    assert not any(ledger.totals(e for p in postings for e in p.entries).values())


def test_no_more_becomes_credit_than_is_given_back() -> None:
    for cost, credit in ((-5, 6), (5, 1), (-5, -1)):
        with pytest.raises(ValueError, match="^no more becomes credit than is given back$"):
            ledger.correction("cor_1", "org_a", "org_b", cost, 0, credit)
    assert not ledger.corrects([(Account("org_a", WALLET), 2), (Account("org_a", CREDIT), -1)], "org_a", "org_b", -1)


def test_the_fee_of_what_never_cost_anything_is_todays() -> None:
    assert fee_of(1000, (0, 0), 200_000) == 200
    assert fee_of(1000, (1, 4), 200_000) == 250
    assert fee_of(1000, (0, 4), 200_000) == 0


@given(counts, counts)
def test_differences_add_up(before: dict[str, int], after: dict[str, int]) -> None:
    change = difference(before, after)
    assert 0 not in change.values()
    assert {m: before.get(m, 0) + change.get(m, 0) for m in {*before, *after}} == {
        m: after.get(m, 0) for m in {*before, *after}
    }


def test_what_is_the_same_is_no_difference() -> None:
    assert difference({"rows": 5, "requests": 1, "a": 2}, {"rows": 3, "requests": 1, "b": 4}) == {
        "a": -2, "b": 4, "rows": -2,
    }  # fmt: skip
