"""Prices as people write them: US dollars for one counted thing, `requests=0.002`, or for a thousand or a million of
them, `input_bytes=0.5/1M`; tiers of a month, `input_tokens=1M:0.5/1M,10M:0.4/1M,0.3/1M`; packages, `requests=5/1000`.
The contract counts nanos per 1,000,000; every conversion is exact or refused."""

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

import typer
from mercat.billing.v1 import billing_pb2
from mercat.inference.v1 import inference_pb2

from services.cli import output
from services.common import money

_PER = {"1": 1, "1k": 1_000, "1m": 1_000_000}
_NANOS_PER_MILLION = Decimal(10**15)  # of one dollar for one thing
_WORDS = {
    "requests": "request", "rows": "row", "input_bytes": "input byte", "input_tokens": "input token",
    "cached_input_tokens": "cached input token", "output_tokens": "output token", "images": "image",
    "output_bytes": "output byte", "compute_us": "microsecond of the engine",
}  # fmt: skip


def parse_price(text: str) -> billing_pb2.PriceComponent:
    """`METER=USD` or `METER=USD/1K` or `METER=USD/1M`. Raises BadParameter for anything else, and for what is finer
    than the contract can say."""
    meter, separator, rest = text.partition("=")
    if not separator or not meter:
        raise _no_price(text)
    return billing_pb2.PriceComponent(meter=meter.strip(), nanos_per_million=_per_million(rest, text))


def _no_price(text: str) -> typer.BadParameter:
    return typer.BadParameter(f"{text!r} is no price; write it as requests=0.002 or input_bytes=0.5/1M")


def _per_million(rest: str, text: str) -> int:
    """Nanos of `USD` or `USD/1K` or `USD/1M`; `text` is what was typed."""
    amount, _, unit = rest.partition("/")
    per = _PER.get((unit or "1").lower())
    try:
        value = Decimal(amount)
    except InvalidOperation:
        value = Decimal("NaN")
    if per is None or not value.is_finite() or value < 0:
        raise _no_price(text)
    exact = value * _NANOS_PER_MILLION / per
    if exact != exact.to_integral_value():
        raise typer.BadParameter(f"{text!r} is finer than 10^-15 USD for one")
    if exact > 2**63 - 1:
        raise typer.BadParameter(f"{text!r} is more than can be charged")
    return int(exact)


def parse_tiers(text: str, mode: billing_pb2.TierMode.ValueType) -> billing_pb2.PriceComponent:
    """`METER=UNITS:PRICE,UNITS:PRICE,PRICE`: up to how many units of a month, the last tier without; each price as
    `parse_price` takes it, with `+USD` for what the tier costs once. Raises BadParameter for anything else."""
    meter, separator, rest = text.partition("=")
    made = billing_pb2.PriceComponent(meter=meter.strip(), tier_mode=mode)
    parts = rest.split(",")
    for n, part in enumerate(parts):
        up_to, colon, price = part.strip().rpartition(":")
        if not separator or not meter or bool(colon) == (n == len(parts) - 1):
            said = "write them as input_tokens=1M:0.5/1M,10M:0.4/1M,0.3/1M"
            raise typer.BadParameter(f"{text!r} are no tiers; {said}")
        each, _, flat = price.partition("+")
        made.tiers.add(
            up_to=parse_count(up_to) if colon else 0, nanos_per_million=_per_million(each, text),
            flat_nanos=parse_amount(flat) if flat else 0,
        )  # fmt: skip
    return made


def parse_package(text: str) -> billing_pb2.PriceComponent:
    """`METER=USD/UNITS`: so many at a time. Raises BadParameter for anything else."""
    meter, separator, rest = text.partition("=")
    amount, slash, units = rest.partition("/")
    if not separator or not meter or not slash:
        raise typer.BadParameter(f"{text!r} is no package; write it as requests=5/1000")
    return billing_pb2.PriceComponent(
        meter=meter.strip(), package_units=parse_count(units), package_nanos=parse_amount(amount)
    )


def parse_allowance(text: str) -> tuple[str, int]:
    """`METER=UNITS`. Raises BadParameter for anything else."""
    meter, separator, units = text.partition("=")
    if not separator or not meter:
        raise typer.BadParameter(f"{text!r} is no allowance; write it as requests=1000")
    return meter.strip(), parse_count(units)


