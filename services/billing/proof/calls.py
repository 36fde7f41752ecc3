"""Compares the recorded calls of a time with their postings: sums first, and row by row where those are unlike."""

import asyncio
import secrets
from collections.abc import AsyncIterator, Callable, Iterable
from datetime import UTC, datetime, timedelta

from google.protobuf.timestamp_pb2 import Timestamp
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc

from services.billing import ledger
from services.billing.prices.rerating import Rerating
from services.billing.proof.found import USAGE, Found, Range, entries_of
from services.billing.proof.store import ProofStore
from services.billing.proof.sums import Sums, pages, time_of
from services.billing.store import Row, Store
from services.common.clock import Clock
from services.common.db import Database
from services.common.rpc.channels import InternalChannel

UNDER_WAY = timedelta(minutes=5)  # the most from a call's arrival until its record is in the stream, and more
ABOUT_CALLS = {"USAGE_MISSING", "POSTING_MISSING", "COST_DIFFERS", "PARTIES_DIFFER", "CORRECTION_DIFFERS"}
_CATCH_UP = 15.0  # seconds to wait for calls that are just being posted
_LOOKED_UP = 10_000  # calls asked for at a time
_ENOUGH = 100_000  # calls without a counterpart that are looked at again

Record = usage_pb2.UsageRecord
Tell = Callable[[str, int], None]  # what is being done, and how many rows that read


