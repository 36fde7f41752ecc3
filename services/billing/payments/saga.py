"""A payment from its beginning in somebody's transaction to its end in the books.

The steps of a row: begun → claimed → opened at the provider, whose name for it is stored → confirmed there → recorded
with its posting and its event. A death between any two leaves a row that is due again; opening twice moves nothing, and
only the name that was stored is ever confirmed, so that nobody is charged twice however long it takes."""

import asyncio
import logging
from collections.abc import Awaitable
from datetime import datetime, timedelta
from typing import Protocol

from mercat.billing.v1 import billing_pb2
from mercat.event.v1 import event_pb2

from services.billing.payments import amounts, postings
from services.billing.payments.customers import Customers
from services.billing.payments.provider import (
    Outcome,
    Provider,
    ProviderRefused,
    ProviderUnavailable,
    Status,
)
from services.billing.payments.store import PaymentStore, Row
from services.billing.store import Store
from services.common import failpoints, outbox
from services.common.clock import Clock
from services.common.db import Connection, Database, added_to_outbox
from services.common.errors import MercatError
from services.common.metrics import Counter
from services.common.repeating import repeat

log = logging.getLogger(__name__)
ENDED = Counter("mercat_payments", "Payments that have ended", ["purpose", "status"])
REPEATED = Counter("mercat_payments_repeated", "Steps of payments that the provider did not answer", ["provider"])
TOP_UP, INVOICE, AUTO_TOP_UP = "top_up", "invoice", "auto_top_up"
_AT_ONCE = 20
_LONGEST_WAIT = 3600  # seconds between attempts, at most
_ASK_AGAIN = timedelta(minutes=1)  # for payments that end elsewhere: the provider also tells by itself
_REFUSALS, _AFTER_REFUSAL = 3, timedelta(hours=1)  # of automatic top-ups: how many in a row, and the pause after each
_PATIENCE = timedelta(hours=23)  # for the owner of a card to prove who they are


class Effect(Protocol):
    """What others do with a payment that has succeeded, within the transaction that posts it. Raises nothing, or the
    payment is recorded again later."""

    def __call__(self, connection: Connection, payment: Row) -> Awaitable[None]: ...


class AlreadyUnderWay(Exception):
    """There is at most one automatic top-up of an organisation at a time."""


