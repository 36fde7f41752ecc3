"""CorrectUsage: the correction, its posting, what becomes of credit, budgets and invoices by it, and the news of it in
one transaction."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from mercat.billing.v1 import corrections_pb2, corrections_pb2_grpc
from mercat.event.v1 import event_pb2
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc

from services.billing import ledger
from services.billing.budgets.spent import counts_as
from services.billing.corrections import amounts
from services.billing.corrections.amounts import State
from services.billing.corrections.following import Following
from services.billing.credits.store import CreditStore
from services.billing.ledger import FEE, PLATFORM
from services.billing.prices.store import PriceStore
from services.billing.store import Row, Store
from services.billing.subscriptions.store import SubscriptionStore
from services.common import audit, ids, outbox, pricing
from services.common.clock import Clock
from services.common.db import Connection, Database, load_queries
from services.common.errors import FailedPrecondition, InvalidFields, UsageRecordNotFound, Violation
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context, caller

Request = corrections_pb2.CorrectUsageRequest
Response = corrections_pb2.CorrectUsageResponse


class CallNotPosted(FailedPrecondition, reason="CALL_NOT_POSTED"):
    """The call is recorded and on its way to the books."""


class CallRefunded(FailedPrecondition, reason="CALL_REFUNDED"):
    """All that the call cost was given back."""


class CorrectionServicer(corrections_pb2_grpc.CorrectionServiceServicer):
    """Serves `mercat.billing.v1.CorrectionService`."""

    def __init__(
        self, database: Database, store: Store, prices: PriceStore, subscriptions: SubscriptionStore,
        credit: CreditStore, following: Following, control: InternalChannel, clock: Clock, fee_ppm: int,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._prices = prices
        self._subscriptions = subscriptions
        self._credit = credit
        self._following = following
        self._q = load_queries("services.billing.corrections")
        self._usage = usage_pb2_grpc.SettlementServiceStub(control)
        self._clock = clock
        self._fee_ppm = fee_ppm

    async def CorrectUsage(self, request: Request, context: Context) -> Response:
        if request.void == bool(request.units):
            raise InvalidFields(violations=[Violation("units", "give either `units` or `void`")])
        call = await self._call(request.request_id)
        audit.about("usage_record", call.request_id)
        async with self._database.transaction() as connection:
            price = await self._price(connection, call)
            if unknown := sorted(set(request.units) - set(call.units) - {c.meter for c in price.components}):
                text = "neither the call nor its price has such a meter"
                raise InvalidFields(violations=[Violation(f"units[{meter!r}]", text) for meter in unknown])
            # Behind this lock corrections of one call come one after the other.
            await self._store.lock_or_open_wallets(connection, [call.org_id])
            if await self._q.is_refunded(connection, request_id=call.request_id):
                raise CallRefunded("the call was refunded: nothing of it is left to correct")
            earlier = [r async for r in self._q.get_corrections(connection, request_id=call.request_id)]
            first, share = await self._first(connection, call, earlier)
            before = first
            if earlier:
                fee = first.fee + sum(r["fee_change"] for r in earlier)
                before = State(json.loads(earlier[-1]["units"]), earlier[-1]["cost"], fee)
            units = dict.fromkeys(before.units, 0) if request.void else {**before.units, **request.units}
            try:
                priced = amounts.cost_of(price, pricing.rated_of(call.rating), call.units, call.cost_nanos, units)
            except pricing.TooDear:
                raise InvalidFields(violations=[Violation("units", "cost more than can be written")]) from None
            cost = 0 if call.test else priced
            after = State(units, cost, amounts.fee_of(cost, share, await self._fee(connection, call)))
            if amounts.difference(before.units, after.units):
                await self._correct(connection, call, len(earlier) + 1, before, after, request.reason)
            elif not earlier:
                raise InvalidFields(violations=[Violation("units", "is what was recorded")])
            corrections = [r async for r in self._q.get_corrections(connection, request_id=call.request_id)]
        previous = json.loads(corrections[-2]["units"]) if len(corrections) > 1 else call.units
        newest = corrections[-1]
        correction = usage_pb2.UsageCorrection(
            correction_id=newest["id"], units=amounts.difference(previous, json.loads(newest["units"])),
            cost_nanos=newest["cost_change"], reason=newest["reason"],
        )  # fmt: skip
        correction.create_time.FromDatetime(newest["created_at"])
        return Response(correction=correction, units=after.units, cost_nanos=after.cost)

    async def _call(self, request_id: str) -> usage_pb2.UsageRecord:
        if ids.is_id("req", request_id):
            async for page in self._usage.ExportUsage(usage_pb2.ExportUsageRequest(request_ids=[request_id])):
                for record in page.records:
                    return record
        raise UsageRecordNotFound("no such call is recorded, or its record is not kept any more")

    async def _price(self, c: Connection, call: usage_pb2.UsageRecord) -> pricing.Price:
        price = await self._prices.get_price_by_id(c, call.price_id) if call.price_id else None
        return pricing.read(price) if price else pricing.Price()

    async def _fee(self, c: Connection, call: usage_pb2.UsageRecord) -> int:
        """The platform's share of the publisher's calls today, millionths."""
        fees = await self._subscriptions.fees_of(c, [call.publisher_org_id])
        return fees.get(call.publisher_org_id, self._fee_ppm)

    async def _first(
        self, c: Connection, call: usage_pb2.UsageRecord, earlier: Sequence[Row]
    ) -> tuple[State, tuple[int, int]]:
        """The call as it was posted, and the share of its fee. Raises CallNotPosted."""
        if call.test or not call.cost_nanos:
            paid = next((r for r in earlier if r["cost"]), None)
            return State(call.units, 0, 0), (paid["fee_change"], paid["cost"]) if paid else (0, 0)
        posting = (await self._store.postings_of(c, [call.request_id])).get(call.request_id)
        if posting is None:
            raise CallNotPosted("the call is not in the books yet; repeat it in a moment", retry_after=1)
        accounts = zip(posting["org_ids"], posting["kinds"], posting["amounts"], strict=True)
        fee = sum(amount for org_id, kind, amount in accounts if (org_id, kind) == (PLATFORM, FEE))
        return State(call.units, call.cost_nanos, fee), (fee, call.cost_nanos)

    async def _correct(
        self, c: Connection, call: usage_pb2.UsageRecord, number: int, before: State, after: State, reason: str
    ) -> None:
        # With the time of the call, so that it sorts and counts there; always the same id for the same number.
        correction_id, now = ids.derived("cor", call.request_id, number), self._clock.now()
        cost, fee = after.cost - before.cost, after.fee - before.fee
        by_credit = await self._credit.paid_by(c, call.org_id, call.request_id)
        back = amounts.credit_back(min(by_credit, before.cost), after.cost)
        counted = counts_as(call)
        if cost or fee:
            posting = ledger.correction(correction_id, call.org_id, call.publisher_org_id, cost, fee, back)
            await self._store.post(c, [posting], now)
        await self._q.add_correction(
            c, id=correction_id, request_id=call.request_id, number=number, org_id=call.org_id,
            publisher_org_id=call.publisher_org_id, units=json.dumps(dict(after.units)), cost=after.cost,
            cost_change=cost, fee_change=fee, credit_back=back, key_id=counted.key_id, model_id=counted.model_id,
            day=counted.day, reason=reason, user_id=caller().user_id, now=now,
        )  # fmt: skip
        await self._following.follow(c, call, correction_id, cost, back, now)
        await outbox.add(
            c, _news(call, correction_id, amounts.difference(before.units, after.units), cost, fee, reason, now)
        )


def _news(
    call: usage_pb2.UsageRecord,
    correction_id: str,
    units: Mapping[str, int],
    cost: int,
    fee: int,
    reason: str,
    now: Any,
) -> event_pb2.UsageCorrected:
    record = usage_pb2.UsageRecord()
    record.CopyFrom(call)
    for name in ("units", "lease_id", "latency_us", "corrections"):
        record.ClearField(name)
    record.request_id, record.corrects, record.cost_nanos = correction_id, call.request_id, cost
    record.units.update(units)
    event = event_pb2.UsageCorrected(record=record, reason=reason, fee_nanos=fee)
    event.create_time.FromDatetime(now)
    return event
