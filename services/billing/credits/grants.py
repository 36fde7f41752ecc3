"""What happens to credit beside calls, in transactions that the caller opens: it is given, it comes back, it expires,
and the limit is set to which a wallet may go below zero."""

from collections.abc import Sequence
from datetime import datetime

from mercat.billing.v1 import billing_pb2

from services.billing import ledger
from services.billing.credits import burning
from services.billing.credits.store import CreditStore, Row
from services.billing.leases import available
from services.billing.ledger import CURRENCY, Posting
from services.billing.store import Store
from services.common import ids, money
from services.common.clock import Clock
from services.common.db import Connection
from services.common.errors import FailedPrecondition, NotFound


class OrganizationNotFound(NotFound, reason="ORGANIZATION_NOT_FOUND"): ...


class CreditLimitInUse(FailedPrecondition, reason="CREDIT_LIMIT_IN_USE"): ...


class Grants:
    """The rules. Every grant, and what was left of it when it expired, is a transaction of the organisation."""

    def __init__(self, store: Store, credit: CreditStore, clock: Clock) -> None:
        self._store = store
        self._credit = credit
        self._clock = clock

    async def give(
        self, c: Connection, grant_id: str, org_id: str, amount: int, *, priority: int = 0,
        expires_at: datetime | None = None, reason: str = "", user_id: str = "",
    ) -> Row:  # fmt: skip
        """A grant of `amount` nanos, once for each id. Raises OrganizationNotFound."""
        await self._lock(c, org_id)
        now = self._clock.now()
        new = await self._credit.add_grant(
            c, id=grant_id, org_id=org_id, amount=amount, priority=priority, expires_at=expires_at, reason=reason,
            now=now,
        )  # fmt: skip
        if new:
            kind = billing_pb2.Transaction.TYPE_CREDIT_GRANT
            await self._move(c, ledger.credit_grant(grant_id, org_id, amount), org_id, amount, kind, now, user_id)
            if expires_at is not None:  # or calls would go on spending it from leases that were there before
                await self._store.end_leases(c, org_id, expires_at)
        return await self._credit.get_grant(c, grant_id)

    async def give_back(self, c: Connection, org_id: str, request_id: str, cause: str, amount: int) -> None:
        """Puts `amount` nanos that a call had spent back into the grants it spent, until they expire; what has expired
        lapses. The wallet must be locked, and the posting of the cause, a refund or correction, has the money."""
        spent = await self._credit.spent_by(c, org_id, request_id)
        back = burning.give_back(spent, amount)
        if not back:
            return
        await self._credit.give_back(c, request_id, cause, back)
        ends = [g.expires_at for g in spent if g.expires_at is not None and g.grant_id in dict(back)]
        if ends:  # or calls would go on spending it from leases that were there before
            await self._store.end_leases(c, org_id, max(min(ends), self._clock.now()))

    async def lapse(self, c: Connection, org_ids: Sequence[str], grant_ids: Sequence[str]) -> list[Row]:
        """Takes what is left of grants that have expired, once no call can spend it; answers them with what `lapsed`,
        nanos."""
        await self._store.lock_wallets(c, org_ids)
        now = self._clock.now()
        rows = await self._credit.lapse(c, grant_ids, now)
        for row in rows:
            # Not the grant's own id, by which its posting is named.
            cause = f"expiry:{ids.derived('exp', row['id'], row['earlier'])}"
            posting = ledger.credit_expiry(cause, row["org_id"], row["lapsed"])
            kind = billing_pb2.Transaction.TYPE_CREDIT_EXPIRY
            await self._move(c, posting, row["org_id"], -row["lapsed"], kind, now)
        return rows

    async def set_limit(self, c: Connection, org_id: str, credit_limit: int) -> None:
        """Lets a wallet go down to `-credit_limit` nanos.

        Raises:
            OrganizationNotFound: there is none of this id.
            CreditLimitInUse: the limit would fall below what is owed or held for calls already.
        """
        await self._lock(c, org_id)
        wallet = await self._store.get_wallet(c, org_id)
        assert wallet is not None
        credit = await self._credit.usable(c, org_id, self._clock.now())
        # What is owed stays owed, whatever credit there is beside it: that pays for calls to come.
        used = max(int(wallet["credit_limit"]) - available(wallet, credit.amount), -int(wallet["balance"]))
        if credit_limit < min(used, int(wallet["credit_limit"])):
            raise CreditLimitInUse(
                f"{money.show(used)} are owed or held for calls already; that is the lowest limit now",
                metadata={"used_nanos": str(used)},
            )
        await self._credit.set_limit(c, org_id, credit_limit)

    async def _lock(self, c: Connection, org_id: str) -> None:
        if not await self._store.lock_wallets(c, [org_id]):
            raise OrganizationNotFound(f"there is no organisation {org_id}")

    async def _move(
        self, c: Connection, posting: Posting, org_id: str, amount: int, kind: int, now: datetime, user_id: str = ""
    ) -> None:
        await self._store.post(c, [posting], now)
        await self._store.add_transaction(
            c, id=ids.new("txn"), user_id=user_id, org_id=org_id, amount=amount, currency=CURRENCY, type=kind,
            status="succeeded", cause=posting.cause, now=now,
        )  # fmt: skip
