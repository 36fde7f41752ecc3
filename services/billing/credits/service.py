"""Credit for people: given and limited by admins, listed by who has it; and the sweep that ends what has expired."""

import logging
from datetime import UTC, datetime

from mercat.billing.v1 import credits_pb2, credits_pb2_grpc

from services.billing.credits.grants import Grants
from services.billing.credits.store import CreditStore, Row
from services.billing.ledger import CURRENCY
from services.billing.rows import wallet_of
from services.billing.store import Store
from services.common import audit, ids, pages
from services.common.clock import Clock
from services.common.db import Database
from services.common.errors import InvalidFields, Violation
from services.common.repeating import repeat
from services.common.rpc.context import Context, caller, current

log = logging.getLogger(__name__)
_SWEEP = 2.0  # seconds


class CreditServicer(credits_pb2_grpc.CreditServiceServicer):
    """Serves `mercat.billing.v1.CreditService`."""

    def __init__(self, database: Database, store: Store, credit: CreditStore, grants: Grants, clock: Clock) -> None:
        self._database = database
        self._store = store
        self._credit = credit
        self._grants = grants
        self._clock = clock

    async def CreateCreditGrant(
        self, request: credits_pb2.CreateCreditGrantRequest, context: Context
    ) -> credits_pb2.CreateCreditGrantResponse:
        # The request id stays the same under an idempotency key, also when the first attempt died half-way.
        grant_id = ids.sibling("crg", current().request_id)
        expires_at = self._expiry(request)
        audit.about("credit_grant", grant_id)
        async with self._database.transaction() as connection:
            row = await self._grants.give(
                connection, grant_id, request.org_id, request.amount_nanos, priority=request.priority,
                expires_at=expires_at, reason=request.reason, user_id=caller().user_id,
            )  # fmt: skip
        return credits_pb2.CreateCreditGrantResponse(grant=_grant(row, self._clock.now()))

    def _expiry(self, request: credits_pb2.CreateCreditGrantRequest) -> datetime | None:
        if not request.HasField("expires_at"):
            return None
        try:
            expires_at: datetime = request.expires_at.ToDatetime(UTC)
        except (ValueError, OverflowError):
            raise InvalidFields(violations=[Violation("expires_at", "is not a time of the years 1 to 9999")]) from None
        if expires_at <= self._clock.now():
            raise InvalidFields(violations=[Violation("expires_at", "must be in the future")])
        return expires_at

    async def ListCreditGrants(
        self, request: credits_pb2.ListCreditGrantsRequest, context: Context
    ) -> credits_pb2.ListCreditGrantsResponse:
        key, most = pages.decode(request.page_token, str), pages.size(request.page_size)
        before, now = str(key[0]) if key else None, self._clock.now()
        async with self._database.connection() as connection:
            rows = await self._credit.list_grants(connection, caller().org_id, before, most + 1)
        token = pages.encode([rows[most - 1]["id"]]) if len(rows) > most else ""
        return credits_pb2.ListCreditGrantsResponse(grants=[_grant(r, now) for r in rows[:most]], next_page_token=token)

    async def SetCreditLimit(
        self, request: credits_pb2.SetCreditLimitRequest, context: Context
    ) -> credits_pb2.SetCreditLimitResponse:
        audit.about("organization", request.org_id)
        async with self._database.transaction() as connection:
            await self._grants.set_limit(connection, request.org_id, request.limit_nanos)
            wallet = await self._store.get_wallet(connection, request.org_id)
            credit = await self._credit.usable(connection, request.org_id, self._clock.now())
        return credits_pb2.SetCreditLimitResponse(wallet=wallet_of(request.org_id, wallet, credit.amount))

    async def expire(self) -> None:
        """Ends what has expired, for ever."""
        await repeat(self._expire, "expired credit stays for now", every=_SWEEP)

    async def _expire(self) -> int:
        async with self._database.connection() as connection:
            due = await self._credit.expired(connection, self._clock.now())
        if not due:
            return 0
        async with self._database.transaction() as connection:
            rows = await self._grants.lapse(connection, [r["org_id"] for r in due], [r["id"] for r in due])
        for row in rows:
            log.info("credit grant %s expired with %d nanos", row["id"], row["lapsed"])
        return len(rows)


def _grant(row: Row, now: datetime) -> credits_pb2.CreditGrant:
    expired = row["expires_at"] is not None and row["expires_at"] <= now
    grant = credits_pb2.CreditGrant(
        grant_id=row["id"], org_id=row["org_id"], currency=CURRENCY, amount_nanos=row["amount"],
        remaining_nanos=0 if expired else row["remaining"], priority=row["priority"], reason=row["reason"],
        expired_nanos=row["lapsed"],
    )  # fmt: skip
    grant.created_at.FromDatetime(row["created_at"])
    if row["expires_at"] is not None:
        grant.expires_at.FromDatetime(row["expires_at"])
    return grant
