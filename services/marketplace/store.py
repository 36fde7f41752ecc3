"""The tables of the marketplace, one typed method per named query."""

import math
from collections import defaultdict
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from typing import Any

from mercat.event.v1 import event_pb2
from mercat.marketplace.v1 import marketplace_pb2
from mercat.registry.v1 import registry_pb2

from services.common import pricing
from services.common.db import Connection, load_queries
from services.common.latencies import quantile
from services.marketplace.endings import endings_of
from services.marketplace.rating import weighted

Listing = marketplace_pb2.Listing
_KEPT = timedelta(days=90)
EVERYTHING = ""  # among the changes, in the place of a model


class Store:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.marketplace")

    async def put_listing(self, c: Connection, listing: Listing, meaning: bytes, now: datetime) -> None:
        """Writes all of a listing but its statistics, which stay as they are."""
        model = listing.model.model
        document = listing.SerializeToString(deterministic=True)
        await self._q.put_listing(c, model=model, document=document, meaning=meaning, now=now)
        await self.count_reviews(c, model)

    async def rename_listing(self, c: Connection, from_model: str, to_model: str) -> None:
        """Takes along what was measured, said of it and made with it."""
        await self._q.rename_listing(c, from_model=from_model, to_model=to_model)
        await self.note_change(c, from_model)

    async def remove_listing(self, c: Connection, model: str) -> None:
        await self._q.remove_listing(c, model=model)

    async def lock_listing(self, c: Connection, model: str) -> Listing | None:
        """Until the transaction ends, nobody else changes it or what its reviews add up to."""
        row = await self._q.lock_listing(c, model=model)
        return listing_of(row) if row else None

    async def count_reviews(self, c: Connection, model: str) -> None:
        """Makes what a listing says of its reviews from them. The listing is locked."""
        await self._q.count_reviews(c, model=model)
        await self.note_change(c, model)

    async def note_change(self, c: Connection, model: str) -> None:
        """Every process takes the listing over into its index once this transaction has committed."""
        await self._q.note_change(c, model=model)

    async def note_changes_of(self, c: Connection, publisher: str) -> None:
        """As `note_change`, of all models of a publisher."""
        await self._q.note_changes_of(c, publisher=publisher)

    async def note_everything(self, c: Connection) -> None:
        """Every process makes its index anew once this transaction has committed."""
        await self.note_change(c, EVERYTHING)

    async def horizon(self, c: Connection) -> str:
        """Changes of transactions that end from now on are found from here on."""
        return str(await self._q.horizon(c))

    async def list_changes(self, c: Connection, since: str) -> dict[str, str]:
        """The transaction that changed each model last."""
        return {r["model"]: r["changed_by"] async for r in self._q.list_changes(c, since=since)}

    async def count_calls(self, c: Connection, models: Iterable[event_pb2.UsageStored.Model], day: date) -> None:
        counted = sorted(models, key=lambda m: m.model)
        await self._q.count_calls(
            c, models=[m.model for m in counted], calls=[m.calls for m in counted],
            latencies=[m.latency_us_sum for m in counted],
        )  # fmt: skip
        rows = [(m.model, bucket, calls) for m in counted for bucket, calls in sorted(m.latencies.items())]
        if rows:
            names, buckets, calls = zip(*rows, strict=True)
            await self._q.count_latencies(c, day=day, models=names, buckets=buckets, calls=calls)

    async def refresh_latencies(self, c: Connection, seconds: float, today: date, *, every: bool) -> list[str]:
        """Makes what listings say of the last 30 days from the counts: of models that were called within so many
        seconds, or of all. Answers which they were."""
        models = [r["model"] async for r in self._q.list_counted(c, seconds=seconds, every=every)]
        counts: dict[str, dict[int, int]] = defaultdict(dict)
        weeks: dict[str, tuple[int, int]] = defaultdict(lambda: (0, 0))
        async for r in self._q.get_latencies(c, models=models, today=today):
            counts[r["model"]][r["bucket"]] = r["calls"]
            week, before = weeks[r["model"]]
            weeks[r["model"]] = week + r["week"], before + r["before"]
        await self._q.put_latencies(
            c, models=models, requests=[sum(counts[m].values()) for m in models],
            p50=[quantile(counts[m], 0.5) for m in models], p95=[quantile(counts[m], 0.95) for m in models],
            trends=[trend(*weeks[m]) for m in models],
        )  # fmt: skip
        if every:
            await self._q.forget_latencies(c, before=today - _KEPT)
        return models

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

    async def put_publications(self, c: Connection, model: str, versions: Sequence[registry_pb2.Version]) -> None:
        """The published versions of a listed model, and no others."""
        names = [v.version for v in versions]
        await self._q.forget_publications(c, model=model, versions=names)
        await self._q.add_publications(
            c, model=model, publisher=model.partition("/")[0], versions=names, ids=[v.version_id for v in versions],
            times=[v.published_at.ToDatetime(UTC) for v in versions],
        )  # fmt: skip

    async def put_endings(
        self, c: Connection, model: str, versions: Sequence[registry_pb2.Version], now: datetime
    ) -> None:
        """What ended of these versions, and no more of them. What is said anew counts from `now` on."""
        found = [ending for version in versions for ending in endings_of(version)]
        ids, kinds = [e.version_id for e in found], [e.kind for e in found]
        await self._q.forget_other_endings(c, seen=[v.version_id for v in versions], ids=ids, kinds=kinds)
        await self._q.add_endings(
            c, model=model, publisher=model.partition("/")[0], ids=ids, kinds=kinds,
            versions=[e.version for e in found], times=[e.at for e in found], sunsets=[e.sunset_at for e in found],
            successors=[e.successor for e in found], reasons=[e.reason for e in found], now=now,
        )  # fmt: skip

    async def forget_endings(self, c: Connection, model: str) -> None:
        await self._q.forget_endings(c, model=model)

    async def known_models(self, c: Connection) -> list[str]:
        """Those that are listed, and those of which something ended."""
        return [r["model"] async for r in self._q.known_models(c)]

    async def begin_change(self, c: Connection) -> None:
        """Before a listing is composed anew: whoever calls `await_changes` then waits for this transaction."""
        await self._q.begin_change(c)

    async def await_changes(self, c: Connection) -> None:
        """What is read after this has every change that had begun."""
        await self._q.await_changes(c)

    # Embeddings

    async def list_unembedded(self, c: Connection, encoder: str, most: int) -> list[tuple[Listing, bytes]]:
        """Listings whose text has no vector of this encoder, with the digest of the text."""
        rows = [r async for r in self._q.list_unembedded(c, encoder=encoder, most=most)]
        return [(Listing.FromString(r["document"]), r["meaning"]) for r in rows]

    async def put_embedding(
        self, c: Connection, model: str, encoder: str, meaning: bytes, vector: Iterable[float]
    ) -> None:
        await self._q.put_embedding(c, model=model, encoder=encoder, meaning=meaning, vector=_vector(vector))

    async def nearest(
        self, c: Connection, vector: Iterable[float], encoder: str, likeness: float, most: int
    ) -> list[str]:
        """Models whose texts mean nearly the same, the nearest first, down to a cosine. In a transaction."""
        await self._q.search_widely(c, most=str(2 * most))
        rows = self._q.nearest(c, vector=_vector(vector), encoder=encoder, likeness=likeness, most=most)
        return [r["model"] async for r in rows]

    async def nearest_to(self, c: Connection, model: str, likeness: float, most: int) -> list[str]:
        """As `nearest`, to a model's own text."""
        await self._q.search_widely(c, most=str(2 * most))
        return [r["model"] async for r in self._q.nearest_to(c, model=model, likeness=likeness, most=most)]

    async def is_embedded(self, c: Connection, model: str, encoder: str) -> bool:
        return bool(await self._q.is_embedded(c, model=model, encoder=encoder))


