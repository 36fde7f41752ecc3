"""Prices over time, as billing keeps them, with a clock that is moved."""

from datetime import UTC, datetime, timedelta

import grpc
import pytest
from mercat.billing.v1 import billing_pb2, prices_pb2
from mercat.event.v1 import event_pb2
from mercat.registry.v1 import registry_pb2

from services.common import ids
from services.common.errors import from_rpc_error
from tests.integration.billing.books import USD, Books, Person


async def model_of(books: Books, person: Person) -> tuple[str, str]:
    """A new model: its name and its id."""
    name = f"m{ids.new('mdl')[-8:].lower()}"
    made = await books.registry.CreateModel(
        registry_pb2.CreateModelRequest(name=name, summary="x", category="other", task="test", license="MIT"),
        metadata=person.metadata,
    )
    return f"{person.username}/{name}", made.model.model_id


async def set_price(books: Books, person: Person, model: str, nanos: int, at: datetime | None = None) -> str:
    request = billing_pb2.SetModelPriceRequest(model=model)
    request.components.add(meter="rows", nanos_per_million=nanos)
    if at is not None:
        request.effective_at.FromDatetime(at)
    return (await books.billing.SetModelPrice(request, metadata=person.metadata)).price.price_id


async def resolved(books: Books, model_id: str) -> billing_pb2.ResolvePriceResponse:
    return await books.leases.ResolvePrice(billing_pb2.ResolvePriceRequest(model_id=model_id))


async def test_months_of_prices_pass(books: Books) -> None:
    owner = await books.person()
    model, model_id = await model_of(books, owner)
    first = await set_price(books, owner, model, 1)
    now = books.clock.now()
    replaced = await set_price(books, owner, model, 2, now + timedelta(days=30))
    second = await set_price(books, owner, model, 3, now + timedelta(days=30))
    third = await set_price(books, owner, model, 4, now + timedelta(days=60))
    answer = await resolved(books, model_id)
    assert (answer.price.price_id, [p.price_id for p in answer.upcoming]) == (first, [second, third])
    listed: list[prices_pb2.PricePeriod] = []
    token = ""
    while True:
        page = await books.prices.ListModelPrices(
            prices_pb2.ListModelPricesRequest(model=model, page_size=3, page_token=token), metadata=owner.metadata
        )
        listed += page.periods
        if not (token := page.next_page_token):
            break
    assert [p.price.price_id for p in listed] == [third, second, replaced, first]
    ends = [p.end_time.ToDatetime(UTC) if p.HasField("end_time") else None for p in listed]
    assert ends == [None, now + timedelta(days=60), now + timedelta(days=30), now + timedelta(days=30)]
    moved = books.clock.moved
    try:
        books.clock.moved += timedelta(days=30)
        answer = await resolved(books, model_id)
        assert (answer.price.price_id, [p.price_id for p in answer.upcoming]) == (second, [third])
        got = await books.billing.GetModelPrice(billing_pb2.GetModelPriceRequest(model=model), metadata=owner.metadata)
        assert got.price == answer.price
        books.clock.moved += timedelta(days=31)
        answer = await resolved(books, model_id)
        assert (answer.price.price_id, list(answer.upcoming)) == (third, [])
    finally:
        books.clock.moved = moved
    stranger = await books.person()
    with pytest.raises(grpc.RpcError) as refused:  # it is not published
        await books.prices.ListModelPrices(prices_pb2.ListModelPricesRequest(model=model), metadata=stranger.metadata)
    assert from_rpc_error(refused.value).reason == "MODEL_NOT_FOUND"


async def test_it_is_told_when_a_price_takes_effect(books: Books) -> None:
    owner = await books.person()
    model, _ = await model_of(books, owner)
    price_id = await set_price(books, owner, model, 5, books.clock.now() + timedelta(seconds=2))
    async with books.superuser() as connection:
        assert await connection.fetchval("SELECT count(*) FROM due_prices WHERE price_id = $1", price_id) == 1
        subscription = await books.events.js.subscribe("mercat.event.PriceChanged", ordered_consumer=True)
        ids_seen: list[str] = []
        while ids_seen.count(price_id) < 2:
            message = await subscription.next_msg(timeout=10)
            ids_seen.append(event_pb2.PriceChanged.FromString(message.data).price_id)
        await subscription.unsubscribe()
        assert await connection.fetchval("SELECT count(*) FROM due_prices WHERE price_id = $1", price_id) == 0


async def test_a_models_own_discount_goes_before_that_of_all(books: Books) -> None:
    owner, one, other = await books.person(), await books.person(USD), await books.person(USD)
    model, model_id = await model_of(books, owner)

    async def give(person: Person, ppm: int, of: str = "") -> None:
        request = prices_pb2.SetDiscountRequest(org_id=person.org_id, model=of, discount_ppm=ppm)
        await books.prices.SetDiscount(request, metadata=owner.metadata)

    await give(one, 100_000)
    await give(other, 200_000)
    await give(one, 300_000, model)
    await give(one, 400_000, model)
    request = billing_pb2.ResolvePriceRequest(model_id=model_id, publisher_org_id=owner.org_id)
    assert dict((await books.leases.ResolvePrice(request)).discounts_ppm) == {
        one.org_id: 400_000, other.org_id: 200_000,
    }  # fmt: skip
    request = billing_pb2.ResolvePriceRequest(model_id="mdl_another", publisher_org_id=owner.org_id)
    assert (await books.leases.ResolvePrice(request)).discounts_ppm[one.org_id] == 100_000
    first = await books.prices.ListDiscounts(prices_pb2.ListDiscountsRequest(page_size=2), metadata=owner.metadata)
    rest = await books.prices.ListDiscounts(
        prices_pb2.ListDiscountsRequest(page_size=2, page_token=first.next_page_token), metadata=owner.metadata
    )
    assert len(first.discounts) == 2
    assert len(rest.discounts) == 1
    assert not rest.next_page_token


async def test_a_price_from_before_is_what_it_was(books: Books) -> None:
    """Rows of the first form hold pairs."""
    model_id = ids.new("mdl")
    async with books.superuser() as connection:
        await connection.execute(
            "INSERT INTO prices (id, model_id, model, currency, components, effective_at)"
            " VALUES ($1, $2, 'a/b', 'USD', '[[\"rows\", 7], [\"requests\", 9]]', now())",
            ids.new("prc"), model_id,
        )  # fmt: skip
    price = (await resolved(books, model_id)).price
    assert [(c.meter, c.nanos_per_million) for c in price.components] == [("rows", 7), ("requests", 9)]
