"""Prices as typed and as shown."""

from collections.abc import Callable

import pytest
import typer
from hypothesis import given
from hypothesis import strategies as st
from mercat.billing.v1 import billing_pb2

from services.cli.prices import (
    parse_allowance,
    parse_amount,
    parse_count,
    parse_package,
    parse_price,
    parse_tiers,
    rows_of,
    show_component,
    show_price,
)
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


def test_tiers_as_typed_and_as_shown() -> None:
    made = parse_tiers("input_tokens=1M:0.5/1M,10M:0.4/1M+20,0.3/1M", billing_pb2.TIER_MODE_GRADUATED)
    assert [(t.up_to, t.nanos_per_million, t.flat_nanos) for t in made.tiers] == [
        (10**6, 500_000_000, 0), (10**7, 400_000_000, 20 * money.NANOS), (0, 300_000_000, 0),
    ]  # fmt: skip
    made.free_units = 1000
    assert show_component(made) == (
        "0.5 USD a million input tokens up to 1,000,000 a month, then 0.4 USD a million input tokens and 20.00 USD once"
        " up to 10,000,000 a month, then 0.3 USD a million input tokens after 1,000 free a month"
    )
    price = billing_pb2.Price(components=[made], minimum_nanos=5)
    assert [(span, cost, once) for _, span, cost, once in rows_of(price)] == [
        ("1 to 1,000", "free", ""), ("1,001 to 1,001,000", "0.5 USD a million input tokens", ""),
        ("1,001,001 to 10,001,000", "0.4 USD a million input tokens", "20.00 USD"),
        ("from 10,001,001 on", "0.3 USD a million input tokens", ""),
    ]  # fmt: skip
    assert show_price(price).endswith(", at least 0.000000005 USD a call")
    volume = parse_tiers("rows=10:1,0.5", billing_pb2.TIER_MODE_VOLUME)
    assert show_component(volume) == "1 USD a row up to 10 a month, then 0.5 USD a row for all of the month"


def test_packages_as_typed_and_as_shown() -> None:
    made = parse_package("requests=5/1k")
    assert (made.package_units, made.package_nanos) == (1000, 5 * money.NANOS)
    assert show_component(made) == "5.00 USD for 1,000 requests"
    assert rows_of(billing_pb2.Price(components=[made, parse_price("rows=1")])) == [
        ("requests", "all", "5.00 USD for 1,000", ""), ("rows", "all", "1 USD a row", ""),
    ]  # fmt: skip
    assert (parse_allowance("rows=2m"), parse_count("500K"), parse_amount("0.5")) == (
        ("rows", 2 * 10**6),
        500_000,
        5 * 10**8,
    )


@pytest.mark.parametrize(
    ("parse", "text"),
    [
        *((lambda x: parse_tiers(x, billing_pb2.TIER_MODE_VOLUME), x) for x in (
            "rows", "=1", "rows=1:2", "rows=1:2,3:4", "rows=1,2", "rows=a:1,2", "rows=1:x,2", "rows=1:2,3+x", "rows="
        )),
        *((parse_package, x) for x in ("rows", "rows=5", "=5/1", "rows=x/1", "rows=-5/1", "rows=5/x")),
        *((parse_allowance, x) for x in ("rows", "=5", "rows=-5", "rows=1.5")),
    ],
)  # fmt: skip
def test_tiers_packages_and_allowances_that_are_none(parse: Callable[[str], object], text: str) -> None:
    with pytest.raises(typer.BadParameter):
        parse(text)
