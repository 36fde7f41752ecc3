"""Money of payments that goes back: refunds, which are sagas as payments are, and disputes, which Stripe decides.

It is withheld from the wallet when it begins, so that it cannot be spent meanwhile, and is paid or returned at its end.
What the wallet is short of is a loss: the platform's for a refund; of a dispute publishers bear what they earned of it
(`services.billing.losses`)."""

import logging
from datetime import datetime, timedelta

from mercat.billing.v1 import billing_pb2
from mercat.event.v1 import event_pb2

from services.billing.losses.store import LossStore
from services.billing.payments import amounts, postings
from services.billing.payments.provider import Outcome, Provider, ProviderRefused, ProviderUnavailable, Status
from services.billing.payments.store import PaymentStore, Row
from services.billing.store import Store
from services.common import failpoints, outbox
from services.common.clock import Clock
from services.common.db import Connection, Database, added_to_outbox
from services.common.errors import FailedPrecondition, MercatError
from services.common.repeating import repeat

log = logging.getLogger(__name__)
REFUND, DISPUTE = "refund", "dispute"
PENDING, PAID, RETURNED = "pending", "paid", "returned"
_RANKS = {PENDING: 0, PAID: 1, RETURNED: 2}  # a refund that was paid may still come back; nothing goes the other way
_TYPES = {REFUND: billing_pb2.Transaction.TYPE_REFUND, DISPUTE: billing_pb2.Transaction.TYPE_DISPUTE}
_AT_ONCE = 20
_LONGEST_WAIT = 3600  # seconds between attempts, at most
_ASK_AGAIN = timedelta(minutes=10)


class NotRefundable(FailedPrecondition, reason="NOT_REFUNDABLE"):
    """The payment did not succeed, or has less left than is to go back."""


