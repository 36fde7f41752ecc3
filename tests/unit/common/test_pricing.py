"""What calls cost: together as much as their sum, never less for more, and the same whenever it is asked."""

from dataclasses import replace
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from mercat.billing.v1 import billing_pb2

from services.common import money, pricing
from services.common.errors import InvalidFields
from services.common.pricing import MILLION, Component, Price, Rated, Tier

WHOLE = 5 * MILLION  # nanos per million: 5 nanos a unit, so that nothing is rounded


def whole(most: int) -> st.SearchStrategy[int]:
    """Nanos per million that are whole nanos a unit."""
    return st.integers(0, most).map(lambda nanos: nanos * MILLION)


@st.composite
def tiers(draw: st.DrawFn, rates: st.SearchStrategy[int]) -> tuple[Tier, ...]:
    ends = sorted(draw(st.sets(st.integers(1, 300), max_size=4)))
    return tuple(Tier(end, draw(rates), draw(st.integers(0, 50))) for end in (*ends, 0))


@st.composite
def components(draw: st.DrawFn, rates: st.SearchStrategy[int] | None = None) -> Component:
    rates = rates if rates is not None else whole(100)
    free = draw(st.integers(0, 100))
    match draw(st.sampled_from(["flat", "graduated", "volume", "package"])):
        case "flat":
            return Component("rows", nanos_per_million=draw(rates), free_units=free)
        case "package":
            return Component(
                "rows", package_units=draw(st.integers(1, 60)), package_nanos=draw(st.integers(0, 500)), free_units=free
            )
        case kind:
            return Component("rows", tiers=draw(tiers(rates)), volume=kind == "volume", free_units=free)


def charge(component: Component, units: int, position: int = 0, **other: int) -> int:
    return pricing.cost(
        Price((component,), other.pop("minimum", 0)), {"rows": units}, Rated({"rows": position}, **other)
    )


@given(components(), st.lists(st.integers(0, 150), max_size=12))
def test_calls_together_cost_what_their_sum_costs(component: Component, calls: list[int]) -> None:
    position = total = 0
    for units in calls:
        total += charge(component, units, position)
        position += units
    assert total == charge(component, sum(calls))


@given(
    components(st.integers(0, 10**9)), st.integers(0, 400), st.integers(0, 400), st.integers(0, 400),
    st.integers(0, MILLION), st.integers(0, 200),
)  # fmt: skip
def test_more_never_costs_less_and_nothing_is_ever_given_back(
    component: Component, position: int, some: int, more: int, discount: int, minimum: int
) -> None:
    less = charge(component, some, position, discount_ppm=discount, minimum=minimum)
    assert 0 <= less <= charge(component, some + more, position, discount_ppm=discount, minimum=minimum)


@given(st.lists(st.tuples(st.sampled_from(["requests", "rows"]), st.integers(0, 10**12)), unique_by=lambda x: x[0]))
def test_a_flat_price_costs_what_money_says(parts: list[tuple[str, int]]) -> None:
    price = Price(tuple(Component(meter, nanos) for meter, nanos in parts))
    units = {"requests": 1, "rows": 12345}
    assert price.flat == tuple(parts)
    assert pricing.cost(price, units) == money.cost(parts, units)


@given(st.integers(0, 10**9), st.integers(1, 10**6), st.integers(0, MILLION), st.integers(0, MILLION))
def test_everything_is_rounded_once_at_the_end(rate: int, units: int, discount: int, share: int) -> None:
    exact = Fraction(rate * units, MILLION) * Fraction(MILLION - discount, MILLION) * Fraction(share, MILLION)
    rated = Rated(discount_ppm=discount, share_ppm=share)
    assert pricing.cost(Price((Component("rows", rate),)), {"rows": units}, rated) == round(exact)