def parse_count(text: str) -> int:
    """Units: `1000`, `500k`, `1M`. Raises BadParameter for anything else."""
    digits, per = text.strip(), 1
    if digits[-1:].lower() in ("k", "m"):
        digits, per = digits[:-1], _PER["1" + digits[-1].lower()]
    if not digits.isdecimal():
        raise typer.BadParameter(f"{text!r} is no number of units; write it as 1000, 500k or 1M")
    return int(digits) * per


def parse_amount(text: str) -> int:
    """Nanos of US dollars. Raises BadParameter for what is no amount or less than nothing."""
    try:
        nanos = money.parse(text.strip())
    except ValueError as error:
        raise typer.BadParameter(str(error)) from None
    if nanos < 0:
        raise typer.BadParameter(f"{text!r} is less than nothing")
    return nanos


def show_component(component: billing_pb2.PriceComponent, currency: str = "USD") -> str:
    """`0.002 USD a request`; small ones by the million: `0.5 USD a million input bytes`; tiers and packages with their
    units, and what is free."""
    word = _WORDS.get(component.meter, component.meter)
    if component.package_units:
        shown = f"{money.show(component.package_nanos, currency)} for {component.package_units:,} {word}s"
    elif component.tiers:
        tiers = [
            show_rate(t.nanos_per_million, word, currency)
            + (f" and {money.show(t.flat_nanos, currency)} once" if t.flat_nanos else "")
            + (f" up to {t.up_to:,} a month" if t.up_to else "")
            for t in component.tiers
        ]
        whole = " for all of the month" if component.tier_mode == billing_pb2.TIER_MODE_VOLUME else ""
        shown = ", then ".join(tiers) + whole
    else:
        shown = show_rate(component.nanos_per_million, word, currency)
    return shown + (f" after {component.free_units:,} free a month" if component.free_units else "")


def show_rate(nanos_per_million: int, word: str, currency: str = "USD") -> str:
    """What one of something costs, or if that is little, a million."""
    each = Decimal(nanos_per_million) / _NANOS_PER_MILLION
    if each and each < Decimal("0.000001"):
        return f"{_plain(each * 1_000_000)} {currency} a million {word}s"
    return f"{_plain(each)} {currency} {'an' if word[0] in 'aeiou' else 'a'} {word}"


def show_price(price: billing_pb2.Price) -> str:
    """All of a price; `free` when there is nothing to it."""
    shown = show_components(price.components, price.currency or "USD")
    if not price.minimum_nanos:
        return shown
    return f"{shown}, at least {money.show(price.minimum_nanos, price.currency or 'USD')} a call"


def show_components(components: Iterable[billing_pb2.PriceComponent], currency: str = "USD") -> str:
    charging = (c for c in components if c.nanos_per_million or c.tiers or c.package_nanos)
    return " + ".join(show_component(c, currency) for c in charging) or "free"


def show_allowance(allowance: billing_pb2.Allowance | inference_pb2.QuoteAllowance) -> str:
    """`998 of 1,000 requests left, all again on 2026-12-01 00:00`; without what is left where that is not known."""
    word = _WORDS.get(allowance.meter, allowance.meter)
    if not allowance.HasField("resets_at"):
        return f"{allowance.free_units:,} {word}s a month"
    resets = output.when(allowance.resets_at)
    return f"{allowance.left_units:,} of {allowance.free_units:,} {word}s left, all again from {resets} on"


def rows_of(price: billing_pb2.Price) -> list[tuple[str, str, str, str]]:
    """A price as a table: meter, units of a month, what they cost, what is once."""
    currency = price.currency or "USD"
    rows: list[tuple[str, str, str, str]] = []
    for c in price.components:
        word = _WORDS.get(c.meter, c.meter)
        first = c.free_units + 1
        if c.free_units:
            rows.append((c.meter, f"1 to {c.free_units:,}", "free", ""))
        if c.tiers:
            for tier in c.tiers:
                last = c.free_units + tier.up_to
                span = f"{first:,} to {last:,}" if tier.up_to else f"from {first:,} on"
                once = money.show(tier.flat_nanos, currency) if tier.flat_nanos else ""
                rows.append((c.meter, span, show_rate(tier.nanos_per_million, word, currency), once))
                first = last + 1
            continue
        if c.package_units:
            cost = f"{money.show(c.package_nanos, currency)} for {c.package_units:,}"
        else:
            cost = show_rate(c.nanos_per_million, word, currency)
        rows.append((c.meter, f"from {first:,} on" if c.free_units else "all", cost, ""))
    return rows


def _plain(amount: Decimal) -> str:
    """Never in powers of ten, and no zeros at the end."""
    text = f"{amount:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
