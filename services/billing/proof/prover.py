"""The proof of a time, month by month, or of all there ever was."""

import asyncio
import time
from collections.abc import Coroutine, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, Protocol, TypeVar

from google.protobuf.timestamp_pb2 import Timestamp
from mercat.billing.v1 import proof_pb2
from mercat.usage.v1 import usage_pb2

from services.billing.budgets import periods, spent
from services.billing.budgets.store import BudgetStore
from services.billing.dropped import Moved, differences
from services.billing.proof import postings
from services.billing.proof.calls import ABOUT_CALLS, Calls, Tell, seed
from services.billing.proof.found import LEDGER, USAGE, Effects, Found, Range, months, within
from services.billing.proof.store import ProofStore
from services.billing.proof.sums import Sums
from services.billing.store import snapshot
from services.common import ids
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.months import month_of, next_month
from services.common.spans import BEGINNING

_BALANCES = "adding up balances"
A = TypeVar("A")
B = TypeVar("B")


class Area(Protocol):
    """An area of the books, which proves its rows beside its own store."""

    async def prove(self, c: Connection, span: Range, effects: Effects, found: Found) -> None:
        """Those of a time, in the snapshot of `effects`."""
        ...

    async def prove_all(self, c: Connection, found: Found) -> None:
        """What belongs to no time."""
        ...


class Outside(Protocol):
    """What others keep of the books, such as a payment provider."""

    async def prove(self, span: Range, found: Found, tell: Tell) -> None: ...


@dataclass
class Proof:
    """A proof, and what all accounts of a kind hold together."""

    start: datetime
    end: datetime
    found: Found
    settled: Timestamp
    balances: dict[str, int]
    seconds: float

    def message(self) -> proof_pb2.Proof:
        found = self.found
        proof = proof_pb2.Proof(
            clean=found.clean, sections=found.sections(), discrepancies=found.discrepancies,
            unproven=found.unproven, settled_through=self.settled, took_ms=round(self.seconds * 1000),
        )  # fmt: skip
        proof.start_time.FromDatetime(self.start)
        proof.end_time.FromDatetime(self.end)
        return proof


