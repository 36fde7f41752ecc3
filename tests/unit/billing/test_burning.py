"""Which grants a call spends: an order, never more than there is, nothing that has expired."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from services.billing.credits.burning import Grant, burn, give_back, in_order

T0 = datetime(2026, 1, 1, tzinfo=UTC)
moments = st.integers(0, 20).map(lambda n: T0 + timedelta(seconds=n))
grants = st.lists(
    st.builds(
        Grant, grant_id=st.uuids().map(str), remaining=st.integers(0, 100), priority=st.integers(0, 2),
        expires_at=st.none() | moments, created_at=moments,
    ),
    max_size=6,
)  # fmt: skip


@given(grants, st.integers(1, 400), moments)
def test_it_spends_the_cost_or_all_that_has_not_expired(some: list[Grant], cost: int, moment: datetime) -> None:
    before = {g.grant_id: g.remaining for g in some}
    alive = {g.grant_id for g in some if g.expires_at is None or g.expires_at > moment}
    spent = dict(burn(in_order(some), cost, moment))
    assert sum(spent.values()) == min(cost, sum(before[g] for g in alive))
    assert spent.keys() <= alive
    assert all(0 < n <= before[g] for g, n in spent.items())
    assert {g.grant_id: g.remaining + spent.get(g.grant_id, 0) for g in some} == before


@given(grants, st.integers(1, 400), moments)
def test_nothing_is_spent_before_what_comes_first(some: list[Grant], cost: int, moment: datetime) -> None:
    order = in_order(some)
    spent = dict(burn(order, cost, moment))
    alive = [g for g in order if g.expires_at is None or g.expires_at > moment]
    for earlier, later in combinations(alive, 2):
        assert not earlier.remaining or later.grant_id not in spent


@given(grants)
def test_the_order_is_priority_expiry_age(some: list[Grant]) -> None:
    never = T0 + timedelta(days=1)
    keys = [(g.priority, g.expires_at or never, g.created_at) for g in in_order(some)]
    assert keys == sorted(keys)


def test_a_grant_is_spent_until_the_moment_it_expires() -> None:
    def grant(name: str, remaining: int, expires: int | None) -> Grant:
        return Grant(name, remaining, 0, None if expires is None else T0 + timedelta(seconds=expires), T0)

    expired, spent, ends, endless = grant("a", 5, 10), grant("b", 0, 20), grant("c", 5, 11), grant("d", 5, None)
    order = in_order([endless, ends, spent, expired])
    assert [g.grant_id for g in order] == ["a", "c", "b", "d"]
    assert burn(order, 7, T0 + timedelta(seconds=10)) == [("c", 5), ("d", 2)]
    assert [g.remaining for g in order] == [5, 0, 0, 3]
    assert burn(order, 3, T0 + timedelta(seconds=10)) == [("d", 3)]
    assert burn(order, 0, T0) == []


@given(grants, st.integers(1, 400), st.lists(st.integers(0, 200), max_size=4), moments)
def test_what_comes_back_leaves_what_a_cheaper_call_would_have_spent(
    some: list[Grant], cost: int, steps: list[int], moment: datetime
) -> None:
    order = in_order(some)
    untouched = [replace(g) for g in order]
    spent = burn(order, cost, moment)
    of = {g.grant_id: g for g in order}
    burnt = [replace(of[grant], remaining=n) for grant, n in spent]
    paid = sum(n for _, n in spent)
    for step in steps:
        back = give_back(burnt, min(step, paid))
        assert sum(n for _, n in back) == min(step, paid)
        paid -= min(step, paid)
        for grant, n in back:
            part = next(g for g in burnt if g.grant_id == grant)
            part.remaining -= n
            assert part.remaining >= 0
        expected = dict(burn([replace(g) for g in untouched], paid, moment)) if paid else {}
        assert {g.grant_id: g.remaining for g in burnt if g.remaining} == expected


def test_no_more_comes_back_than_was_spent() -> None:
    assert give_back([Grant("crg_1", 5, 0, None, T0)], 9) == [("crg_1", 5)]
    assert give_back([], 9) == []
