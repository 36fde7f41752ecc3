"""Collecting what is due: a payment by card for each attempt, retries after days, and what becomes of the subscription
(and of the credit limit, where that was used) when none succeeds. The invoice is paid in the transaction in which the
payment's money arrives, so that nothing else can spend it in between."""

import logging
from collections.abc import Sequence
from datetime import datetime, timedelta

from google.protobuf.message import Message
from mercat.event.v1 import event_pb2

from services.billing.credits.store import CreditStore
from services.billing.invoices.issuing import Issuing
from services.billing.invoices.store import OPEN, PAID, UNCOLLECTIBLE, InvoiceStore, Row, line_of
from services.billing.payments.saga import INVOICE, Payments
from services.billing.payments.store import Row as PaymentRow
from services.billing.store import Store
from services.billing.subscriptions.endings import end
from services.billing.subscriptions.store import ACTIVE, PAST_DUE, SubscriptionStore
from services.common import failpoints
from services.common.clock import Clock
from services.common.db import Connection, Database
from services.common.events import Events, consume
from services.common.repeating import repeat

log = logging.getLogger(__name__)
_AT_ONCE = 50


class Collection:
    """Begins payments of invoices that are due, and hears how they ended."""

    def __init__(
        self, database: Database, books: Store, store: InvoiceStore, subscriptions: SubscriptionStore,
        credit: CreditStore, issuing: Issuing, payments: Payments, events: Events, clock: Clock,
        retry_days: Sequence[int],
    ) -> None:  # fmt: skip
        self._database = database
        self._books = books
        self._store = store
        self._subscriptions = subscriptions
        self._credit = credit
        self._issuing = issuing
        self._payments = payments
        self._events = events
        self._clock = clock
        self._retries = [timedelta(days=days) for days in retry_days]
        payments.effects[INVOICE] = self.paid

    async def run(self) -> None:
        """Begins payments, for ever."""
        await repeat(self.collect, "invoices are not collected for now", batch=_AT_ONCE)

    async def collect(self) -> int:
        """How many invoices were due."""
        async with self._database.connection() as connection:
            due = await self._store.due(connection, self._clock.now(), _AT_ONCE)
        for found in due:
            async with self._database.transaction() as connection:
                await self._books.lock_or_open_wallets(connection, [found["org_id"]])
                row = await self._store.get(connection, found["id"], lock=True)
                assert row is not None, "final invoices are never deleted"
                if row["next_attempt_at"] is None or row["next_attempt_at"] > self._clock.now():
                    continue  # another process was quicker
                wallet = await self._books.get_wallet(connection, row["org_id"])
                assert wallet is not None
                # What was owed may have been paid into the wallet since.
                amount = row["due"] - max(row["owed"] - max(-wallet["balance"], 0), 0)
                if amount <= 0:
                    await self._settle(connection, row, self._clock.now())
                    continue
                await self._payments.start(
                    connection, org_id=row["org_id"], amount=amount, purpose=INVOICE, user_id=row["user_id"],
                    subject=f"{row['id']}:{row['attempts']}",
                )  # fmt: skip
                await self._store.update(connection, row, tell=False, next_attempt_at=None)
            failpoints.passing("invoices.collecting")
        return len(due)

    async def paid(self, connection: Connection, payment: PaymentRow) -> None:
        """What a payment that succeeded does, in the transaction that brings its money: the wallet is locked. An
        invoice that was given up meanwhile leaves the money there."""
        row = await self._store.get(connection, payment["subject"].partition(":")[0], lock=True)
        assert row is not None, "final invoices are never deleted"
        if row["status"] == OPEN:
            await self._settle(connection, row, self._clock.now())

    async def _settle(self, connection: Connection, row: Row, now: datetime) -> None:
        own = [line_of(r) for r in await self._store.get_lines(connection, row["id"])]
        await self._issuing.post(connection, row, own, now)
        await self._store.update(connection, row, status=PAID, paid_at=now, next_attempt_at=None)
        await self._recover(connection, row["org_id"])

    async def hear(self) -> None:
        """Of payments that failed, for ever."""
        await consume(self._events, self._database, "invoices", [event_pb2.PaymentSettled], self.failed)

    async def failed(self, connection: Connection, event: Message) -> None:
        """What a payment that did not succeed does: when the invoice is tried again, or that it is not."""
        assert isinstance(event, event_pb2.PaymentSettled)
        if event.purpose != INVOICE or event.succeeded:
            return
        now = self._clock.now()
        await self._books.lock_or_open_wallets(connection, [event.org_id])
        invoice_id, _, attempt = event.subject.partition(":")
        row = await self._store.get(connection, invoice_id, lock=True)
        assert row is not None, "final invoices are never deleted"
        if row["status"] != OPEN or row["attempts"] != int(attempt):
            return
        own = [line_of(r) for r in await self._store.get_lines(connection, row["id"])]
        first = row["first_failed_at"] or now
        again = next((first + wait for wait in self._retries if first + wait > now), None)
        await self._store.update(
            connection, row, status=OPEN if again else UNCOLLECTIBLE, attempts=row["attempts"] + 1,
            failure_code=event.failure_code, first_failed_at=first, next_attempt_at=again,
        )  # fmt: skip
        if again is None and row["owed"]:
            await self._close_limit(connection, row["org_id"])
        concerned = {line.subscription_id for line in own if line.amount > 0}
        for subscription in await self._subscriptions.of(connection, row["org_id"], lock=True):
            if subscription.id not in concerned:
                continue
            if again is None:
                await end(connection, self._subscriptions, subscription, now)
            elif subscription.status == ACTIVE:
                await self._subscriptions.update(connection, subscription, status=PAST_DUE)

    async def _close_limit(self, connection: Connection, org_id: str) -> None:
        """Nothing more is had on credit by who does not pay: what is owed and held now is the limit."""
        wallet = await self._books.get_wallet(connection, org_id)
        assert wallet is not None
        used = max(wallet["reserved"] - wallet["balance"], 0)
        await self._credit.set_limit(connection, org_id, min(wallet["credit_limit"], used))

    async def _recover(self, connection: Connection, org_id: str) -> None:
        """Subscriptions are active again once none of their invoices is failing."""
        failing = await self._store.failing_subscriptions(connection, org_id)
        for subscription in await self._subscriptions.of(connection, org_id, lock=True):
            if subscription.status == PAST_DUE and subscription.id not in failing:
                await self._subscriptions.update(connection, subscription, status=ACTIVE)

    async def void(self, connection: Connection, row: Row) -> Row:
        """Gives up a locked open invoice. Its payment, if one is under way, brings its money to the wallet."""
        changed = await self._store.update(connection, row, status="void", next_attempt_at=None)
        await self._recover(connection, row["org_id"])
        return changed
