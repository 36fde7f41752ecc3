"""Prices as typed and as shown."""

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from mercat.billing.v1 import billing_pb2

from services.cli.prices import parse_price, show_component, show_price
from services.common import money


@pytest.mark.parametrize(
    ("text", "meter", "nanos_per_million"),
    [
        ("requests=0.002", "requests", 2_000_000_000_000),
        ("requests=1", "requests", 10**15),
        ("rows=0.5/1K", "rows", 500_000_000_000),
        ("input_bytes=0.5/1M", "input_bytes", 500_000_000),
        ("input_bytes=1e-15", "input_bytes", 1),
        ("requests=0", "requests", 0),
    ],
)
def test_parsed_exactly(text: str, meter: str, nanos_per_million: int) -> None:
    assert parse_price(text) == billing_pb2.PriceComponent(meter=meter, nanos_per_million=nanos_per_million)


@pytest.mark.parametrize(
    "text",
    ["", "requests", "requests=", "=1", "requests=abc", "requests=-1", "requests=nan", "requests=1/2", "r=1e-16"],
)
def test_refused(text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse_price(text)


def test_a_call_costs_what_was_typed() -> None:
    component = parse_price("requests=0.002")
    assert money.cost([(component.meter, component.nanos_per_million)], {"requests": 1}) == money.parse("0.002")


@given(st.integers(0, 10**15))
def test_every_price_of_the_contract_can_be_typed(nanos_per_million: int) -> None:
    whole, part = divmod(nanos_per_million, 10**15)
    assert parse_price(f"rows={whole}.{part:015d}").nanos_per_million == nanos_per_million


def test_shown() -> None:
    def component(meter: str, nanos: int) -> billing_pb2.PriceComponent:
        return billing_pb2.PriceComponent(meter=meter, nanos_per_million=nanos)

    assert show_component(component("requests", 2_000_000_000_000)) == "0.002 USD a request"
    assert show_component(component("rows", 10**15)) == "1 USD a row"
    assert show_component(component("input_bytes", 500_000_000)) == "0.5 USD a million input bytes"
    price = billing_pb2.Price(components=[component("requests", 10**12), component("rows", 10**11)])
    assert show_price(price) == "0.001 USD a request + 0.0001 USD a row"
    assert show_price(billing_pb2.Price()) == "free"