@given(components(), st.integers(0, 400), st.integers(0, 400), st.integers(0, 100), st.integers(0, MILLION))
def test_the_lines_make_the_cost_and_count_every_unit(
    component: Component, position: int, units: int, minimum: int, discount: int
) -> None:
    rated = Rated({"rows": position}, discount)
    cost, lines = pricing.bill(Price((component,), minimum), {"rows": units}, rated)
    assert (
        abs(sum(line.millionths for line in lines) - cost * MILLION) <= MILLION
    )  # the cost and a discount are rounded
    if not component.package_units:
        counted = (pricing.UNITS, pricing.FREE, pricing.TIER)
        assert sum(line.units for line in lines if line.kind in counted) == units


def test_graduated_tiers_as_stripe_has_them() -> None:
    """Its example: 5 up to 100, 4 up to 200, 3 beyond, with flat amounts."""
    c = Component("rows", tiers=(Tier(100, 5 * MILLION), Tier(200, 4 * MILLION, 7), Tier(0, 3 * MILLION, 9)))
    assert [charge(c, n) for n in (0, 1, 100, 101, 200, 201)] == [0, 5, 500, 511, 907, 919]
    _, lines = pricing.bill(Price((c,)), {"rows": 150}, Rated({"rows": 90}))
    assert [(x.kind, x.tier, x.units, x.nanos) for x in lines] == [
        (pricing.TIER, 1, 10, 50), (pricing.TIER, 2, 100, 400), (pricing.TIER_FLAT, 2, 1, 7),
        (pricing.TIER, 3, 40, 120), (pricing.TIER_FLAT, 3, 1, 9),
    ]  # fmt: skip


def test_volume_tiers_price_the_whole_month_and_give_nothing_back() -> None:
    c = Component("rows", tiers=(Tier(100, 10 * MILLION), Tier(0, 5 * MILLION)), volume=True)
    assert [charge(c, n) for n in (1, 100, 101, 200, 201, 400)] == [10, 1000, 1000, 1000, 1005, 2000]
    dearer = Component("rows", tiers=(Tier(10, MILLION, 3), Tier(0, 2 * MILLION)), volume=True)
    assert [charge(dearer, n) for n in (0, 1, 10, 11)] == [0, 4, 13, 22]


def test_packages_are_paid_when_they_are_begun() -> None:
    c = Component("rows", package_units=10, package_nanos=70)
    assert [charge(c, 4, at) for at in (0, 4, 8, 12, 16, 20)] == [70, 0, 70, 0, 0, 70]
    assert charge(c, 25) == 210


def test_free_units_come_first_and_tiers_count_after_them() -> None:
    c = Component("rows", WHOLE, free_units=10)
    assert [charge(c, 4, at) for at in (0, 6, 8, 10)] == [0, 0, 10, 20]
    tiered = Component("rows", tiers=(Tier(5, 2 * MILLION), Tier(0, MILLION)), free_units=10)
    assert charge(tiered, 20) == 15


def test_what_can_be_tried_without_money() -> None:
    free, dear = Component("rows", WHOLE, free_units=10), Component("requests", WHOLE)
    assert [free.left(at) for at in (0, 3, 10, 11)] == [10, 7, 0, 0]
    for charging in (
        dear, Component("rows", tiers=(Tier(5, 0), Tier(0, MILLION))), Component("rows", tiers=(Tier(0, 0, 7),)),
        Component("rows", package_units=10, package_nanos=70),
    ):  # fmt: skip
        assert charging.charges
        assert not Price((free, charging)).free_to_try
        allowed = replace(charging, free_units=2)
        assert Price((free, allowed)).free_to_try
        assert Price((free, allowed, dear)).allowances == (free, allowed)
    for nothing in (Component("rows", free_units=3), Component("rows", tiers=(Tier(0, 0),)),
                    Component("rows", package_units=10)):  # fmt: skip
        assert not nothing.charges
        assert Price((nothing,)).free_to_try
        assert Price((nothing,)).allowances == ()
    assert Price().free_to_try


def test_a_minimum_is_of_calls_that_cost_anything() -> None:
    c = Component("rows", 1, free_units=1)  # a millionth of a nano
    assert [charge(c, n, minimum=50) for n in (0, 1, 2)] == [0, 0, 50]
    assert charge(Component("rows", WHOLE), 20, minimum=50) == 100
    assert charge(Component("rows", WHOLE), 1, minimum=50, discount_ppm=500_000) == 25


