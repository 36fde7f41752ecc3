"""The tables of the marketplace, one typed method per named query."""

from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

from mercat.event.v1 import event_pb2
from mercat.marketplace.v1 import marketplace_pb2

from services.common.db import Connection, load_queries

Listing = marketplace_pb2.Listing


class Store:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.marketplace")

    async def put_listing(self, c: Connection, listing: Listing, now: datetime) -> None:
        """Writes all of a listing but its statistics, which stay as they are."""
        await self._q.put_listing(
            c, model=listing.model.model, document=listing.SerializeToString(deterministic=True), now=now
        )

    async def rename_listing(self, c: Connection, from_model: str, to_model: str) -> None:
        """Takes the statistics along."""
        await self._q.rename_listing(c, from_model=from_model, to_model=to_model)

    async def remove_listing(self, c: Connection, model: str) -> None:
        await self._q.remove_listing(c, model=model)

    async def count_calls(self, c: Connection, models: Iterable[event_pb2.UsageStored.Model]) -> None:
        counted = list(models)
        await self._q.count_calls(
            c, models=[m.model for m in counted], calls=[m.calls for m in counted],
            latencies=[m.latency_us_sum for m in counted],
        )  # fmt: skip

    async def get_listing(self, c: Connection, model: str) -> Listing | None:
        row = await self._q.get_listing(c, model=model)
        return listing_of(row) if row else None

    async def get_listings(self, c: Connection, models: Sequence[str]) -> dict[str, Listing]:
        return {r["model"]: listing_of(r) async for r in self._q.get_listings(c, models=list(models))}

    async def all_listings(self, c: Connection, page: int = 500) -> AsyncIterator[Listing]:
        after = ""
        while True:
            rows = [r async for r in self._q.all_listings(c, after=after, most=page)]
            for row in rows:
                yield listing_of(row)
            if len(rows) < page:
                return
            after = rows[-1]["model"]

    async def begin_change(self, c: Connection) -> None:
        """Before a listing is composed anew: whoever calls `await_changes` then waits for this transaction."""
        await self._q.begin_change(c)

    async def await_changes(self, c: Connection) -> None:
        """What is read after this has every change that had begun."""
        await self._q.await_changes(c)


def listing_of(row: Mapping[str, Any]) -> Listing:
    listing = Listing.FromString(row["document"])
    listing.total_requests = row["total_requests"]
    if row["total_requests"]:
        listing.mean_latency_us = row["latency_us_sum"] // row["total_requests"]
    return listing
