"""Leases of credit for the inference workers, and the posting of what their calls cost."""

import asyncio
import logging
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

import nats
from mercat.billing.v1 import billing_pb2, billing_pb2_grpc
from mercat.usage.v1 import usage_pb2, usage_pb2_grpc

from services.billing import leases, ledger
from services.billing.ledger import PLATFORM, Account
from services.billing.prices.store import PriceStore
from services.billing.settings import BillingSettings
from services.billing.store import Store
from services.billing.subscriptions.store import SubscriptionStore
from services.common import money
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import InsufficientCredit, Unavailable
from services.common.events import Events, broadcast
from services.common.rpc.channels import InternalChannel
from services.common.rpc.context import Context

log = logging.getLogger(__name__)
_SWEEP = 2.0  # seconds


class LeaseServicer(billing_pb2_grpc.LeaseServiceServicer):
    """Serves `mercat.billing.v1.LeaseService`."""

    def __init__(
        self, database: Database, store: Store, prices: PriceStore, control: InternalChannel, events: Events,
        clock: Clock, settings: BillingSettings,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._prices = prices
        self._usage = usage_pb2_grpc.SettlementServiceStub(control)
        self._events = events
        self._clock = clock
        self._subscriptions = SubscriptionStore()
        self._fee_ppm = settings.fee_ppm
        self._lifetime = timedelta(seconds=settings.lease_seconds)
        self._grace = timedelta(seconds=settings.lease_grace_seconds)

    async def AcquireLease(
        self, request: billing_pb2.AcquireLeaseRequest, context: Context
    ) -> billing_pb2.AcquireLeaseResponse:
        now = self._clock.machine()
        expires = now + self._lifetime
        async with self._database.transaction() as connection:
            await self._store.lock_or_open_wallets(connection, [request.org_id])
            wallet = await self._store.get_wallet(connection, request.org_id)
            assert wallet is not None
            balance, reserved = int(wallet["balance"]), int(wallet["reserved"])
            granted = leases.grant(balance - reserved, request.minimum_nanos, request.wanted_nanos)
            if granted:
                lease_id = await self._store.add_lease(
                    connection, request.org_id, request.worker_id, granted, expires, now
                )
        if not granted:
            if reserved > 0:  # perhaps idle with another worker
                try:
                    await broadcast(self._events, f"mercat.recall.{request.org_id}", b"")
                except nats.errors.Error as e:  # the answer is the same: idle slices come back by themselves
                    log.warning("idle slices could not be called back: %s", e)
            raise InsufficientCredit(
                f"the wallet has {money.show(balance - reserved)} free and this call needs"
                f" {money.show(request.minimum_nanos)}; add credit with `mercat topup`",
                metadata={"balance_nanos": str(balance), "reserved_nanos": str(reserved)},
            )
        response = billing_pb2.AcquireLeaseResponse(lease_id=lease_id, granted_nanos=granted)
        response.expires_at.FromDatetime(expires)
        return response

    async def RenewLeases(
        self, request: billing_pb2.RenewLeasesRequest, context: Context
    ) -> billing_pb2.RenewLeasesResponse:
        expires = self._clock.machine() + self._lifetime
        async with self._database.transaction() as connection:
            kept = await self._store.renew_leases(connection, list(request.lease_ids), request.worker_id, expires)
        response = billing_pb2.RenewLeasesResponse(lost_lease_ids=[x for x in request.lease_ids if x not in kept])
        response.expires_at.FromDatetime(expires)
        return response

    async def CloseLeases(
        self, request: billing_pb2.CloseLeasesRequest, context: Context
    ) -> billing_pb2.CloseLeasesResponse:
        spent = {x.lease_id: x.spent_nanos for x in request.leases}
        async with self._database.transaction() as connection:
            await self._store.lock_owners(connection, list(spent))
            await self._store.report_leases(connection, request.worker_id, spent)
        return billing_pb2.CloseLeasesResponse()

    async def PostUsage(self, request: billing_pb2.PostUsageRequest, context: Context) -> billing_pb2.PostUsageResponse:
        # Calls that cost nothing, and those of test keys, move no money: there is nothing to post.
        paid = {r.request_id: r for r in request.records if r.cost_nanos > 0 and not r.test}
        if not paid:
            return billing_pb2.PostUsageResponse(posted=0)
        async with self._database.transaction() as connection:
            await self._store.lock_or_open_wallets(connection, (r.org_id for r in paid.values()))
            fees = await self._subscriptions.fees_of(connection, (r.publisher_org_id for r in paid.values()))
            postings = [
                ledger.charge(
                    r.request_id, r.org_id, r.publisher_org_id, r.cost_nanos,
                    fees.get(r.publisher_org_id, self._fee_ppm),
                )
                for r in paid.values()
            ]  # fmt: skip
            accounts = [Account(PLATFORM, ledger.FEE), *(a for p in postings for a, _ in p.entries)]
            known = await self._store.account_ids(connection, accounts)
            leased = sorted({r.lease_id for r in paid.values() if r.lease_id})
            await self._store.lock_owners(connection, leased)
            new = await self._store.post(connection, postings, self._clock.now())
            spent = _by_lease(paid[cause] for cause in new)
            if spent:
                await self._store.post_to_leases(connection, spent)
        self._store.remember(known)
        return billing_pb2.PostUsageResponse(posted=len(new))

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
        while True:
            await asyncio.sleep(_SWEEP)
            try:
                await self._recover()
            except Unavailable as e:
                log.warning("expired leases stay for now: %s", e)
            except Exception:  # they are looked at again; the services beside this must go on
                log.exception("expired leases stay for now")

    async def _recover(self) -> None:
        before = self._clock.machine() - self._grace
        async with self._database.connection() as connection:
            expired = await self._store.expired_leases(connection, before)
        if not expired:
            return
        answer = await self._usage.GetWatermark(usage_pb2.GetWatermarkRequest())
        settled: datetime = answer.settled_through.ToDatetime(UTC)
        # Half the grace covers records that were on their way to the stream when the lease ran out.
        due = [r["id"] for r in expired if settled > r["expires_at"] + self._grace / 2]
        if not due:
            return
        async with self._database.transaction() as connection:
            await self._store.lock_owners(connection, due)
            closed = await self._store.close_expired(connection, due, before)
        for row in closed:
            log.info("lease %s of %s came back with %d nanos", row["id"], row["worker_id"], row["rest"])


def _by_lease(records: Iterable[usage_pb2.UsageRecord]) -> dict[str, int]:
    spent: dict[str, int] = {}
    for r in records:
        if r.lease_id:
            spent[r.lease_id] = spent.get(r.lease_id, 0) + r.cost_nanos
    return spent