def test_what_a_share_of_nothing_costs() -> None:
    assert charge(Component("rows", WHOLE), 10, share_ppm=0) == 0


def test_a_cost_past_int64_is_refused() -> None:
    with pytest.raises(pricing.TooDear):
        charge(Component("rows", 10**15), 10**15)


def test_a_price_reads_and_says_which_meters_count() -> None:
    made = billing_pb2.Price(minimum_nanos=3)
    made.components.add(meter="requests", nanos_per_million=7)
    tiered = made.components.add(meter="rows", tier_mode=billing_pb2.TIER_MODE_VOLUME, free_units=2)
    tiered.tiers.add(up_to=5, nanos_per_million=1, flat_nanos=4)
    tiered.tiers.add(nanos_per_million=3)
    made.components.add(meter="input_bytes", package_units=3, package_nanos=10)
    price = pricing.read(made)
    assert price.minimum == 3
    assert price.components[1] == Component("rows", tiers=(Tier(5, 1, 4), Tier(0, 3)), volume=True, free_units=2)
    assert price.counted == ("rows", "input_bytes")
    assert price.flat is None
    assert Price((Component("rows", 1),), 1).flat is None
    assert pricing.at_first(price) == 7 + 1 + 3_333_334
    assert pricing.at_first(Price()) == 0


@given(st.dictionaries(st.sampled_from(["rows", "requests"]), st.integers(0, 2**62)), st.integers(0, MILLION))
def test_a_rating_is_kept_as_it_is(positions: dict[str, int], discount: int) -> None:
    for share in (None, 0, 5):
        rated = Rated(positions, discount, share)
        assert pricing.rated_of(rated.message()) == rated


def component_of(*ends: int, mode: int = billing_pb2.TIER_MODE_GRADUATED, **fields: int) -> billing_pb2.PriceComponent:
    made = billing_pb2.PriceComponent(meter="rows", tier_mode=mode, **fields)
    for end in ends:
        made.tiers.add(up_to=end, nanos_per_million=1)
    return made


@pytest.mark.parametrize(
    ("components", "fields"),
    [
        ([component_of(10, 20, 0)], []),
        ([component_of(mode=0, nanos_per_million=1, free_units=5)], []),
        ([component_of(mode=0, package_units=5, package_nanos=1)], []),
        ([component_of(0), component_of(0)], ["components"]),
        ([component_of(10, 0, nanos_per_million=1)], ["components[0]"]),
        ([component_of(mode=0, nanos_per_million=1, package_units=1)], ["components[0]"]),
        ([component_of(mode=0, package_nanos=1)], ["components[0].package_units"]),
        ([component_of(10, 0, mode=0)], ["components[0].tier_mode"]),
        ([component_of()], ["components[0].tiers"]),
        ([component_of(10)], ["components[0].tiers[0].up_to"]),
        ([component_of(0, 0)], ["components[0].tiers[0].up_to"]),
        ([component_of(10, 10, 0)], ["components[0].tiers[1].up_to"]),
        ([component_of(10, 5, 7)], ["components[0].tiers[1].up_to", "components[0].tiers[2].up_to"]),
        ([component_of(5, 7, 10)], ["components[0].tiers[2].up_to"]),
    ],
)
def test_what_is_wrong_is_named(components: list[billing_pb2.PriceComponent], fields: list[str]) -> None:
    assert [field for field, _ in pricing.mistakes(components)] == fields


