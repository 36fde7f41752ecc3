"""Payouts from the day they are due to the publisher's account.

The steps of a row: begun, with its posting, when its account is due → its calls read and its lines written →
transferred by the provider, once for its id → recorded with its posting and its event. A death between any two leaves a
row that is due again."""

import logging
from datetime import datetime, timedelta

from mercat.billing.v1 import billing_pb2

from services.billing.invoices.issuing import Issuing
from services.billing.ledger import CURRENCY, PAYABLE
from services.billing.losses.store import LossStore
from services.billing.payments import amounts
from services.billing.payments.provider import Outcome, Provider, ProviderRefused, ProviderUnavailable, Status
from services.billing.payouts import sums
from services.billing.payouts.store import (
    CALLS,
    CARRIED,
    FAILED,
    PAID,
    PENDING,
    REFUNDS,
    SUBSCRIPTIONS,
    Line,
    PayoutStore,
    Row,
)
from services.billing.payouts.sums import SETTLED, Sum, hold_of
from services.billing.settings import BillingSettings
from services.billing.store import Store
from services.billing.subscriptions.proration import next_end
from services.common import failpoints, ids, money
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.errors import MercatError
from services.common.repeating import repeat

log = logging.getLogger(__name__)
WEEKLY, MONTHLY = "weekly", "monthly"
_AT_ONCE = 20
_LONGEST_WAIT = 3600  # seconds between attempts, at most
BEGINNING = datetime.fromisoformat("2000-01-01T00:00:00+00:00")


