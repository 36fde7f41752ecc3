"""`mercat price`: prices with tiers, packages and allowances, over time; discounts."""

import json
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from typing import Annotated, Any

import typer
import yaml
from google.protobuf import json_format
from mercat.billing.v1 import billing_pb2, prices_pb2

from services.cli import output
from services.cli.command import Session, command
from services.cli.inputs import read_text
from services.cli.paging import Limit, gather
from services.cli.prices import (
    parse_allowance,
    parse_amount,
    parse_package,
    parse_price,
    parse_tiers,
    rows_of,
    show_price,
)
from services.cli.times import parse_ahead
from services.common import money

Model = Annotated[str, typer.Argument(help="publisher/name; of your own just the name.")]
Organisation = Annotated[str, typer.Argument(metavar="ORGANISATION", help="Its id, org_…, as `mercat usage` has it.")]
OneModel = Annotated[str, typer.Option("--model", help="Only this one of your models; without it all of them.")]


def register(app: typer.Typer) -> None:
    prices = typer.Typer(
        help="What calls to models cost, and from when on.", no_args_is_help=True, rich_markup_mode="rich"
    )
    prices.command("show")(command(show))
    prices.command("set")(command(set_price))
    prices.command("list")(command(list_prices))
    for function in (discount, discounts):
        prices.command()(command(function))
    app.add_typer(prices, name="price")


def show(session: Session, model: Model) -> None:
    """Shows what calls to a model cost now, tier by tier, and what comes next.

    Example: mercat price show ada/adder
    """
    name = session.full_name(model)
    now = session.client.billing.GetModelPrice(billing_pb2.GetModelPriceRequest(model=name)).price
    if session.json:
        output.say_json(now)
        return
    _show(now)
    coming = prices_pb2.ListModelPricesRequest(model=name, page_size=20)
    for period in reversed(session.client.prices.ListModelPrices(coming).periods):
        price = period.price
        if price.effective_at.ToDatetime(UTC) > datetime.now(UTC) and period.end_time != price.effective_at:
            output.say(f"From {output.when(price.effective_at)} UTC on: {show_price(price)}")


def _show(price: billing_pb2.Price) -> None:
    least = money.show(price.minimum_nanos, price.currency or "USD") if price.minimum_nanos else ""
    output.facts([
        ("model", price.model), ("price", price.price_id or "free"), ("since", output.when(price.effective_at)),
        ("at least", f"{least} a call that costs anything" if least else ""),
    ])  # fmt: skip
    for c in price.components:
        if c.tier_mode == billing_pb2.TIER_MODE_VOLUME:
            output.say(f"Of {c.meter} the tier that a month reaches is the price of all of them.")
    rows = rows_of(price)
    if rows:
        output.table(["meter", "units a month", "price", "once"], rows, empty="")


def set_price(
    session: Session,
    model: Model,
    prices: Annotated[
        list[str] | None, typer.Option("--price", metavar="METER=USD", help="For each; add /1M for a million.")
    ] = None,
    tiers: Annotated[
        list[str] | None,
        typer.Option(metavar="METER=TIERS", help="Each unit at the price of its tier. Repeatable."),
    ] = None,
    volume: Annotated[
        list[str] | None,
        typer.Option(metavar="METER=TIERS", help="All of a month at the price of the tier reached. Repeatable."),
    ] = None,
    package: Annotated[
        list[str] | None, typer.Option(metavar="METER=USD/UNITS", help="So many at a time. Repeatable.")
    ] = None,
    allowance: Annotated[
        list[str] | None,
        typer.Option(metavar="METER=UNITS", help="Free for each organisation every month. Repeatable."),
    ] = None,
    minimum: Annotated[str, typer.Option(metavar="USD", help="The least of a call that costs anything.")] = "",
    effective_at: Annotated[str, typer.Option(metavar="WHEN", help="2027-01-31, or 12h from now; else now.")] = "",
    file: Annotated[
        str, typer.Option(metavar="FILE", help="A price as REST takes it, JSON or YAML; - is standard input.")
    ] = "",
    free: Annotated[bool, typer.Option("--free", help="Calls cost nothing.")] = False,
) -> None:  # fmt: skip
    """Sets what calls to a model cost, now or from a later moment on.

    Examples:

      mercat price set adder --price requests=0.002 --allowance requests=1000

      mercat price set chat --tiers input_tokens=1M:0.5/1M,10M:0.4/1M,0.3/1M --price output_tokens=2/1M --minimum 0.0001

      mercat price set adder --package requests=5/1000 --effective-at 2027-01-01

      mercat price set adder --file price.yaml
    """
    options = bool(prices or tiers or volume or package or allowance or minimum)
    if options + bool(file) + free != 1:
        raise typer.BadParameter("give the price by options, by --file, or as --free: one of them")
    request = _read(file) if file else billing_pb2.SetModelPriceRequest()
    request.model = session.full_name(model)
    if options:
        request.components.extend(_components(prices, tiers, volume, package, allowance))
        request.minimum_nanos = parse_amount(minimum) if minimum else 0
    if effective_at:
        request.effective_at.FromDatetime(parse_ahead(effective_at, datetime.now(UTC)))
    made = session.client.billing.SetModelPrice(request).price
    if session.json:
        output.say_json(made)
    else:
        _show(made)


