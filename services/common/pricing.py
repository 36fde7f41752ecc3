"""What a call costs, pure: a price, what was counted, and what the organisation had used of the month before make one
amount, the same for ever. Graduated and volume tiers and packages are Stripe's
(https://docs.stripe.com/products-prices/pricing-models), applied call by call: if F(n) is what n units of a month cost,
a call from the unit p on costs F(p + units) − F(p), so that calls together cost what their sum costs. All amounts are
exact in millionths of a nano until the one rounding at the end, half-even."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from mercat.billing.v1 import billing_pb2
from mercat.usage.v1 import usage_pb2

from services.common import money
from services.common.errors import InvalidFields, Violation

MILLION = 1_000_000
METERS = (
    "requests", "rows", "input_bytes", "input_tokens", "cached_input_tokens", "output_tokens", "images", "output_bytes",
    "compute_us",
)  # fmt: skip
# Kinds of lines, as the contract of quotes numbers them.
UNITS, FREE, TIER, TIER_FLAT, PACKAGE, MINIMUM, DISCOUNT = range(1, 8)


class TooDear(OverflowError):
    """A cost past int64 nanos."""


class Tier(NamedTuple):
    """Up to which unit of the month, 0: all; nanos for a million of its units, and once for its first one."""

    up_to: int
    nanos_per_million: int
    flat_nanos: int = 0


@dataclass(frozen=True, slots=True)
class Component:
    """What one meter costs: by the million, in tiers, or in packages; after so many free units a month."""

    meter: str
    nanos_per_million: int = 0
    tiers: tuple[Tier, ...] = ()
    volume: bool = False
    package_units: int = 0
    package_nanos: int = 0
    free_units: int = 0

    @property
    def counted(self) -> bool:
        """Whether it depends on what was used before."""
        return bool(self.tiers or self.package_units or self.free_units)

    @property
    def charges(self) -> bool:
        """Whether any number of units costs something."""
        dear = any(tier.nanos_per_million or tier.flat_nanos for tier in self.tiers)
        return bool(self.nanos_per_million or dear or (self.package_units and self.package_nanos))

    def left(self, position: int) -> int:
        """Free units after so many of a month."""
        return max(0, self.free_units - position)


@dataclass(frozen=True, slots=True)
class Price:
    """Its components, and the least that a call costs which costs anything, nanos."""

    components: tuple[Component, ...] = ()
    minimum: int = 0

    @property
    def counted(self) -> tuple[str, ...]:
        """The meters whose cost depends on what was used before."""
        return tuple(c.meter for c in self.components if c.counted)

    @property
    def allowances(self) -> tuple[Component, ...]:
        """Those of which some units are free each month, and the others not."""
        return tuple(c for c in self.components if c.free_units and c.charges)

    @property
    def free_to_try(self) -> bool:
        """Whether the first units of a month cost nothing, whichever a call has."""
        return all(c.free_units for c in self.components if c.charges)

    @property
    def flat(self) -> tuple[tuple[str, int], ...] | None:
        """(meter, nanos per million) of a price that is nothing but that; `money.cost` says the same of it."""
        if self.minimum or self.counted:
            return None
        return tuple((c.meter, c.nanos_per_million) for c in self.components)


class Rated(NamedTuple):
    """What a cost depends on beside price and units: units of the month before the call, by meter; what the publisher
    took off, and what an answer from the cache costs of the price, millionths (None: it is not from the cache)."""

    positions: Mapping[str, int] = {}
    discount_ppm: int = 0
    share_ppm: int | None = None

    def message(self) -> usage_pb2.Rating:
        return usage_pb2.Rating(
            positions=self.positions, discount_ppm=self.discount_ppm, share_ppm=self.share_ppm
        )  # fmt: skip


PLAIN = Rated()


class Line(NamedTuple):
    """A part of a cost, exact in millionths of a nano. `units` of a package line are packages; `tier` counts from 1."""

    kind: int
    meter: str
    tier: int
    units: int
    millionths: int

    @property
    def nanos(self) -> int:
        """Rounded by itself."""
        return money.divide_half_even(self.millionths, MILLION)


def bill(price: Price, units: Mapping[str, int], rated: Rated = PLAIN) -> tuple[int, list[Line]]:
    """A call's cost, nanos, and what makes it up. The line of a discount is rounded, the cost is not made from it.

    Raises:
        TooDear: the cost does not fit int64.
    """
    lines = [
        line
        for c in price.components
        if (count := units.get(c.meter))
        for line in _lines(c, count, rated.positions.get(c.meter, 0))
    ]
    total = sum(line.millionths for line in lines)
    if 0 < total < (least := price.minimum * MILLION):
        lines.append(Line(MINIMUM, "", 0, 0, least - total))
        total = least
    if rated.discount_ppm and total:
        off = money.divide_half_even(total * rated.discount_ppm, MILLION)
        lines.append(Line(DISCOUNT, "", 0, 0, -off))
    share = MILLION if rated.share_ppm is None else rated.share_ppm
    cost = money.divide_half_even(total * (MILLION - rated.discount_ppm) * share, MILLION**3)
    if cost > money.INT64_MAX:
        raise TooDear("a cost past int64 nanos")
    return cost, lines


def cost(price: Price, units: Mapping[str, int], rated: Rated = PLAIN) -> int:
    """A call's cost, nanos. Raises TooDear."""
    return bill(price, units, rated)[0]


