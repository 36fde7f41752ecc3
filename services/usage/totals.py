"""Sums over a time, from what is rolled up and from the records of the rest, in one snapshot of both."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from mercat.usage.v1 import usage_pb2

from services.common.db import Connection
from services.usage.questions import MOST, QueryTooLarge, Question
from services.usage.sources import sources
from services.usage.store import Row, Store


@dataclass
class Total:
    """How many calls counted a meter, and how much."""

    calls: int = 0
    total: int = 0


class Totals:
    """Reads within a connection that is in no transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def by_model(
        self, c: Connection, org_id: str, *, publisher: bool, start: datetime, until: datetime
    ) -> dict[str, dict[str, Total]]:
        """Of every meter, by model."""
        found: dict[str, dict[str, Total]] = {}
        async with c.transaction(isolation="repeatable_read", readonly=True):
            at = await self._store.progress(c)
            for source in sources(start, until, rolled=at.rolled, kept_from=at.kept_from):
                for row in await self._store.sums(c, org_id, source, publisher=publisher):
                    total = found.setdefault(row["model"], {}).setdefault(row["meter"], Total())
                    total.calls += row["calls"]
                    total.total += row["total"]
        return found

    async def calls(self, c: Connection, org_id: str, start: datetime, until: datetime) -> int:
        """How many an organisation made."""
        by_model = await self.by_model(c, org_id, publisher=False, start=start, until=until)
        return sum(meters["latency_us"].calls for meters in by_model.values())  # every call has that

    async def query(self, c: Connection, org_id: str, asked: Question) -> Sequence[Row]:
        """Raises QueryTooLarge."""
        async with c.transaction(isolation="repeatable_read", readonly=True):
            if not asked.rolls_up:
                return _bounded(await self._store.query(c, org_id, asked, MOST + 1))
            at = await self._store.progress(c)
            parts = sources(
                asked.start, asked.until, rolled=at.rolled, kept_from=at.kept_from, days=asked.bucket != "hour"
            )
            points: dict[tuple[datetime | None, str], Row] = {}
            for source in parts:
                for row in _bounded(await self._store.query_source(c, org_id, asked, source, MOST + 1)):
                    key = (row["bucket"], row["model"])
                    before = points.get(key)
                    points[key] = (
                        row if before is None else {**row, "value": asked.merge(before["value"], row["value"])}
                    )
        return sorted(_bounded(list(points.values())), key=_order)


def _order(row: Row) -> tuple[float, int, str]:
    return row["bucket"].timestamp() if row["bucket"] else 0.0, -row["value"], row["model"]


def _bounded(rows: Sequence[Row]) -> Sequence[Row]:
    if len(rows) > MOST:
        raise QueryTooLarge(
            f"the answer has more than {MOST:,} points; ask for a shorter time, a longer bucket or fewer groups"
        )
    return rows


def model_of(name: str, meters: dict[str, Total]) -> usage_pb2.ModelUsage:
    latency, cost = meters["latency_us"], meters["cost_nanos"]
    units = {meter: t.total for meter, t in sorted(meters.items()) if meter not in ("latency_us", "cost_nanos")}
    return usage_pb2.ModelUsage(
        model=name, calls=latency.calls, cost_nanos=cost.total, units=units,
        mean_latency_us=round(latency.total / latency.calls) if latency.calls else 0,
    )  # fmt: skip