def _vector(values: Iterable[float]) -> str:
    """As pgvector writes it."""
    return "[" + ",".join(f"{v:.7g}" for v in values) + "]"


def trend(week: int, before: int) -> float:
    """How much more calls there are of a week than of the one before, by the noise of counting them (the square root of
    a Poisson count); 0 when they did not rise."""
    return max(0.0, (week - before) / math.sqrt(before + 1))


def listing_of(row: Mapping[str, Any]) -> Listing:
    listing = Listing.FromString(row["document"])
    listing.free_to_try = pricing.read(listing.price).free_to_try
    listing.total_requests = row["total_requests"]
    if row["total_requests"]:
        listing.mean_latency_us = row["latency_us_sum"] // row["total_requests"]
    listing.recent_requests, listing.p50_latency_us = row["recent_requests"], row["p50_us"]
    listing.trend = row["trend"]
    listing.p95_latency_us, listing.review_count = row["p95_us"], row["review_count"]
    listing.weighted_rating = weighted(row["rating_sum"], row["review_count"])
    if row["review_count"]:
        listing.rating = row["rating_sum"] / row["review_count"]
    listing.publisher.publisher = row["model"].partition("/")[0]
    listing.publisher.display_name = row["publisher_name"] or ""
    listing.publisher.verified = bool(row["publisher_verified"])
    return listing