class Prover:
    """Reads the books, usage and what others keep; changes none of them. One proof at a time."""

    def __init__(
        self, database: Database, store: ProofStore, calls: Calls, areas: Sequence[Area], outside: Sequence[Outside],
        budgets: BudgetStore, clock: Clock,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._calls = calls
        self._areas = areas
        self._outside = outside
        self._budgets = budgets
        self._clock = clock
        self._one = asyncio.Lock()

    async def prove(self, start: datetime, end: datetime, tell: Tell) -> Proof:
        """What was begun, by its id, from one instant until just before another."""
        return await self._prove([within(*month) for month in months(start, end)], start, end, tell, self._outside)

    async def prove_all(self, tell: Tell) -> Proof:
        """All there ever was, but for what others keep: they are asked month by month."""
        start, end = await self._first(), self._clock.now() + timedelta(days=1)
        spans = [within(*month) for month in months(start, end)]
        spans[0] = spans[0]._replace(after="")
        spans[-1] = spans[-1]._replace(until=within(start, end, whole=True).until)
        return await self._prove(spans, start, end, tell)

    async def _first(self) -> datetime:
        """The start of the month in which anything was begun first."""
        known = [month_of(self._clock.now())]
        async with self._database.connection() as connection:
            posting = await self._store.first_posting(connection, within(BEGINNING, BEGINNING, whole=True))
        if posting is not None:
            made = f"pst_{posting[:26]}"
            known.append(month_of(ids.timestamp(made)) if ids.is_id("pst", made) else BEGINNING)
        dropped = await self._calls.dropped()
        known += [month_of(s.month.ToDatetime(UTC)) for s in dropped.sums]
        if dropped.HasField("first_time"):
            known.append(month_of(dropped.first_time.ToDatetime(UTC)))
        return max(min(known), BEGINNING)

    async def _prove(
        self, spans: Sequence[Range], start: datetime, end: datetime, tell: Tell, outside: Sequence[Outside] = ()
    ) -> Proof:
        tell("waiting for another proof" if self._one.locked() else "beginning", 0)
        async with self._one:
            began = time.monotonic()
            while True:
                found, unmatched, dropped = Found(), set[str](), await self._calls.dropped()
                for span in spans:
                    unmatched |= await self._month(span, dropped, found, tell)
                    for other in outside:
                        await other.prove(span, found, tell)
                if (await self._calls.dropped()).kept_from == dropped.kept_from:
                    break  # else a month was dropped meanwhile, whose records were missed
            tell(_BALANCES, 0)
            since = spent.since(self._clock.now())
            balances, before = await _both(self._derived(found), self._calls.spending(periods.midnight(since)))
            settled = await self._settle(since, before, unmatched, found, tell)
            return Proof(start, end, found, settled, balances, time.monotonic() - began)

    async def _derived(self, found: Found) -> dict[str, int]:
        async with self._database.apart() as connection:
            balances = await self._store.trial_balance(connection)
            for area in self._areas:
                await area.prove_all(connection, found)
        return balances

    async def _month(
        self, span: Range, dropped: usage_pb2.SumDroppedUsageResponse, found: Found, tell: Tell
    ) -> set[str]:
        """Calls of a month, or of a part of it, that had no counterpart."""
        kept = span.start >= dropped.kept_from.ToDatetime(UTC)
        drawn, posted, effects = seed(), Sums(), Effects()
        counting = asyncio.create_task(self._calls.sum(span, drawn, found, tell)) if kept else None
        try:
            async with self._database.apart() as connection:
                await self._postings(connection, span, drawn, posted, effects, found, tell)
                for area in self._areas:
                    await area.prove(connection, span, effects, found)
                if counting is None:
                    await self._dropped(connection, span, dropped, found)
            for cause in sorted(effects.unexplained()):
                text = f"nothing of the name {cause} ever happened"
                found.add(LEDGER, "POSTING_UNEXPLAINED", effects.posting_ids[cause], text)
            unmatched: set[str] = set()
            if counting is not None:
                recorded, price_ids = await counting
                unmatched = await self._calls.walk(posted.unlike(recorded), span, found, tell)
                request = await self._calls.asked_of(price_ids)
                if (middle := recorded.middle()) is None or not span.start < middle < span.end:
                    await self._calls.rate(span, request, found, tell)
                else:
                    halves = span._replace(end=middle), span._replace(start=middle)
                    await _both(*(self._calls.rate(half, request, found, tell) for half in halves))
        finally:
            if counting is not None:
                counting.cancel()
        return unmatched

    async def _postings(
        self, c: Connection, span: Range, drawn: int, posted: Sums, effects: Effects, found: Found, tell: Tell
    ) -> None:
        """Two parts of the ledger at a time, in one snapshot."""
        parts = await self._store.parts(c, span)
        left = iter(parts)

        async def work(connection: Connection) -> None:
            for part in left:
                read = await postings.prove(connection, self._store, part, drawn, posted, effects, found)
                tell("counting postings", read)

        async def beside(snapshot: str) -> None:
            async with self._database.apart(snapshot) as connection:
                await work(connection)

        if len(parts) == 1:
            await work(c)
        else:
            await _both(work(c), beside(await c.fetchval("SELECT pg_export_snapshot()")))

    async def _dropped(
        self, c: Connection, span: Range, dropped: usage_pb2.SumDroppedUsageResponse, found: Found
    ) -> None:
        """Of a month whose records are not kept, what its calls cost together."""
        if span.start != month_of(span.start) or span.end < next_month(span.start):
            return
        month = span.start
        moved: Moved = {(month, account): n for account, n in (await self._store.moved_by_calls(c, span)).items()}
        sums = [s for s in dropped.sums if s.month.ToDatetime(UTC) == month]
        found.count(USAGE, "calls of dropped months", 0, sum(s.cost_nanos for s in sums))
        for org_id, text in differences(moved, sums):
            found.add(USAGE, "MONTH_DIFFERS", org_id, text)

    async def _settle(
        self, since: date, before: usage_pb2.SumSpendingResponse, unmatched: set[str], found: Found, tell: Tell
    ) -> Timestamp:
        """What can be judged only when all that is recorded is posted. `before`: what had been recorded by now of what
        was spent since a day."""
        tell("waiting until all is posted", 0)
        now = self._clock.now()
        settled, posted_before = await self._calls.settle()
        await self._calls.look_again(unmatched, posted_before, found)
        async with self._database.connection() as connection, snapshot(connection):
            known, table, changed = await self._budgets.spending(connection, since)
        compared = spent.Spent(known, table, changed, before if posted_before >= now else None)
        if (org_ids := compared.unlike()) and not ABOUT_CALLS & {d.code for d in found.discrepancies}:
            # Or the sums would only repeat what the calls said.
            for subject, text in compared.differences(await self._calls.spending(periods.midnight(since), org_ids)):
                found.add(USAGE, "SPENDING_DIFFERS", subject, text)
        return settled


async def _both(one: Coroutine[Any, Any, A], other: Coroutine[Any, Any, B]) -> tuple[A, B]:
    """Two questions at a time, one for each processor of a small machine. Raises what the first that failed did."""
    try:
        async with asyncio.TaskGroup() as group:
            tasks = group.create_task(one), group.create_task(other)
    except ExceptionGroup as e:
        raise e.exceptions[0] from None
    return tasks[0].result(), tasks[1].result()
