"""What a correction changes, pure."""

from collections.abc import Mapping
from dataclasses import dataclass

from services.common import money, pricing
from services.common.pricing import Price, Rated, TooDear


@dataclass(frozen=True)
class State:
    """What a call counts and costs, nanos, and the platform's part of that."""

    units: Mapping[str, int]
    cost: int
    fee: int


def cost_of(price: Price, rated: Rated, recorded: Mapping[str, int], cost: int, units: Mapping[str, int]) -> int:
    """What other units make of a call that was recorded with these units and this cost, nanos: what its price makes of
    them where the call was in its month and with its discount, or where it cost another share of that the same share.

    Raises:
        TooDear: the amount does not fit int64.
    """
    priced, full = pricing.cost(price, units, rated), pricing.cost(price, recorded, rated)
    if full == cost:
        return priced
    if full == 0:
        # Nothing of the price explains the cost: it stays while anything is counted.
        return cost if any(units.values()) else 0
    found = money.divide_half_even(priced * cost, full)
    if found > money.INT64_MAX:
        raise TooDear("a cost past int64 nanos")
    return found


def fee_of(cost: int, share: tuple[int, int], fee_ppm: int) -> int:
    """The platform's part of a cost. `share`: a fee and the cost it was a part of, as they were when the call was first
    posted; the fee of another cost is in the same proportion. Of a call that never cost anything, (0, 0), it is
    today's."""
    fee, of = share
    return money.divide_half_even(cost * fee, of) if of else money.share(cost, fee_ppm)


def credit_back(by_credit: int, cost: int) -> int:
    """How much of the credit that pays a call is credit again, when the call costs so much in truth, nanos: credit pays
    first, so money that came from the wallet comes back before it."""
    return max(by_credit - cost, 0)


def difference(before: Mapping[str, int], after: Mapping[str, int]) -> dict[str, int]:
    """By meter; meters that are the same are left out."""
    meters = sorted({*before, *after})
    changes = {meter: after.get(meter, 0) - before.get(meter, 0) for meter in meters}
    return {meter: change for meter, change in changes.items() if change}