def following(schedule: str, anchor: datetime, after: datetime) -> datetime:
    """The first payday after an instant."""
    if schedule == WEEKLY:
        week = timedelta(days=7)
        return anchor + ((after - anchor) // week + 1) * week
    at = next_end(anchor, anchor)
    while at <= after:
        at = next_end(anchor, at)
    return at


class Payouts:
    """Begins payouts and sees them through."""

    def __init__(
        self, database: Database, books: Store, store: PayoutStore, losses: LossStore, issuing: Issuing,
        provider: Provider, clock: Clock, settings: BillingSettings,
    ) -> None:  # fmt: skip
        self._database = database
        self._books = books
        self._store = store
        self._losses = losses
        self._issuing = issuing
        self._provider = provider
        self._clock = clock
        self._hold = hold_of(settings.payout_hold_days)
        self._claim = timedelta(seconds=settings.payment_claim_seconds)
        self._minimum = money.parse(settings.payout_minimum)

    async def run(self) -> None:
        """Takes everything that is due its next step, for ever."""
        await repeat(self._work, "payouts wait", batch=_AT_ONCE)

    async def _work(self) -> int:
        await self.begin_due()
        return await self.advance()

    # Beginning

    async def begin_due(self) -> int:
        """Begins a payout for each account whose day it is; how many accounts there were."""
        async with self._database.connection() as connection:
            due = await self._store.due_accounts(connection, self._clock.now(), _AT_ONCE)
        for account in due:
            ready = account["ready"]
            if not ready:
                try:
                    ready = await self._provider.account_ready(account["ref"])
                except (ProviderUnavailable, ProviderRefused) as e:
                    log.warning("whether the account of %s is ready is not known: %s", account["org_id"], e)
            async with self._database.transaction() as connection:
                await self._begin(connection, account["org_id"], ready, self._clock.now())
            failpoints.passing("payouts.begun")
        return len(due)

    async def _begin(self, c: Connection, org_id: str, ready: bool, now: datetime) -> None:
        await self._books.lock_or_open_wallets(c, [org_id])
        account = await self._store.get_account(c, org_id, lock=True)
        assert account is not None, "accounts are never deleted"
        if account["next_at"] > now:
            return  # another process was quicker
        await self._store.move_account(
            c, org_id, ready=ready, next_at=following(account["schedule"], account["anchor"], now)
        )
        last = await self._store.last_payout(c, org_id)
        if not ready or (last is not None and last["status"] == PENDING):
            return
        balance = await self._store.lock_payable(c, org_id)
        cutoff = now - self._hold
        since = last["earned_until"] if last else None
        if since is not None and cutoff <= since:
            return
        back = await self._store.taken_back(c, org_id)
        carried = (last["carried_out"] + (last["amount"] if last["status"] == FAILED else 0)) if last else 0
        earned = await self._store.earned(c, org_id, since or BEGINNING, cutoff)
        held = await self._losses.held_of(c, org_id)
        found = Sum(earned, sum(r["amount"] for r in back), carried, held)
        if found.total != balance - await self._store.earned(c, org_id, cutoff, now + SETTLED):
            log.error("the payout of %s is not what is payable; it waits until the books are right", org_id)
            return
        if found.amount < max(self._minimum, amounts.CENT):
            return
        payout_id = await self._store.add_payout(
            c, org_id=org_id, user_id=account["user_id"], amount=found.amount, provider=self._provider.name,
            account_ref=account["ref"], earned_from=since, earned_until=cutoff, carried_in=carried,
            carried_out=found.left, taken_back=[r["posting_id"] for r in back], now=now,
        )  # fmt: skip
        await self._books.post(c, [sums.begun(payout_id, org_id, found.amount)], now)
        await self._list(c, payout_id, org_id, account["user_id"], -found.amount, now)

    async def _list(self, c: Connection, cause: str, org_id: str, user_id: str, amount: int, now: datetime) -> None:
        await self._books.add_transaction(
            c, id=ids.new("txn"), user_id=user_id, org_id=org_id, amount=amount, currency=CURRENCY,
            type=billing_pb2.Transaction.TYPE_PAYOUT, status="succeeded", cause=cause, now=now,
        )  # fmt: skip

    # Seeing them through

    async def advance(self) -> int:
        """Takes the payouts that are due a step; how many there were."""
        now = self._clock.now()
        async with self._database.transaction() as connection:
            rows = await self._store.claim_payouts(connection, now, now + self._claim, _AT_ONCE)
        for row in rows:
            await self._advance(row)
        return len(rows)

    async def _advance(self, row: Row) -> None:
        try:
            await self._report(row)
            failpoints.passing("payouts.reported")
            if row["provider"] != self._provider.name:
                raise ProviderUnavailable(f"it was begun with {row['provider']}")
            cents = amounts.to_cents(row["amount"])
            outcome = await self._provider.transfer(row["account_ref"], cents, row["id"])
        except ProviderRefused as e:
            outcome = Outcome(Status.FAILED, "", e.code)
        except (ProviderUnavailable, MercatError) as e:
            wait = timedelta(seconds=min(2 ** min(row["attempts"], 12), _LONGEST_WAIT))
            log.warning("%s is tried again in %s: %s", row["id"], wait, e)
            async with self._database.transaction() as connection:
                await self._store.put_off_payout(connection, row["id"], self._clock.now() + wait)
            return
        failpoints.passing("payouts.transferred")
        await self._record(row["id"], outcome)

    async def _record(self, payout_id: str, outcome: Outcome) -> None:
        now = self._clock.now()
        async with self._database.transaction() as connection:
            row = await self._store.get_payout(connection, payout_id)
            assert row is not None
            await self._books.lock_or_open_wallets(connection, [row["org_id"]])
            row = await self._store.get_payout(connection, payout_id, lock=True)
            assert row is not None
            if row["next_attempt_at"] is None:
                return
            if outcome.status == Status.PENDING:
                await self._store.put_off_payout(connection, payout_id, now + timedelta(minutes=1))
                return
            good, amount = outcome.status == Status.SUCCEEDED, row["amount"]
            if good:
                posting = sums.paid(payout_id, amount, row["provider"])
            else:
                posting = sums.returned(payout_id, row["org_id"], amount)
                await self._list(connection, posting.cause, row["org_id"], row["user_id"], amount, now)
            await self._books.post(connection, [posting], now)
            code = "" if good else outcome.code or "unknown"
            await self._store.settle_payout(connection, row, PAID if good else FAILED, outcome.ref, code, now)

    async def _report(self, row: Row) -> None:
        """Writes the lines of a payout: what its calls brought by model, and the rest of what it is made of."""
        org_id, start, end = row["org_id"], row["earned_from"] or BEGINNING, row["earned_until"]
        by_model: dict[str, list[int]] = {}
        async for page in self._issuing.walk(org_id, PAYABLE, start, end):
            for _, call, _ in page:
                if call.charge:
                    found = by_model.setdefault(call.model, [0, 0])
                    found[0] += 1
                    found[1] += call.moved
        async with self._database.transaction() as connection:
            others = await self._store.subscriptions_earned(connection, org_id, start, end)
            back = await self._store.adjusted(connection, row["id"])
            lines: list[Line] = [(CALLS, model, count, amount) for model, (count, amount) in sorted(by_model.items())]
            lines += [
                (SUBSCRIPTIONS, "", others["count"], others["amount"]), (REFUNDS, "", back["count"], back["amount"]),
                (CARRIED, "", 0, row["carried_in"] - row["carried_out"]),
            ]  # fmt: skip
            await self._store.add_lines(connection, row["id"], lines[: len(by_model)] + [x for x in lines[-3:] if x[3]])