def _components(
    prices: list[str] | None, tiers: list[str] | None, volume: list[str] | None, package: list[str] | None,
    allowance: list[str] | None,
) -> list[billing_pb2.PriceComponent]:  # fmt: skip
    made = [parse_price(text) for text in prices or ()]
    made += [parse_tiers(text, billing_pb2.TIER_MODE_GRADUATED) for text in tiers or ()]
    made += [parse_tiers(text, billing_pb2.TIER_MODE_VOLUME) for text in volume or ()]
    made += [parse_package(text) for text in package or ()]
    by_meter = {c.meter: c for c in made}
    for text in allowance or ():
        meter, units = parse_allowance(text)
        if meter not in by_meter:
            raise typer.BadParameter(f"--allowance {text}: {meter} has no price, so that all of it is free")
        by_meter[meter].free_units = units
    return made


def _read(file: str) -> billing_pb2.SetModelPriceRequest:
    text = read_text(file)
    try:
        said: Any = json.loads(text) if text.lstrip().startswith("{") else yaml.safe_load(text)
        return json_format.ParseDict(said, billing_pb2.SetModelPriceRequest())
    except (ValueError, yaml.YAMLError, json_format.ParseError, TypeError, AttributeError) as error:
        raise typer.BadParameter(f"{file} holds no price: {error}", param_hint="--file") from None


def list_prices(session: Session, model: Model, limit: Limit = 50) -> None:
    """Lists every price of a model: those to come, the one in effect, those that were.

    Example: mercat price list ada/adder
    """
    request = prices_pb2.ListModelPricesRequest(model=session.full_name(model))
    answer = gather(session.client.prices.ListModelPrices, request, "periods", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["from (UTC)", "until (UTC)", "price", "id"],
        [
            (output.when(p.price.effective_at), output.when(p.end_time), show_price(p.price), p.price.price_id)
            for p in answer.periods
        ],
        empty="It was never priced: calls are free.",
    )


def discount(
    session: Session,
    organisation: Organisation,
    percent: Annotated[str, typer.Argument(help="Per cent off, such as 15 or 12.5; 0 ends the discount.")],
    model: OneModel = "",
) -> None:
    """Takes a part off what an organisation pays for your models, from now on.

    Examples:

      mercat price discount org_06b3c… 15

      mercat price discount org_06b3c… 0 --model adder
    """
    try:
        ppm = Decimal(percent.rstrip(" %")) * 10_000
    except InvalidOperation:
        ppm = Decimal(-1)
    if ppm != ppm.to_integral_value() or not 0 <= ppm <= 1_000_000:
        raise typer.BadParameter(f"{percent!r} is no part of a price; write it as 15 or 12.5")
    name = session.full_name(model) if model else ""
    if not ppm:
        session.client.prices.DeleteDiscount(prices_pb2.DeleteDiscountRequest(org_id=organisation, model=name))
        if session.json:
            output.say_json({})
        else:
            output.say(f"{organisation} pays the whole price of {name or 'all of your models'} now.")
        return
    asked = prices_pb2.SetDiscountRequest(org_id=organisation, model=name, discount_ppm=int(ppm))
    made = session.client.prices.SetDiscount(asked).discount
    if session.json:
        output.say_json(made)
    else:
        output.say(f"{organisation} pays {_percent(made.discount_ppm)} less for {name or 'all of your models'} now.")


def discounts(session: Session, limit: Limit = 50) -> None:
    """Lists the discounts that you give.

    Example: mercat price discounts
    """
    answer = gather(session.client.prices.ListDiscounts, prices_pb2.ListDiscountsRequest(), "discounts", limit)
    if session.json:
        output.say_json(answer)
        return
    output.table(
        ["organisation", "model", "discount", "since (UTC)"],
        [(d.org_id, d.model or "all", _percent(d.discount_ppm), output.when(d.updated_at)) for d in answer.discounts],
        empty="You give no discount.", right=["discount"],
    )  # fmt: skip


def _percent(ppm: int) -> str:
    return f"{ppm / 10_000:g} %"