def test_what_is_wrong_is_said() -> None:
    only_one = "give nanos_per_million, tiers or a package, only one of them"
    for component, mistake in (
        (component_of(mode=0, nanos_per_million=1, package_units=1), ("components[1]", only_one)),
        (component_of(0, nanos_per_million=1), ("components[1]", only_one)),
        (component_of(0, package_units=1), ("components[1]", only_one)),
        (component_of(mode=0, package_nanos=1), ("components[1].package_units", "is required with package_nanos")),
        (
            component_of(0, mode=0),
            (
                "components[1].tier_mode",
                "is required with tiers: TIER_MODE_GRADUATED or TIER_MODE_VOLUME",
            ),
        ),
        (component_of(), ("components[1].tiers", "is required with tier_mode")),
        (component_of(1, 9), ("components[1].tiers[1].up_to", "must be 0: the last tier has no end")),
        (component_of(1), ("components[1].tiers[0].up_to", "must be 0: the last tier has no end")),
        (component_of(0, 0), ("components[1].tiers[0].up_to", "is required: only the last tier has no end")),
        (component_of(8, 8, 0), ("components[1].tiers[1].up_to", "must be more than the 8 of the tier before")),
    ):
        other = billing_pb2.PriceComponent(meter="requests", nanos_per_million=1)
        assert pricing.mistakes([other, component]) == [mistake]
    twice = [component_of(0), component_of(0), component_of(0)]
    assert pricing.mistakes(twice) == [("components", "each meter at most once")] * 2


def lines_of(price: Price, units: dict[str, int], rated: Rated = pricing.PLAIN) -> list[tuple[int, str, int, int, int]]:
    return [tuple(line) for line in pricing.bill(price, units, rated)[1]]


def test_each_kind_of_line_is_exact() -> None:
    flat = Component("rows", 3, free_units=2)
    assert lines_of(Price((flat,)), {"rows": 5}) == [(pricing.FREE, "rows", 0, 2, 0), (pricing.UNITS, "rows", 0, 3, 9)]
    assert lines_of(Price((flat,)), {"rows": 5}, Rated({"rows": 2})) == [(pricing.UNITS, "rows", 0, 5, 15)]
    assert lines_of(Price((flat,)), {"rows": 2}) == [(pricing.FREE, "rows", 0, 2, 0)]
    assert lines_of(Price((flat,)), {"rows": 1}) == [(pricing.FREE, "rows", 0, 1, 0)]
    assert lines_of(Price((flat,)), {"rows": 2}, Rated({"rows": 1})) == [
        (pricing.FREE, "rows", 0, 1, 0), (pricing.UNITS, "rows", 0, 1, 3),
    ]  # fmt: skip
    assert lines_of(Price((flat,)), {"rows": 0}) == lines_of(Price((flat,)), {"requests": 1}) == []
    package = Component("rows", package_units=10, package_nanos=7)
    assert lines_of(Price((package,)), {"rows": 11}) == [(pricing.PACKAGE, "rows", 0, 2, 14 * MILLION)]
    assert lines_of(Price((package,)), {"rows": 2}, Rated({"rows": 8})) == [(pricing.PACKAGE, "rows", 0, 0, 0)]
    volume = Component("rows", tiers=(Tier(10, 4), Tier(0, 3, 1)), volume=True)
    assert lines_of(Price((volume,)), {"rows": 10}) == [(pricing.TIER, "rows", 1, 10, 40)]
    assert lines_of(Price((volume,)), {"rows": 1}, Rated({"rows": 10})) == [
        (pricing.TIER, "rows", 2, 1, 33 + MILLION - 40)
    ]
    two = Price((flat, Component("requests", 4)))
    assert lines_of(two, {"requests": 1, "rows": 3}) == [
        (pricing.FREE, "rows", 0, 2, 0), (pricing.UNITS, "rows", 0, 1, 3), (pricing.UNITS, "requests", 0, 1, 4),
    ]  # fmt: skip


