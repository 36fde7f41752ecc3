"""Prices over time and discounts, for publishers and buyers."""

from datetime import UTC, datetime

from mercat.billing.v1 import billing_pb2, prices_pb2, prices_pb2_grpc
from mercat.event.v1 import event_pb2

from services.billing.ledger import CURRENCY
from services.billing.models import Models
from services.billing.prices.store import PriceStore, discount_of, price_of
from services.billing.store import Store
from services.common import audit, ids, outbox, pages, pricing
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import (
    FailedPrecondition,
    InvalidArgument,
    InvalidFields,
    NotFound,
    Violation,
)
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context, caller

_MOST_DISCOUNTS = 1000  # of a publisher: every worker that runs one of its models knows them all


class CurrencyUnsupported(InvalidArgument, reason="CURRENCY_UNSUPPORTED"):
    """There are no prices in this currency."""


class DiscountsFull(FailedPrecondition, reason="DISCOUNTS_FULL"):
    """The publisher gives as many discounts as it may."""


class DiscountNotFound(NotFound, reason="DISCOUNT_NOT_FOUND"): ...


class PriceServicer(prices_pb2_grpc.PriceServiceServicer):
    """Serves `mercat.billing.v1.PriceService`, and what of `BillingService` is about prices."""

    def __init__(
        self, database: Database, store: Store, prices: PriceStore, control: InternalChannel, clock: Clock
    ) -> None:
        self._database = database
        self._store = store
        self._prices = prices
        self._models = Models(control)
        self._clock = clock

    async def set_model_price(self, request: billing_pb2.SetModelPriceRequest) -> billing_pb2.SetModelPriceResponse:
        """Raises InvalidFields, CurrencyUnsupported, ModelNotFound."""
        if wrong := [Violation(field, text) for field, text in pricing.mistakes(request.components)]:
            raise InvalidFields(violations=wrong)
        if request.currency not in ("", CURRENCY):
            text = f"prices are in {CURRENCY}, not in {request.currency}"
            raise CurrencyUnsupported(text, violations=[Violation("currency", f"must be {CURRENCY}")])
        asked = _asked(request, self._clock.now())
        owner = await self._models.own(request.model)
        price = billing_pb2.Price(
            price_id=ids.new("prc"), model_id=owner.model_id, model=owner.model, currency=CURRENCY,
            components=request.components, minimum_nanos=request.minimum_nanos,
        )  # fmt: skip
        audit.about("price", price.price_id)
        async with self._database.transaction() as connection:
            await self._prices.add_price(connection, price, asked or self._clock.now())
            if asked is not None:
                await self._prices.add_due(connection, price, asked)
            event = event_pb2.PriceChanged(model_id=owner.model_id, model=owner.model, price_id=price.price_id)
            await outbox.add(connection, event)
            made = await self._prices.get_price_by_id(connection, price.price_id)
        return billing_pb2.SetModelPriceResponse(price=made)

    async def get_model_price(self, request: billing_pb2.GetModelPriceRequest) -> billing_pb2.GetModelPriceResponse:
        """Raises ModelNotFound."""
        owner = await self._models.known(request.model)
        async with self._database.connection() as connection:
            price = await self._prices.get_price(connection, owner.model_id, self._clock.now())
        price = price or billing_pb2.Price(model_id=owner.model_id, currency=CURRENCY)
        price.model = owner.model  # of its time it may have another
        return billing_pb2.GetModelPriceResponse(price=price)

    async def ListModelPrices(
        self, request: prices_pb2.ListModelPricesRequest, context: Context
    ) -> prices_pb2.ListModelPricesResponse:
        owner = await self._models.known(request.model)
        key, most = pages.decode(request.page_token, int, str), pages.size(request.page_size)
        before = (datetime.fromtimestamp(int(key[0]) / 1e6, UTC), str(key[1])) if key else None
        async with self._database.connection() as connection:
            rows = await self._prices.list_prices(connection, owner.model_id, before, most + 1)
        response = prices_pb2.ListModelPricesResponse()
        for row in rows[:most]:
            period = response.periods.add(price=price_of(row))
            if row["end_time"] is not None:
                period.end_time.FromDatetime(row["end_time"])
        if len(rows) > most:
            last = response.periods[-1].price
            response.next_page_token = pages.encode([last.effective_at.ToMicroseconds(), last.price_id])
        return response

    async def SetDiscount(
        self, request: prices_pb2.SetDiscountRequest, context: Context
    ) -> prices_pb2.SetDiscountResponse:
        publisher = caller().org_id
        owner = await self._models.own(request.model) if request.model else None
        model = (owner.model_id, owner.model) if owner else ("", "")
        audit.about("discount", request.org_id)
        async with self._database.transaction() as connection:
            if await self._store.get_wallet(connection, request.org_id) is None:  # everybody who signed up has one
                raise NotFound(f"there is no organisation {request.org_id}", reason="ACCOUNT_NOT_FOUND")
            row = await self._prices.put_discount(
                connection, publisher, request.org_id, model, request.discount_ppm, self._clock.now()
            )
            if await self._prices.count_discounts(connection, publisher) > _MOST_DISCOUNTS:
                raise DiscountsFull(f"there are {_MOST_DISCOUNTS:,} discounts, as many as may be; end one first")
            await outbox.add(connection, _changed(publisher, request.org_id))
        return prices_pb2.SetDiscountResponse(discount=discount_of(row))

    async def ListDiscounts(
        self, request: prices_pb2.ListDiscountsRequest, context: Context
    ) -> prices_pb2.ListDiscountsResponse:
        key, most = pages.decode(request.page_token, str, str), pages.size(request.page_size)
        after = [str(part) for part in key] if key else ["", ""]
        async with self._database.connection() as connection:
            rows = await self._prices.list_discounts(connection, caller().org_id, after, most + 1)
        token = pages.encode([rows[most - 1]["org_id"], rows[most - 1]["model_id"]]) if len(rows) > most else ""
        return prices_pb2.ListDiscountsResponse(discounts=map(discount_of, rows[:most]), next_page_token=token)

    async def DeleteDiscount(
        self, request: prices_pb2.DeleteDiscountRequest, context: Context
    ) -> prices_pb2.DeleteDiscountResponse:
        publisher = caller().org_id
        audit.about("discount", request.org_id)
        async with self._database.transaction() as connection:
            row = await self._prices.delete_discount(connection, publisher, request.org_id, request.model)
            if row is None:
                of = f"for {request.model}" if request.model else "for all of your models"
                raise DiscountNotFound(f"you give {request.org_id} no discount {of}")
            await outbox.add(connection, _changed(publisher, request.org_id))
        return prices_pb2.DeleteDiscountResponse()


def _changed(publisher: str, org_id: str) -> event_pb2.DiscountChanged:
    return event_pb2.DiscountChanged(publisher_org_id=publisher, org_id=org_id)


def _asked(request: billing_pb2.SetModelPriceRequest, now: datetime) -> datetime | None:
    """When the price is to take effect; None: at once."""
    if not request.HasField("effective_at"):
        return None
    try:
        asked: datetime = request.effective_at.ToDatetime(UTC)
    except (ValueError, OverflowError):
        asked = datetime.min.replace(tzinfo=UTC)
    if asked < now:
        said = "must be now or later: what was charged stays as it was"
        raise InvalidFields(violations=[Violation("effective_at", said)])
    return asked
