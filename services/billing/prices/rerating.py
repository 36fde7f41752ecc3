"""Rates recorded calls again: price, units and rating of a record must make its cost, however old it is."""

from collections.abc import Iterable

from mercat.usage.v1 import usage_pb2

from services.billing.prices.store import PriceStore
from services.common import pricing
from services.common.db import Database

_KNOWN = 10_000  # prices kept


class Rerating:
    """Looks prices up as they are needed; they never change."""

    def __init__(self, database: Database, prices: PriceStore) -> None:
        self._database = database
        self._prices = prices
        self._known: dict[str, pricing.Price] = {}

    async def mistake(self, call: usage_pb2.UsageRecord) -> str:
        """What is wrong with a recorded cost; empty: nothing."""
        expected = 0
        if call.test:  # moves no money, whatever its record says
            return ""
        if call.price_id:
            if "cache_hits" in call.units and not call.rating.HasField("share_ppm"):
                return ""  # recorded before the share was
            price = await self._price(call.price_id)
            if price is None:
                return f"it names the price {call.price_id}, which there is not"
            try:
                expected = pricing.cost(price, call.units, pricing.rated_of(call.rating))
            except pricing.TooDear:
                return f"its price {call.price_id} makes more than can be charged of it"
        if expected == call.cost_nanos:
            return ""
        return f"its price makes {expected} nanos of it, not {call.cost_nanos}"

    async def asked_of(self, price_ids: Iterable[str]) -> usage_pb2.GroupCallsRequest:
        """What calls are grouped by, to be rated again: of each price that there is what `mistake` needs of units."""
        request = usage_pb2.GroupCallsRequest()
        for price_id in price_ids:
            price = await self._price(price_id) if price_id else None
            if price is not None:
                request.meters[price_id] = " ".join((*(c.meter for c in price.components), "cache_hits"))
                if price.flat is not None:
                    request.flat[price_id].nanos_per_million.update(price.flat)
        return request

    async def _price(self, price_id: str) -> pricing.Price | None:
        known = self._known.get(price_id)
        if known is None:
            async with self._database.connection() as connection:
                found = await self._prices.get_price_by_id(connection, price_id)
            if found is None:
                return None
            if len(self._known) >= _KNOWN:
                self._known.clear()
            known = self._known[price_id] = pricing.read(found)
        return known
