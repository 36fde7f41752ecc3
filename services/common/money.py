"""Money: int64 nano-units of a currency (1 USD = 1,000,000,000) and the one rounding rule."""

import re
from collections.abc import Iterable, Mapping

NANOS = 1_000_000_000
PER_UNITS = 1_000_000
INT64_MAX = 2**63 - 1
_AMOUNT = re.compile(r"([+-]?)(?=\.?[0-9])([0-9]{1,3}(?:,[0-9]{3})+|[0-9]*)(?:\.([0-9]{0,9}))?")


def divide_half_even(numerator: int, denominator: int) -> int:
    """Exact integer division, ties to even. The denominator is positive."""
    quotient, remainder = divmod(numerator, denominator)
    twice = 2 * remainder
    if twice > denominator or (twice == denominator and quotient & 1):
        quotient += 1
    return quotient


def cost(components: Iterable[tuple[str, int]], units: Mapping[str, int]) -> int:
    """What a call costs in nanos: each (meter, nanos per 1,000,000 units) times what was counted of that meter,
    summed exactly and rounded once.

    Raises:
        OverflowError: the amount does not fit int64.
    """
    total = divide_half_even(sum(price * units.get(meter, 0) for meter, price in components), PER_UNITS)
    if total > INT64_MAX:
        raise OverflowError("a cost past int64 nanos")
    return total


def share(amount: int, parts_per_million: int) -> int:
    """A share of an amount, half-even; the rest is `amount - share(...)`, so that the two always add up."""
    return divide_half_even(amount * parts_per_million, 1_000_000)


def show(nanos: int, currency: str = "USD") -> str:
    """For people: `0.0025 USD`, at least two decimals and no more than there are."""
    sign = "-" if nanos < 0 else ""
    whole, part = divmod(abs(nanos), NANOS)
    decimals = f"{part:09d}".rstrip("0")  # pragma: no mutate: more characters to strip would strip no more
    return f"{sign}{whole:,}.{decimals.ljust(2, '0')} {currency}"


def parse(text: str) -> int:
    """Nanos of an amount such as `12.50` or `1,234.5`: a comma is between groups of three digits only, since others
    write decimals behind it.

    Raises:
        ValueError: not a decimal number, or finer than a nano.
    """
    match = _AMOUNT.fullmatch(text)
    if match is None:
        raise ValueError(f"not an amount: {text!r}; write it like 12.50")
    sign, whole, part = match.groups("")
    nanos = int(whole.replace(",", "") + part.ljust(9, "0"))
    return -nanos if sign == "-" else nanos
