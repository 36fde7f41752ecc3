"""What Stripe tells: stored by event id in one insert, answered at once, handled by a task.

An event only says what to look at. Its object's state is asked for and written down by rank, so that a hundred of the
same, in any order, have one effect. After an outage the events that were missed are listed."""

import asyncio
import json
import logging
from datetime import timedelta

from mercat.billing.v1 import payments_pb2, payments_pb2_grpc

from services.billing.payments.provider import Event, ProviderRefused, ProviderUnavailable
from services.billing.payments.reversals import PAID, PENDING, RETURNED, Reversals
from services.billing.payments.saga import Payments
from services.billing.payments.signature import NotGenuine, verify
from services.billing.payments.store import PaymentStore, Row
from services.billing.payments.stripe_provider import StripeProvider, event_of
from services.common.clock import Clock
from services.common.db import Database, added_to_outbox
from services.common.errors import FailedPrecondition, InvalidArgument, MercatError
from services.common.metrics import Counter
from services.common.repeating import repeat
from services.common.rpc.context import Context

log = logging.getLogger(__name__)
EVENTS = Counter("mercat_provider_events", "Events of the payment provider, by what became of them", ["outcome"])
_AT_ONCE = 50
_LONGEST_WAIT = 3600  # seconds between attempts, at most
_CLAIM = timedelta(seconds=90)
_KEPT = timedelta(days=30)  # by Stripe
OVERLAP = timedelta(minutes=10)  # events are not listed in the moment they happen
_LARGEST = 1024 * 1024  # bytes
_DISPUTES = {"needs_response": PENDING, "under_review": PENDING, "won": RETURNED, "lost": PAID, "prevented": RETURNED}


class WebhookServicer(payments_pb2_grpc.WebhookServiceServicer):
    """Serves `mercat.billing.v1.WebhookService`."""

    def __init__(self, database: Database, store: PaymentStore, clock: Clock, secrets: list[str]) -> None:
        self._database = database
        self._store = store
        self._clock = clock
        self._secrets = secrets

    async def ReceiveStripeEvent(
        self, request: payments_pb2.ReceiveStripeEventRequest, context: Context
    ) -> payments_pb2.ReceiveStripeEventResponse:
        if not self._secrets:
            raise FailedPrecondition("this Mercat has no Stripe webhook secret", reason="STRIPE_NOT_CONFIGURED")
        body, now = request.body.data, self._clock.now()
        header = str(dict(context.invocation_metadata() or ()).get("stripe-signature", ""))
        if len(body) > _LARGEST:
            raise InvalidArgument("no event is this long", reason="BODY_TOO_LARGE")
        try:
            verify(body, header, self._secrets, self._clock.machine().timestamp())
            event = event_of(json.loads(body))
        except NotGenuine as e:
            raise InvalidArgument(f"not from Stripe: {e}", reason="SIGNATURE_INVALID") from e
        except (ValueError, KeyError, TypeError, AttributeError) as e:
            raise InvalidArgument("the body is no event of Stripe's", reason="MALFORMED_REQUEST") from e
        async with self._database.transaction() as connection:
            new = await self._store.add_event(connection, event, now)
            if new:
                added_to_outbox(connection)  # whose relays wake, and `Inbox.run` beside them
        EVENTS.labels("received" if new else "repeated").inc()
        return payments_pb2.ReceiveStripeEventResponse()


