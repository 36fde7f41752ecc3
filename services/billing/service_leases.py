"""Leases of credit for the inference workers, and the posting of what their calls cost."""

import asyncio
import logging
from datetime import UTC, datetime, timedelta

from mercat.billing.v1 import billing_pb2, billing_pb2_grpc
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc

from services.billing.leasing import Leasing
from services.billing.prices.store import PriceStore
from services.billing.recalls import recall
from services.billing.settings import BillingSettings
from services.billing.store import Store
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import BudgetExceeded, InsufficientCredit
from services.common.events import Events
from services.common.repeating import repeat
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context

log = logging.getLogger(__name__)
_SWEEP = 2.0  # seconds


class LeaseServicer(billing_pb2_grpc.LeaseServiceServicer):
    """Serves `mercat.billing.v1.LeaseService`."""

    def __init__(
        self, database: Database, store: Store, prices: PriceStore, leasing: Leasing, control: InternalChannel,
        events: Events, clock: Clock, settings: BillingSettings,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._prices = prices
        self._leasing = leasing
        self._usage = usage_pb2_grpc.SettlementServiceStub(control)
        self._events = events
        self._clock = clock
        self._lifetime = timedelta(seconds=settings.lease_seconds)
        self._grace = timedelta(seconds=settings.lease_grace_seconds)

    async def AcquireLease(
        self, request: billing_pb2.AcquireLeaseRequest, context: Context
    ) -> billing_pb2.AcquireLeaseResponse:
        try:
            async with self._database.transaction() as connection:
                made = await self._leasing.acquire(
                    connection, request.org_id, request.worker_id, request.minimum_nanos, request.wanted_nanos,
                    key_id=request.key_id, model_id=request.model_id,
                )  # fmt: skip
        except (InsufficientCredit, BudgetExceeded) as e:
            if int(e.metadata["reserved_nanos"]) > 0:  # perhaps idle with another worker
                await recall(self._events, request.org_id)
            raise
        response = billing_pb2.AcquireLeaseResponse(
            lease_id=made.lease_id, granted_nanos=made.granted, by_key=made.by_key, by_model=made.by_model
        )
        response.expires_at.FromDatetime(made.expires_at)
        response.ends_at.FromDatetime(made.ends_at)
        return response

    async def RenewLeases(
        self, request: billing_pb2.RenewLeasesRequest, context: Context
    ) -> billing_pb2.RenewLeasesResponse:
        now, expires = self._clock.now(), self._clock.machine() + self._lifetime
        async with self._database.transaction() as connection:
            kept = await self._store.renew_leases(connection, list(request.lease_ids), request.worker_id, expires)
        response = billing_pb2.RenewLeasesResponse(
            lost_lease_ids=[x for x in request.lease_ids if x not in kept],
            ended_lease_ids=[x for x, ends_at in kept.items() if ends_at <= now],
        )
        response.expires_at.FromDatetime(expires)
        return response

    async def CloseLeases(
        self, request: billing_pb2.CloseLeasesRequest, context: Context
    ) -> billing_pb2.CloseLeasesResponse:
        spent = {x.lease_id: x.spent_nanos for x in request.leases}
        async with self._database.transaction() as connection:
            await self._store.lock_wallets(connection, (), list(spent))
            await self._store.report_leases(connection, request.worker_id, spent)
        return billing_pb2.CloseLeasesResponse()

    async def PostUsage(self, request: billing_pb2.PostUsageRequest, context: Context) -> billing_pb2.PostUsageResponse:
        async with self._database.transaction() as connection:
            posted, known = await self._leasing.post(connection, request.records)
        self._store.remember(known)
        return billing_pb2.PostUsageResponse(posted=posted)

    async def ResolvePrice(
        self, request: billing_pb2.ResolvePriceRequest, context: Context
    ) -> billing_pb2.ResolvePriceResponse:
        now = self._clock.now()
        async with self._database.connection() as connection:
            return billing_pb2.ResolvePriceResponse(
                price=await self._prices.get_price(connection, request.model_id, now),
                upcoming=await self._prices.upcoming_prices(connection, request.model_id, now),
                discounts_ppm=await self._prices.discounts_of(connection, request.publisher_org_id, request.model_id),
            )

    async def recover(self) -> None:
        """Takes back the leases of workers that died, for ever: once a lease has run out, and every call
        recorded before that is posted."""
        await asyncio.sleep(_SWEEP)  # while this process was away nobody could renew
        await repeat(self._recover, "expired leases stay for now", every=_SWEEP)

    async def _recover(self) -> int:
        before = self._clock.machine() - self._grace
        async with self._database.connection() as connection:
            expired = await self._store.expired_leases(connection, before)
        if not expired:
            return 0
        answer = await self._usage.GetWatermark(usage_pb2.GetWatermarkRequest())
        settled: datetime = answer.settled_through.ToDatetime(UTC)
        # Half the grace covers records that were on their way to the stream when the lease ran out.
        due = [r["id"] for r in expired if settled > r["expires_at"] + self._grace / 2]
        if not due:
            return 0
        async with self._database.transaction() as connection:
            await self._store.lock_wallets(connection, (), due)
            closed = await self._store.close_expired(connection, due, before)
        for row in closed:
            log.info("lease %s of %s came back with %d nanos", row["id"], row["worker_id"], row["rest"])
        return len(closed)