class Payments:
    """Begins payments and sees them through."""

    def __init__(
        self, database: Database, books: Store, store: PaymentStore, provider: Provider, customers: Customers,
        clock: Clock, claim_seconds: float,
    ) -> None:  # fmt: skip
        self._database = database
        self._books = books
        self._store = store
        self._provider = provider
        self._customers = customers
        self._clock = clock
        self._claim = timedelta(seconds=claim_seconds)
        # By purpose: what a payment that has succeeded brings about in the transaction of its posting, with the wallet
        # locked, so that nobody spends the money in between.
        self.effects: dict[str, Effect] = {}

    async def start(
        self, connection: Connection, *, org_id: str, amount: int, purpose: str, subject: str, user_id: str = "",
        method_ref: str | None = None,
    ) -> str:  # fmt: skip
        """Begins a payment within the caller's transaction; it is charged when that has committed.

        `amount`: nanos; a part of a cent is rounded up to one, and less than a card can be charged to that: what is too
        much stays in the wallet, where all of it goes. `subject` is unique for each attempt of a purpose: a second call
        with it answers the first one's payment.

        Returns:
            The payment's id, which its posting has as its cause and its PaymentSettled carries.

        Raises:
            ValueError: the amount is not positive, or more than a card can be charged at once.
            AlreadyUnderWay: another automatic top-up of the organisation has not ended.
        """
        made = await self._store.add_payment(
            connection, org_id=org_id, user_id=user_id, amount=amounts.chargeable(amount), purpose=purpose,
            subject=subject, provider=self._provider.name, method_ref=method_ref, now=self._clock.now(),
        )  # fmt: skip
        if made is None:
            found = await self._store.find_payment(connection, purpose, subject)
            if found is None:
                raise AlreadyUnderWay(org_id)
            return str(found["id"])
        added_to_outbox(connection)  # whose relays wake when it commits, and `run` beside them
        return made

    async def run(self) -> None:
        """Takes every payment its next step when that is due, for ever."""
        await repeat(self.advance, "payments wait", batch=_AT_ONCE, wakes=self._database)

    async def advance(self) -> int:
        """Takes the payments that are due a step; how many there were."""
        now = self._clock.now()
        async with self._database.transaction() as connection:
            rows = await self._store.claim_payments(connection, now, now + self._claim, _AT_ONCE)
        await asyncio.gather(*(self._advance(row) for row in rows))
        return len(rows)

    async def _advance(self, row: Row) -> None:
        try:
            outcome = await self._charge(row)
        except ProviderRefused as e:
            outcome = Outcome(Status.FAILED, row["provider_ref"] or "", e.code)
        except (ProviderUnavailable, MercatError) as e:
            wait = timedelta(seconds=min(2 ** min(row["attempts"], 12), _LONGEST_WAIT))
            log.warning("%s is tried again in %s: %s", row["id"], wait, e)
            REPEATED.labels(row["provider"]).inc()
            await self._put_off(row, row["status"], self._clock.now() + wait)
            return
        except Exception:
            log.exception("%s is tried again when its claim has run out", row["id"])
            return
        failpoints.passing("payments.charged")
        await self.record(row["id"], outcome)

    async def _charge(self, row: Row) -> Outcome:
        """One step at the provider, outside any transaction."""
        if row["provider"] != self._provider.name:
            raise ProviderUnavailable(f"it was begun with {row['provider']}")
        if row["status"] == Status.REQUIRES_ACTION:
            if self._clock.now() > row["created_at"] + _PATIENCE:
                return await self._provider.cancel_payment(row["provider_ref"])
            return await self._provider.get_payment(row["provider_ref"])
        alone = row["purpose"] != TOP_UP  # nobody is there to prove anything
        if row["provider_ref"] is None:
            async with self._database.connection() as connection:
                card = await self._store.default_method(connection, row["org_id"], row["provider"])
            method = row["method_ref"] or (card["ref"] if card else None)
            if method is None:
                raise ProviderRefused("no_payment_method", "the organisation has no card")
            customer = await self._customers.ensure(row["org_id"])
            cents = amounts.to_cents(row["amount"])
            ref = await self._provider.open_payment(customer, method, cents, row["id"])
            failpoints.passing("payments.opened")
            async with self._database.transaction() as connection:
                row = await self._store.open_payment(connection, row["id"], ref, method)
            if row["next_attempt_at"] is None:  # it ended elsewhere while this process was slow
                return await self._provider.cancel_payment(ref)
        return await self._provider.confirm_payment(row["provider_ref"], off_session=alone)

    async def record(self, payment_id: str, outcome: Outcome) -> None:
        """Writes down how a payment stands: its end, once, with the posting and the event. May be called at any time
        and in any order; a payment that has ended stays as it is."""
        now = self._clock.now()
        async with self._database.transaction() as connection:
            row = await self._store.get_payment(connection, payment_id)
            assert row is not None
            await self._books.lock_or_open_wallets(connection, [row["org_id"]])
            row = await self._store.lock_payment(connection, payment_id)
            # A process whose claim ran out may be told of what was not opened, while another one confirms what was.
            if row["next_attempt_at"] is None or outcome.ref != (row["provider_ref"] or ""):
                return
            if outcome.status == Status.REQUIRES_ACTION:
                await self._store.put_off_payment(
                    connection, payment_id, Status.REQUIRES_ACTION, now + _ASK_AGAIN, outcome.client_secret
                )
                return
            if outcome.status == Status.PENDING:
                await self._store.put_off_payment(connection, payment_id, "processing", now + _ASK_AGAIN)
                return
            await self._settle(connection, row, outcome, now)
        ENDED.labels(row["purpose"], outcome.status).inc()
        failpoints.passing("payments.recorded")

    async def _settle(self, connection: Connection, row: Row, outcome: Outcome, now: datetime) -> None:
        succeeded = outcome.status == Status.SUCCEEDED
        code = "" if succeeded else outcome.code or "unknown"
        await self._store.settle_payment(connection, row["id"], outcome.status, code, now)
        if succeeded:
            posting = postings.paid_in(row["id"], row["org_id"], row["amount"], row["provider"])
            await self._books.post(connection, [posting], now)
            if (effect := self.effects.get(row["purpose"])) is not None:
                await effect(connection, row)
            await self._store.add_transaction(
                connection, cause=row["id"], user_id=row["user_id"], org_id=row["org_id"], amount=row["amount"],
                kind=billing_pb2.Transaction.TYPE_TOP_UP, ref=row["provider_ref"], now=now,
            )  # fmt: skip
        event = event_pb2.PaymentSettled(
            payment_id=row["id"], org_id=row["org_id"], purpose=row["purpose"], subject=row["subject"],
            amount_nanos=row["amount"], succeeded=succeeded, failure_code=code,
        )  # fmt: skip
        await outbox.add(connection, event)
        if row["purpose"] == AUTO_TOP_UP:
            await self._note_auto_top_up(connection, row["org_id"], code, now)

    async def _note_auto_top_up(self, connection: Connection, org_id: str, code: str, now: datetime) -> None:
        """After refusals in a row they are turned off, so that a card that is no good is not tried for ever."""
        if not code:
            await self._store.auto_top_up_succeeded(connection, org_id)
        elif await self._store.auto_top_up_failed(connection, org_id, now + _AFTER_REFUSAL, _REFUSALS):
            await outbox.add(connection, event_pb2.AutoTopUpDisabled(org_id=org_id, failure_code=code))

    async def _put_off(self, row: Row, status: str, at: datetime) -> None:
        async with self._database.transaction() as connection:
            await self._store.put_off_payment(connection, row["id"], status, at, row["client_secret"])