class Inbox:
    """Handles what is stored, and stores what was missed."""

    def __init__(
        self, database: Database, store: PaymentStore, provider: StripeProvider, payments: Payments,
        reversals: Reversals, clock: Clock, replay_seconds: float,
    ) -> None:  # fmt: skip
        self._database = database
        self._store = store
        self._provider = provider
        self._payments = payments
        self._reversals = reversals
        self._clock = clock
        self._replay_seconds = replay_seconds

    async def run(self) -> None:
        """Handles every event once, for ever; one that cannot be is tried again, and holds up no other."""
        await repeat(self.handle_some, "Stripe's events wait", batch=_AT_ONCE, wakes=self._database)

    async def handle_some(self) -> int:
        now = self._clock.now()
        async with self._database.transaction() as connection:
            rows = await self._store.claim_events(connection, now, now + _CLAIM, _AT_ONCE)
        for row in rows:
            await self._handle(row)
        return len(rows)

    async def _handle(self, row: Row) -> None:
        try:
            await self._apply(row["type"], row["object_ref"])
        except (ProviderRefused, ProviderUnavailable, MercatError) as e:
            await self._put_off(row, e)
            return
        except Exception as e:
            log.exception("%s could not be handled", row["id"])
            await self._put_off(row, e)
            return
        async with self._database.transaction() as connection:
            await self._store.handled_event(connection, row["id"], self._clock.now())
        EVENTS.labels("handled").inc()

    async def _put_off(self, row: Row, why: Exception) -> None:
        EVENTS.labels("put_off").inc()
        wait = timedelta(seconds=min(2 ** min(row["attempts"], 12), _LONGEST_WAIT))
        log.warning("%s (%s) is handled again in %s: %s", row["id"], row["type"], wait, why)
        async with self._database.transaction() as connection:
            await self._store.put_off_event(connection, row["id"], self._clock.now() + wait)

    async def _apply(self, kind: str, ref: str) -> None:
        """Effects are idempotent, so a death before the event is marked as handled repeats them without any."""
        if kind.startswith("payment_intent."):
            async with self._database.connection() as connection:
                payment = await self._store.payment_of_ref(connection, ref)
            if payment is not None and payment["next_attempt_at"] is not None:
                await self._payments.record(payment["id"], await self._provider.get_payment(ref))
        elif kind.startswith(("refund.", "charge.refund.")):
            refund = await self._provider.get_refund(ref)
            await self._reversals.told_of_refund(refund.payment, refund.refund_id, refund.cents, refund.outcome)
        elif kind.startswith("charge.dispute."):
            dispute = await self._provider.get_dispute(ref)
            if (status := _DISPUTES.get(dispute.status)) is not None:  # an inquiry takes no money
                await self._reversals.told_of_dispute(
                    dispute.payment, dispute.ref, dispute.cents, dispute.reason, status
                )
        elif kind == "setup_intent.succeeded":
            await self._set_up(ref)
        elif kind == "payment_method.detached":
            await self._detached(ref)

    async def _set_up(self, ref: str) -> None:
        """The card that its owner gave to Stripe is kept, whether or not their browser came back to say so."""
        found = await self._provider.get_setup(ref)
        if found is None:
            return
        customer, card = found
        async with self._database.transaction() as connection:
            org_id = await self._store.customer_org(connection, self._provider.name, customer)
            if org_id is not None:
                await self._store.lock_customer(connection, org_id, self._provider.name)
                await self._store.add_method(connection, org_id, self._provider.name, card, self._clock.now())

    async def _detached(self, ref: str) -> None:
        async with self._database.transaction() as connection:
            method = await self._store.method_of_ref(connection, self._provider.name, ref)
            if method is not None:
                await self._store.lock_customer(connection, method["org_id"], self._provider.name)
                await self._store.detach_method(connection, method, self._clock.now())

    async def replay(self) -> None:
        """Stores the events that no webhook brought: after the start, and then every so often, for ever."""
        while True:
            try:
                new = await self.fetch_missed()
                if new:
                    EVENTS.labels("missed").inc(new)
                    log.warning("%d events of Stripe's came by no webhook", new)
            except (ProviderRefused, ProviderUnavailable, MercatError) as e:
                log.warning("Stripe's events were not listed: %s", e)
            except Exception:
                log.exception("Stripe's events were not listed")
            await asyncio.sleep(self._replay_seconds)

    async def fetch_missed(self) -> int:
        """Stores what happened since all was last listed; how many events were new. The time up to which all was listed
        is kept apart from the events, since webhooks go on past what they have missed."""
        now = self._clock.now()
        async with self._database.connection() as connection:
            through = await self._store.get_cursor(connection, self._provider.name)
        since = max(through - OVERLAP, now - _KEPT) if through is not None else now - _KEPT
        events: list[Event] = [event async for event in self._provider.events(since)]
        new = 0
        async with self._database.transaction() as connection:
            for event in events:
                new += await self._store.add_event(connection, event, now)
            await self._store.set_cursor(connection, self._provider.name, now)
            await self._store.forget_events(connection, now - 2 * _KEPT)  # which nobody will tell of again
            if new:
                added_to_outbox(connection)
        return new