def _lines(c: Component, units: int, position: int) -> Iterator[Line]:
    """What units from a position of the month on cost."""
    if free := min(units, c.left(position)):
        yield Line(FREE, c.meter, 0, free, 0)
    begin = max(0, position - c.free_units)  # tiers and packages count what is not free
    end = begin + units - free
    if end == begin:
        return
    if c.package_units:
        begun = -(-end // c.package_units) + (-begin // c.package_units)
        yield Line(PACKAGE, c.meter, 0, begun, begun * c.package_nanos * MILLION)
    elif c.tiers and c.volume:
        (before, _), (after, tier) = _volume(c.tiers, begin), _volume(c.tiers, end)
        yield Line(TIER, c.meter, tier, end - begin, after - before)
    elif c.tiers:
        yield from _graduated(c, begin, end)
    else:
        yield Line(UNITS, c.meter, 0, end - begin, (end - begin) * c.nanos_per_million)


def _graduated(c: Component, begin: int, end: int) -> Iterator[Line]:
    start = 0
    for number, tier in enumerate(c.tiers, 1):
        until = tier.up_to or end
        if (inside := min(end, until) - max(begin, start)) > 0:
            yield Line(TIER, c.meter, number, inside, inside * tier.nanos_per_million)
            if tier.flat_nanos and begin <= start:
                yield Line(TIER_FLAT, c.meter, number, 1, tier.flat_nanos * MILLION)
        start = until


def _volume(tiers: Sequence[Tier], units: int) -> tuple[int, int]:
    """What so many units of a month cost, and their tier: the tier's price for all of them, or what a smaller number
    had cost already where that is more, since nothing is given back."""
    most = reached = 0
    for tier in tiers:
        if not units or (reached and tiers[reached - 1].up_to >= units):
            break
        reached += 1
        most = max(most, min(units, tier.up_to or units) * tier.nanos_per_million + tier.flat_nanos * MILLION)
    return most, reached


def read(price: billing_pb2.Price) -> Price:
    """A price of the contract."""
    return Price(tuple(map(_read, price.components)), price.minimum_nanos)


def _read(c: billing_pb2.PriceComponent) -> Component:
    return Component(
        c.meter, c.nanos_per_million, tuple(Tier(t.up_to, t.nanos_per_million, t.flat_nanos) for t in c.tiers),
        c.tier_mode == billing_pb2.TIER_MODE_VOLUME, c.package_units, c.package_nanos, c.free_units,
    )  # fmt: skip


def rated_of(rating: usage_pb2.Rating) -> Rated:
    share = rating.share_ppm if rating.HasField("share_ppm") else None
    return Rated(dict(rating.positions), rating.discount_ppm, share)


def at_first(price: Price) -> int:
    """What a million units of each meter cost together where they begin to cost, nanos: to compare prices by."""
    total = sum(
        -(-c.package_nanos * MILLION // c.package_units)
        if c.package_units
        else (c.tiers[0].nanos_per_million if c.tiers else c.nanos_per_million)
        for c in price.components
    )
    return min(total, money.INT64_MAX)


def check_meters(units: Mapping[str, int]) -> None:
    """Raises InvalidFields for meters of the field `units` that no call is counted by."""
    said = f"is counted of no call; there are {', '.join(METERS)}"
    if strange := [Violation(f"units[{meter!r}]", said) for meter in units if meter not in METERS]:
        raise InvalidFields(violations=strange)


def mistakes(components: Sequence[billing_pb2.PriceComponent]) -> list[tuple[str, str]]:
    """What is wrong with components beyond the bounds of their fields: which field, and what."""
    found: list[tuple[str, str]] = []
    meters: set[str] = set()
    for i, c in enumerate(components):
        at = f"components[{i}]"
        if c.meter in meters:
            found.append(("components", "each meter at most once"))
        meters.add(c.meter)
        if (c.nanos_per_million > 0) + bool(c.tiers) + (c.package_units > 0) > 1:
            found.append((at, "give nanos_per_million, tiers or a package, only one of them"))
        if c.package_nanos and not c.package_units:
            found.append((f"{at}.package_units", "is required with package_nanos"))
        if c.tiers and not c.tier_mode:
            found.append((f"{at}.tier_mode", "is required with tiers: TIER_MODE_GRADUATED or TIER_MODE_VOLUME"))
        if c.tier_mode and not c.tiers:
            found.append((f"{at}.tiers", "is required with tier_mode"))
        found += [(f"{at}.tiers[{n}].up_to", text) for n, text in _misplaced([t.up_to for t in c.tiers])]
    return found


def _misplaced(ends: Sequence[int]) -> Iterator[tuple[int, str]]:
    for n, end in enumerate(ends):
        if n == len(ends) - 1:
            if end:
                yield n, "must be 0: the last tier has no end"
        elif not end:
            yield n, "is required: only the last tier has no end"
        elif n and end <= ends[n - 1]:
            yield n, f"must be more than the {ends[n - 1]} of the tier before"
