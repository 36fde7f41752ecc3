"""Prices as people write them: US dollars for one counted thing, `requests=0.002`, or for a thousand or a million of
them, `input_bytes=0.5/1M`. The contract counts nanos per 1,000,000; every conversion is exact or refused."""

from collections.abc import Iterable
from decimal import Decimal, InvalidOperation

import typer
from mercat.billing.v1 import billing_pb2

_PER = {"1": 1, "1k": 1_000, "1m": 1_000_000}
_NANOS_PER_MILLION = Decimal(10**15)  # of one dollar for one thing
_WORDS = {
    "requests": "request", "rows": "row", "input_bytes": "input byte", "input_tokens": "input token",
    "cached_input_tokens": "cached input token", "output_tokens": "output token",
}  # fmt: skip


def parse_price(text: str) -> billing_pb2.PriceComponent:
    """`METER=USD` or `METER=USD/1K` or `METER=USD/1M`. Raises BadParameter for anything else, and for what is finer
    than the contract can say."""
    meter, separator, rest = text.partition("=")
    amount, _, unit = rest.partition("/")
    per = _PER.get((unit or "1").lower())
    try:
        value = Decimal(amount)
    except InvalidOperation:
        value = Decimal("NaN")
    if not separator or not meter or per is None or not value.is_finite() or value < 0:
        raise typer.BadParameter(f"{text!r} is no price; write it as requests=0.002 or input_bytes=0.5/1M")
    exact = value * _NANOS_PER_MILLION / per
    if exact != exact.to_integral_value():
        raise typer.BadParameter(f"{text!r} is finer than 10^-15 USD for one")
    if exact > 2**63 - 1:
        raise typer.BadParameter(f"{text!r} is more than can be charged")
    return billing_pb2.PriceComponent(meter=meter.strip(), nanos_per_million=int(exact))


def show_component(component: billing_pb2.PriceComponent, currency: str = "USD") -> str:
    """`0.002 USD a request`; small ones by the million: `0.5 USD a million input bytes`."""
    word = _WORDS.get(component.meter, component.meter)
    each = Decimal(component.nanos_per_million) / _NANOS_PER_MILLION
    if each and each < Decimal("0.000001"):
        return f"{_plain(each * 1_000_000)} {currency} a million {word}s"
    return f"{_plain(each)} {currency} {'an' if word[0] in 'aeiou' else 'a'} {word}"


def show_price(price: billing_pb2.Price) -> str:
    """All components of a price; `free` when there are none."""
    return show_components(price.components, price.currency or "USD")


def show_components(components: Iterable[billing_pb2.PriceComponent], currency: str = "USD") -> str:
    return " + ".join(show_component(c, currency) for c in components if c.nanos_per_million) or "free"


def _plain(amount: Decimal) -> str:
    """Never in powers of ten, and no zeros at the end."""
    text = f"{amount:f}"
    return (text.rstrip("0").rstrip(".") if "." in text else text) or "0"