def test_a_tier_costs_its_flat_amount_with_its_first_unit() -> None:
    graduated = Component("rows", tiers=(Tier(10, 4, 1), Tier(20, 3, 2), Tier(0, 2)))
    first, second = (pricing.TIER_FLAT, "rows", 1, 1, MILLION), (pricing.TIER_FLAT, "rows", 2, 1, 2 * MILLION)
    for position, units, made in (
        (0, 1, [(pricing.TIER, "rows", 1, 1, 4), first]),
        (1, 9, [(pricing.TIER, "rows", 1, 9, 36)]),
        (9, 2, [(pricing.TIER, "rows", 1, 1, 4), (pricing.TIER, "rows", 2, 1, 3), second]),
        (10, 1, [(pricing.TIER, "rows", 2, 1, 3), second]),
        (19, 2, [(pricing.TIER, "rows", 2, 1, 3), (pricing.TIER, "rows", 3, 1, 2)]),
        (20, 5, [(pricing.TIER, "rows", 3, 5, 10)]),
    ):
        assert lines_of(Price((graduated,)), {"rows": units}, Rated({"rows": position})) == made


def test_minimum_and_discount_are_lines() -> None:
    rate = 5 * MILLION
    price = Price((Component("rows", rate),), minimum=20)
    units, off = (pricing.UNITS, "rows", 0, 2, 2 * rate), Rated(discount_ppm=100_000)
    assert lines_of(price, {"rows": 2}) == [units, (pricing.MINIMUM, "", 0, 0, 10 * MILLION)]
    assert lines_of(price, {"rows": 2}, off)[1:] == [
        (pricing.MINIMUM, "", 0, 0, 10 * MILLION), (pricing.DISCOUNT, "", 0, 0, -2 * MILLION),
    ]  # fmt: skip
    assert [line[0] for line in lines_of(price, {"rows": 4})] == [pricing.UNITS], "just the minimum"
    free = Price((Component("rows", rate, free_units=9),), minimum=20)
    assert lines_of(free, {"rows": 4}, off) == [(pricing.FREE, "rows", 0, 4, 0)], "nothing to take off"
    [line, _] = pricing.bill(price, {"rows": 2})[1]
    assert (line.nanos, line._replace(millionths=1_500_000).nanos, line._replace(millionths=-500_000).nanos) == (
        10, 2, 0,
    )  # fmt: skip


def test_the_dearest_cost_is_the_greatest_int64() -> None:
    dearest = Price((Component("rows", MILLION),))
    assert pricing.cost(dearest, {"rows": money.INT64_MAX}) == money.INT64_MAX
    with pytest.raises(pricing.TooDear, match=r"^a cost past int64 nanos$"):
        pricing.cost(dearest, {"rows": money.INT64_MAX + 1})


def test_prices_are_compared_where_they_begin_to_cost() -> None:
    assert pricing.at_first(Price((Component("rows", 7), Component("requests", 5)))) == 12
    assert pricing.at_first(Price((Component("rows", tiers=(Tier(10, 4, 1), Tier(0, 3))),))) == 4
    assert pricing.at_first(Price((Component("rows", package_units=3, package_nanos=10),))) == 3_333_334
    assert pricing.at_first(Price((Component("rows", 2**62), Component("requests", 2**62)))) == money.INT64_MAX


def test_what_counts_the_month() -> None:
    assert not Component("rows", 5).counted
    for c in (Component("r", 5, free_units=1), Component("r", package_units=1), Component("r", tiers=(Tier(0, 1),))):
        assert c.counted
        assert Price((c, Component("rows", 5))).counted == ("r",)
        assert Price((c,)).flat is None
    assert Price((Component("rows", 5),), minimum=1).flat is None


@given(st.lists(st.integers(1, 1000), min_size=1, max_size=5))
def test_ascending_tiers_with_an_endless_last_are_right(ends: list[int]) -> None:
    right = all(a < b for a, b in pairwise(ends))
    assert (not pricing.mistakes([component_of(*ends, 0)])) == right


def test_meters_that_no_call_is_counted_by_are_named():
    pricing.check_meters(dict.fromkeys(pricing.METERS, 1))
    pricing.check_meters({})
    with pytest.raises(InvalidFields) as refused:
        pricing.check_meters({"rows": 1, "row": 1, "": 2})
    assert [v.field for v in refused.value.violations] == ["units['row']", "units['']"]
    assert "compute_us" in refused.value.violations[0].description