class Reversals:
    """Begins them, sees refunds through, and writes down what the provider says of them."""

    def __init__(
        self, database: Database, books: Store, store: PaymentStore, losses: LossStore, provider: Provider,
        clock: Clock, claim_seconds: float,
    ) -> None:  # fmt: skip
        self._database = database
        self._books = books
        self._store = store
        self._losses = losses
        self._provider = provider
        self._clock = clock
        self._claim = timedelta(seconds=claim_seconds)

    async def refund(self, connection: Connection, payment: Row, amount: int, reason: str, subject: str) -> str:
        """Begins to give back `amount` nanos of a payment, all that is left of it when that is 0; its id. A second call
        with the subject answers the first one's.

        Raises:
            NotRefundable: the payment did not succeed, or less is left of it.
        """
        await self._books.lock_or_open_wallets(connection, [payment["org_id"]])
        payment = await self._store.lock_payment(connection, payment["id"])
        found = await self._store.find_reversal(connection, subject)
        if found is not None:
            return str(found["id"])
        left = payment["amount"] - await self._store.reversed(connection, payment["id"])
        if payment["status"] != Status.SUCCEEDED or not 0 <= amount <= left or left == 0:
            raise NotRefundable(f"of payment {payment['id']} {max(left, 0)} nanos can be refunded")
        made = await self._withhold(connection, REFUND, payment, amount or left, reason, subject, None)
        assert made is not None
        return made

    async def _withhold(
        self, connection: Connection, kind: str, payment: Row, amount: int, reason: str, subject: str, ref: str | None
    ) -> str | None:
        """None when it was begun before. The wallet and the payment must be locked."""
        org_id, now = payment["org_id"], self._clock.now()
        wallet = await self._books.get_wallet(connection, org_id)
        assert wallet is not None
        taken = max(0, min(amount, wallet["balance"] - wallet["reserved"]))
        made = await self._store.add_reversal(
            connection, kind=kind, payment_id=payment["id"], org_id=org_id, amount=amount, taken=taken, reason=reason,
            subject=subject, ref=ref, due=now if kind == REFUND and ref is None else None, now=now,
        )  # fmt: skip
        if made is None:
            return None
        await self._books.post(connection, [postings.withheld(made, kind, org_id, amount, taken)], now)
        if taken:
            await self._list(connection, made, payment["provider_ref"], org_id, kind, -taken, now)
        if taken < amount:
            log.warning("%s: the wallet of %s is short of %d nanos, which are lost", made, org_id, amount - taken)
            if kind == DISPUTE:
                since = payment["settled_at"] or payment["created_at"]
                await self._losses.add_loss(connection, made, org_id, amount - taken, since, now)
        added_to_outbox(connection)
        return made

    async def _list(
        self, connection: Connection, cause: str, ref: str, org_id: str, kind: str, amount: int, now: datetime
    ) -> None:
        await self._store.add_transaction(
            connection, cause=cause, user_id="", org_id=org_id, amount=amount, kind=_TYPES[kind], ref=ref, now=now
        )

    async def run(self) -> None:
        """Takes every refund its next step when that is due, for ever."""
        await repeat(self.advance, "refunds wait", batch=_AT_ONCE, wakes=self._database)

    async def advance(self) -> int:
        """Takes the refunds that are due a step; how many there were."""
        now = self._clock.now()
        async with self._database.transaction() as connection:
            rows = await self._store.claim_refunds(connection, now, now + self._claim, _AT_ONCE)
        for row in rows:
            await self._refund(row)
        return len(rows)

    async def _refund(self, row: Row) -> None:
        try:
            async with self._database.connection() as connection:
                payment = await self._store.get_payment(connection, row["payment_id"])
            assert payment is not None
            if payment["provider"] != self._provider.name:
                raise ProviderUnavailable(f"it was paid with {payment['provider']}")
            cents = amounts.to_cents(row["amount"])
            outcome = await self._provider.refund(payment["provider_ref"], cents, row["id"])
        except ProviderRefused as e:
            outcome = Outcome(Status.FAILED, row["provider_ref"] or "", e.code)
        except (ProviderUnavailable, MercatError) as e:
            wait = timedelta(seconds=min(2 ** min(row["attempts"], 12), _LONGEST_WAIT))
            log.warning("%s is tried again in %s: %s", row["id"], wait, e)
            async with self._database.transaction() as connection:
                await self._store.put_off_refund(connection, row["id"], None, self._clock.now() + wait)
            return
        failpoints.passing("payments.refunded")
        await self.record_refund(row["id"], outcome)

    async def record_refund(self, reversal_id: str, outcome: Outcome) -> None:
        """Writes down how a refund stands; at any time and in any order."""
        if outcome.status == Status.PENDING:
            async with self._database.transaction() as connection:
                at = self._clock.now() + _ASK_AGAIN
                await self._store.put_off_refund(connection, reversal_id, outcome.ref, at)
            return
        status = PAID if outcome.status == Status.SUCCEEDED else RETURNED
        await self._record(reversal_id, status, outcome.ref, outcome.code)

    async def told_of_refund(self, payment_ref: str, refund_id: str, cents: int, outcome: Outcome) -> None:
        """What the provider says of a refund, also of one that was made on the provider's own pages."""
        async with self._database.transaction() as connection:
            known = await self._store.reversal_of(connection, refund_id, outcome.ref)
            if known is None:
                known = await self._told(connection, REFUND, payment_ref, outcome.ref, cents, "made at the provider")
        if known is not None:
            await self.record_refund(known["id"], outcome)

    async def told_of_dispute(self, payment_ref: str, ref: str, cents: int, reason: str, status: str) -> None:
        """What the provider says of a dispute: open, won or lost. Money was taken from the platform when it opened."""
        async with self._database.transaction() as connection:
            known = await self._store.reversal_of(connection, "", ref)
            if known is None:
                known = await self._told(connection, DISPUTE, payment_ref, ref, cents, reason)
        if known is not None and status != PENDING:
            await self._record(known["id"], status, ref, "")

    async def _told(
        self, connection: Connection, kind: str, payment_ref: str, ref: str, cents: int, reason: str
    ) -> Row | None:
        """None for a payment that is not Mercat's. Of a payment that is not recorded yet, the event comes back."""
        payment = await self._store.payment_of_ref(connection, payment_ref)
        if payment is None:
            return None
        await self._books.lock_or_open_wallets(connection, [payment["org_id"]])
        payment = await self._store.lock_payment(connection, payment["id"])
        if payment["status"] != Status.SUCCEEDED:
            raise ProviderUnavailable(f"{payment['id']} is not recorded as paid yet")
        amount = amounts.from_cents(cents)
        subject = f"{payment['provider']}/{ref}"
        await self._withhold(connection, kind, payment, amount, reason, subject, ref)
        return await self._store.find_reversal(connection, subject)

    async def _record(self, reversal_id: str, status: str, ref: str, code: str) -> None:
        now = self._clock.now()
        async with self._database.transaction() as connection:
            row = await self._store.reversal_of(connection, reversal_id, "")
            assert row is not None
            payment = await self._store.get_payment(connection, row["payment_id"])
            assert payment is not None
            await self._books.lock_or_open_wallets(connection, [row["org_id"]])
            row = await self._store.lock_reversal(connection, reversal_id)
            if _RANKS[status] <= _RANKS[row["status"]]:
                return
            if row["status"] == PAID and ref != row["provider_ref"]:
                return  # a refusal of what another process has done already
            kind, org_id, amount, taken = row["kind"], row["org_id"], row["amount"], row["taken"]
            provider, was_paid = payment["provider"], row["status"] == PAID
            if status == PAID:
                posting = postings.paid_back(row["id"], kind, amount, provider)
            else:
                posting = postings.returned(row["id"], kind, org_id, amount, taken, provider, was_paid=was_paid)
                if taken:
                    await self._list(connection, posting.cause, payment["provider_ref"], org_id, kind, taken, now)
            await self._books.post(connection, [posting], now)
            await self._store.settle_reversal(connection, row["id"], status, ref or None, code, now)
            event = event_pb2.PaymentReversed(
                reversal_id=row["id"], payment_id=row["payment_id"], org_id=org_id, kind=kind, amount_nanos=amount,
                paid=status == PAID, failure_code=code,
            )  # fmt: skip
            await outbox.add(connection, event)