class Calls:
    """Usage as billing sees it, over its RPCs."""

    def __init__(
        self, database: Database, books: Store, store: ProofStore, rerating: Rerating, control: InternalChannel,
        clock: Clock,
    ) -> None:  # fmt: skip
        self._database = database
        self._books = books
        self._store = store
        self._rerating = rerating
        self._usage = usage_pb2_grpc.SettlementServiceStub(control)
        self._clock = clock

    async def dropped(self) -> usage_pb2.SumDroppedUsageResponse:
        return await self._usage.SumDroppedUsage(usage_pb2.SumDroppedUsageRequest(), timeout=60)

    async def sum(self, span: Range, seed: int, found: Found, tell: Tell) -> tuple[Sums, set[str]]:
        """What usage says the calls of a time come to, and by which prices."""
        sums, prices, request = Sums(), set[str](), usage_pb2.SumCallsRequest(seed=seed)
        _set(request, span)
        async for part in self._usage.SumCalls(request):
            for s in part.sums:
                sums.add(s.digits, s.calls, s.cost_nanos, s.checksum)
                found.count(USAGE, "calls", s.calls, s.cost_nanos)
            found.count(USAGE, "records", part.records)
            prices.update(part.price_ids)
            tell("counting calls", part.records)
        return sums, prices

    async def asked_of(self, price_ids: Iterable[str]) -> usage_pb2.GroupCallsRequest:
        return await self._rerating.asked_of(price_ids)

    async def rate(self, span: Range, asked: usage_pb2.GroupCallsRequest, found: Found, tell: Tell) -> None:
        """Rates the calls of a time again; those that must cost the same, together."""
        request = usage_pb2.GroupCallsRequest()
        request.CopyFrom(asked)
        _set(request, span)
        async for page in self._usage.GroupCalls(request):
            for group in page.groups:
                if group.call.status_code and group.call.cost_nanos:
                    text = f"a call that failed with {group.call.status_code} cost {group.call.cost_nanos} nanos"
                    found.add(USAGE, "FAILED_CALL_CHARGED", group.call.request_id, text, group.calls)
                if mistake := await self._rerating.mistake(group.call):
                    more = f", and so of {group.calls - 1} more calls" if group.calls > 1 else ""
                    found.add(USAGE, "RATING_DIFFERS", group.call.request_id, mistake + more, group.calls)
            rated = page.exact + sum(g.calls for g in page.groups)
            found.count(USAGE, "rated", rated)
            tell("rating calls again", rated)

    async def walk(self, digits: Iterable[str], span: Range, found: Found, tell: Tell) -> set[str]:
        """Compares the calls whose ids begin with some digits; answers those that only one of usage and ledger has:
        perhaps just on their way from one to the other."""
        unmatched: set[str] = set()
        for one in digits:
            if found.full:
                break
            if len(unmatched) > _ENOUGH:
                found.unproven.append(f"calls whose ids begin with {one} or later: too many before have no counterpart")
                break
            async with self._database.connection() as connection:
                postings = await self._store.postings_of_calls(connection, one)
                strays = [cause for cause, row in postings.items() if row["account_ids"] is None]
                postings |= await self._books.postings_of(connection, strays)
            # Of a part that begins or ends with the time, only what lies within it.
            cut = one in (span.after[: len(one)], span.until[: len(one)])
            calls = {c.request_id: c async for c in self._paid(one)}
            for name in sorted(postings.keys() | calls.keys()):
                if cut and not span.holds(name):
                    continue
                posting, call = postings.get(name), calls.get(name)
                if posting is None or call is None:
                    unmatched.add(name)
                else:
                    compare(posting, call, found)
            tell("comparing call by call", len(postings) + len(calls))
        return unmatched

    async def _paid(self, digits: str) -> AsyncIterator[Record]:
        """The calls and corrections that moved money, of those whose ids begin so."""
        time = time_of(digits)
        if time is None:
            return
        request = usage_pb2.ExportUsageRequest()
        request.start_time.FromDatetime(time[0])
        request.end_time.FromDatetime(time[1])
        async for page in self._usage.ExportUsage(request):
            for record in page.records:
                if record.cost_nanos and not record.test:
                    yield record

    async def settle(self) -> tuple[Timestamp, datetime]:
        """Waits a while until all that is recorded by now is posted. Answers the watermark, and before which instant
        calls must have arrived to be posted for certain."""
        now = Timestamp()
        now.FromDatetime(self._clock.now())
        until = asyncio.get_running_loop().time() + _CATCH_UP
        while True:
            settled = (await self._usage.GetWatermark(usage_pb2.GetWatermarkRequest())).settled_through
            caught_up = settled.ToNanoseconds() >= now.ToNanoseconds()
            if caught_up or asyncio.get_running_loop().time() > until:
                break
            await asyncio.sleep(0.1)
        # With a backlog, a call that is not posted yet is no discrepancy. The watermark counts from when its record
        # reached the stream, and the call from when it arrived.
        return settled, now.ToDatetime(UTC) if caught_up else settled.ToDatetime(UTC) - UNDER_WAY

    async def look_again(self, unmatched: Iterable[str], posted_before: datetime, found: Found) -> None:
        """At what had no counterpart, once everything recorded until then is posted."""
        for names in pages(sorted(unmatched), _LOOKED_UP):
            request = usage_pb2.ExportUsageRequest(request_ids=names)
            recorded = {r.request_id: r async for page in self._usage.ExportUsage(request) for r in page.records}
            async with self._database.connection() as connection:
                posted = await self._books.postings_of(connection, names)
            for name in names:
                self._judge(name, recorded.get(name), posted.get(name), posted_before, found)

    def _judge(
        self, name: str, call: Record | None, posting: Row | None, posted_before: datetime, found: Found
    ) -> None:
        if call is not None and posting is not None:
            compare(posting, call, found)
        elif posting is not None:
            # Usage is told of a correction when it is posted.
            if not (name.startswith("cor_") and posting["created_at"] > posted_before - UNDER_WAY):
                text = "the ledger has a posting for a call that usage does not know"
                found.add(USAGE, "USAGE_MISSING", name, text)
        elif call is not None and call.timestamp.ToDatetime(UTC) < posted_before:
            text = f"a call of {call.cost_nanos} nanos was recorded but not posted"
            found.add(USAGE, "POSTING_MISSING", name, text)

    async def spending(self, since: datetime, org_ids: Iterable[str] = ()) -> usage_pb2.SumSpendingResponse:
        """What calls cost since a day, by organisation, day, key and model."""
        request = usage_pb2.SumSpendingRequest(org_ids=org_ids)
        request.start_time.FromDatetime(since)
        return await self._usage.SumSpending(request, timeout=600)


def seed() -> int:
    """Of checksums: nobody knew it when a row was written."""
    return secrets.randbits(63)


def compare(posting: Row, call: Record, found: Found) -> None:
    """Names a posting that is not what a recorded call or correction says."""
    cost, entries = 0 if call.test else call.cost_nanos, entries_of(posting)
    if call.corrects:
        if not ledger.corrects(entries, call.org_id, call.publisher_org_id, cost):
            text = f"the posting is not one of {call.org_id} paying {call.publisher_org_id} {cost} nanos more"
            found.add(USAGE, "CORRECTION_DIFFERS", call.request_id, text)
        return
    moved = -sum(amount for _, amount in entries if amount < 0)
    if moved != cost:
        text = f"usage says {cost} nanos, the posting moved {moved}"
        found.add(USAGE, "COST_DIFFERS", call.request_id, text)
    elif not ledger.charges(entries, call.org_id, call.publisher_org_id, cost):
        text = f"the posting is not one of {call.org_id} paying {call.publisher_org_id} {cost} nanos"
        found.add(USAGE, "PARTIES_DIFFER", call.request_id, text)


def _set(request: usage_pb2.SumCallsRequest | usage_pb2.GroupCallsRequest, span: Range) -> None:
    request.start_time.FromDatetime(span.start)
    request.end_time.FromDatetime(span.end)
