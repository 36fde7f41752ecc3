"""The tables of prices and discounts, one typed method per named query."""

import json
from collections.abc import Sequence
from datetime import datetime

from google.protobuf import json_format
from mercat.billing.v1 import billing_pb2, prices_pb2

from services.billing.store import Row
from services.common.db import Connection, load_queries

UPCOMING = 10  # prices to come that a worker is told


def price_of(row: Row) -> billing_pb2.Price:
    price = billing_pb2.Price(
        price_id=row["id"], model_id=row["model_id"], model=row["model"], currency=row["currency"],
        components=[_component(c) for c in json.loads(row["components"])], minimum_nanos=row["minimum_nanos"],
    )  # fmt: skip
    price.effective_at.FromDatetime(row["effective_at"])
    return price


def _component(stored: object) -> billing_pb2.PriceComponent:
    if isinstance(stored, list):
        meter, nanos = stored
        return billing_pb2.PriceComponent(meter=meter, nanos_per_million=nanos)
    return json_format.ParseDict(stored, billing_pb2.PriceComponent())  # type: ignore[arg-type]


def discount_of(row: Row) -> prices_pb2.Discount:
    discount = prices_pb2.Discount(org_id=row["org_id"], model=row["model"], discount_ppm=row["discount_ppm"])
    discount.updated_at.FromDatetime(row["updated_at"])
    return discount


class PriceStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.billing.prices")

    async def add_price(self, c: Connection, price: billing_pb2.Price, effective_at: datetime) -> None:
        components = [json_format.MessageToDict(x, preserving_proto_field_name=True) for x in price.components]
        await self._q.add_price(
            c, id=price.price_id, model_id=price.model_id, model=price.model, currency=price.currency,
            components=json.dumps(components), minimum_nanos=price.minimum_nanos, effective_at=effective_at,
        )  # fmt: skip

    async def add_due(self, c: Connection, price: billing_pb2.Price, effective_at: datetime) -> None:
        """Remembers a price until it takes effect."""
        await self._q.add_due(
            c, price_id=price.price_id, model_id=price.model_id, model=price.model, effective_at=effective_at
        )

    async def take_due(self, c: Connection, now: datetime) -> list[Row]:
        """Those that took effect since they were last asked for; nobody else gets them."""
        return [r async for r in self._q.take_due(c, now=now)]

    async def get_price(self, c: Connection, model_id: str, at: datetime) -> billing_pb2.Price | None:
        """The one in effect at a time."""
        row: Row | None = await self._q.get_price(c, model_id=model_id, at=at)
        return price_of(row) if row else None

    async def get_price_by_id(self, c: Connection, price_id: str) -> billing_pb2.Price | None:
        row: Row | None = await self._q.get_price_by_id(c, id=price_id)
        return price_of(row) if row else None

    async def upcoming_prices(self, c: Connection, model_id: str, after: datetime) -> list[billing_pb2.Price]:
        """Those that take effect next, in order."""
        rows = self._q.upcoming_prices(c, model_id=model_id, after=after, most=UPCOMING)
        return [price_of(r) async for r in rows]

    async def list_prices(
        self, c: Connection, model_id: str, before: tuple[datetime, str] | None, most: int
    ) -> list[Row]:
        """With `end_time`; the last to take effect first, from before one of a moment and an id on."""
        at, price_id = before or (None, "")
        return [r async for r in self._q.list_prices(c, model_id=model_id, before_at=at, before_id=price_id, most=most)]

    async def put_discount(
        self, c: Connection, publisher_org_id: str, org_id: str, model: tuple[str, str], ppm: int, now: datetime
    ) -> Row:
        """`model`: its id and its name, both empty for all of the publisher's."""
        row: Row = await self._q.put_discount(
            c, publisher_org_id=publisher_org_id, org_id=org_id, model_id=model[0], model=model[1], discount_ppm=ppm,
            now=now,
        )  # fmt: skip
        return row

    async def count_discounts(self, c: Connection, publisher_org_id: str) -> int:
        return int(await self._q.count_discounts(c, publisher_org_id=publisher_org_id))

    async def list_discounts(self, c: Connection, publisher_org_id: str, after: Sequence[str], most: int) -> list[Row]:
        """In order, those after one of an organisation and a model id."""
        rows = self._q.list_discounts(
            c, publisher_org_id=publisher_org_id, after_org_id=after[0], after_model_id=after[1], most=most
        )
        return [r async for r in rows]

    async def delete_discount(self, c: Connection, publisher_org_id: str, org_id: str, model: str) -> Row | None:
        row: Row | None = await self._q.delete_discount(
            c, publisher_org_id=publisher_org_id, org_id=org_id, model=model
        )
        return row

    async def discounts_of(self, c: Connection, publisher_org_id: str, model_id: str) -> dict[str, int]:
        """What is taken off for a model, millionths, by organisation."""
        rows = self._q.discounts_of(c, publisher_org_id=publisher_org_id, model_id=model_id)
        return {r["org_id"]: r["discount_ppm"] async for r in rows}
