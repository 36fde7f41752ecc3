"""The tables of payments, cards and automatic top-ups."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from services.billing.ledger import CURRENCY
from services.billing.payments.provider import Card, Event
from services.common import ids
from services.common.db import Connection, load_queries

Row = Mapping[str, Any]


class PaymentStore:
    """Reads and writes within the transaction of the connection given."""

    def __init__(self) -> None:
        self._q = load_queries("services.billing.payments")

    # Payments

    async def add_payment(
        self, c: Connection, *, org_id: str, user_id: str, amount: int, purpose: str, subject: str, provider: str,
        method_ref: str | None, now: datetime,
    ) -> str | None:  # fmt: skip
        """The new payment's id; None when there is one of this subject, or an automatic top-up is under way."""
        made: str | None = await self._q.add_payment(
            c, id=ids.new("pay"), org_id=org_id, user_id=user_id, amount=amount, currency=CURRENCY, purpose=purpose,
            subject=subject, provider=provider, method_ref=method_ref, now=now,
        )  # fmt: skip
        return made

    async def find_payment(self, c: Connection, purpose: str, subject: str) -> Row | None:
        row: Row | None = await self._q.find_payment(c, purpose=purpose, subject=subject)
        return row

    async def get_payment(self, c: Connection, payment_id: str) -> Row | None:
        row: Row | None = await self._q.get_payment(c, id=payment_id)
        return row

    async def lock_payment(self, c: Connection, payment_id: str) -> Row:
        """After its organisation's wallet."""
        row: Row = await self._q.lock_payment(c, id=payment_id)
        return row

    async def list_payments(self, c: Connection, org_id: str, before: str | None, most: int) -> list[Row]:
        return [r async for r in self._q.list_payments(c, org_id=org_id, before=before, most=most)]

    async def claim_payments(self, c: Connection, now: datetime, until: datetime, most: int) -> list[Row]:
        """Payments whose next step is due, for whoever claims them alone until then."""
        return [r async for r in self._q.claim_payments(c, now=now, until=until, most=most)]

    async def open_payment(self, c: Connection, payment_id: str, ref: str, method: str) -> Row:
        row: Row = await self._q.open_payment(c, id=payment_id, provider_ref=ref, method_ref=method)
        return row

    async def put_off_payment(
        self, c: Connection, payment_id: str, status: str, at: datetime, client_secret: str | None = None
    ) -> None:
        await self._q.put_off_payment(c, id=payment_id, status=status, client_secret=client_secret, at=at)

    async def settle_payment(self, c: Connection, payment_id: str, status: str, code: str, now: datetime) -> None:
        await self._q.settle_payment(c, id=payment_id, status=status, failure_code=code or None, now=now)

    async def add_transaction(
        self, c: Connection, *, cause: str, user_id: str, org_id: str, amount: int, kind: int, ref: str | None,
        now: datetime,
    ) -> None:  # fmt: skip
        """What the organisation sees in its list; its amount is what the posting of the cause does to its accounts."""
        await self._q.add_payment_transaction(
            c, id=ids.new("txn"), user_id=user_id, org_id=org_id, amount=amount, currency=CURRENCY, type=kind,
            provider_ref=ref, cause=cause, now=now,
        )  # fmt: skip

    async def payment_of_ref(self, c: Connection, ref: str) -> Row | None:
        """By the provider's name for it."""
        row: Row | None = await self._q.payment_of_ref(c, provider_ref=ref)
        return row

    # Refunds and disputes

    async def add_reversal(
        self, c: Connection, *, kind: str, payment_id: str, org_id: str, amount: int, taken: int, reason: str,
        subject: str, ref: str | None, due: datetime | None, now: datetime,
    ) -> str | None:  # fmt: skip
        """The new reversal's id; None when there is one of this subject."""
        made: str | None = await self._q.add_reversal(
            c, id=ids.new("rfd" if kind == "refund" else "dsp"), kind=kind, payment_id=payment_id, org_id=org_id,
            amount=amount, taken=taken, reason=reason, subject=subject, provider_ref=ref, next_attempt_at=due, now=now,
        )  # fmt: skip
        return made

    async def find_reversal(self, c: Connection, subject: str) -> Row | None:
        row: Row | None = await self._q.find_reversal(c, subject=subject)
        return row

    async def reversal_of(self, c: Connection, reversal_id: str, ref: str) -> Row | None:
        row: Row | None = await self._q.reversal_of(c, id=reversal_id, provider_ref=ref)
        return row

    async def lock_reversal(self, c: Connection, reversal_id: str) -> Row:
        """After its organisation's wallet."""
        row: Row = await self._q.lock_reversal(c, id=reversal_id)
        return row

    async def reversed(self, c: Connection, payment_id: str) -> int:
        """How much of a payment goes back or went back, nanos."""
        return int(await self._q.reversed(c, payment_id=payment_id))

    async def claim_refunds(self, c: Connection, now: datetime, until: datetime, most: int) -> list[Row]:
        return [r async for r in self._q.claim_refunds(c, now=now, until=until, most=most)]

    async def put_off_refund(self, c: Connection, reversal_id: str, ref: str | None, at: datetime) -> None:
        await self._q.put_off_refund(c, id=reversal_id, provider_ref=ref, at=at)

    async def settle_reversal(
        self, c: Connection, reversal_id: str, status: str, ref: str | None, code: str, now: datetime
    ) -> None:
        await self._q.settle_reversal(
            c, id=reversal_id, status=status, provider_ref=ref, failure_code=code or None, now=now
        )

    # What the provider tells

    async def add_event(self, c: Connection, event: Event, now: datetime) -> bool:
        """Whether it is new."""
        return bool(
            await self._q.add_event(
                c, id=event.id, type=event.type, object_ref=event.object_ref, created_at=event.created_at, now=now
            )
        )

    async def claim_events(self, c: Connection, now: datetime, until: datetime, most: int) -> list[Row]:
        return [r async for r in self._q.claim_events(c, now=now, until=until, most=most)]

    async def handled_event(self, c: Connection, event_id: str, now: datetime) -> None:
        await self._q.handled_event(c, id=event_id, now=now)

    async def put_off_event(self, c: Connection, event_id: str, at: datetime) -> None:
        await self._q.put_off_event(c, id=event_id, at=at)

    async def forget_events(self, c: Connection, before: datetime) -> None:
        await self._q.forget_events(c, before=before)

    async def get_cursor(self, c: Connection, provider: str) -> datetime | None:
        through: datetime | None = await self._q.get_cursor(c, provider=provider)
        return through

    async def set_cursor(self, c: Connection, provider: str, through: datetime) -> None:
        await self._q.set_cursor(c, provider=provider, through=through)

    async def customer_org(self, c: Connection, provider: str, ref: str) -> str | None:
        org_id: str | None = await self._q.customer_org(c, provider=provider, ref=ref)
        return org_id

    async def method_of_ref(self, c: Connection, provider: str, ref: str) -> Row | None:
        row: Row | None = await self._q.method_of_ref(c, provider=provider, ref=ref)
        return row

    # Automatic top-ups

    async def get_auto_top_up(self, c: Connection, org_id: str) -> Row | None:
        row: Row | None = await self._q.get_auto_top_up(c, org_id=org_id)
        return row

    async def set_auto_top_up(
        self, c: Connection, org_id: str, *, enabled: bool, threshold: int, amount: int, now: datetime
    ) -> Row:
        row: Row = await self._q.set_auto_top_up(
            c, org_id=org_id, enabled=enabled, threshold=threshold, amount=amount, now=now
        )
        return row

    async def due_auto_top_ups(self, c: Connection, now: datetime, most: int) -> list[Row]:
        return [r async for r in self._q.due_auto_top_ups(c, now=now, most=most)]

    async def auto_top_up_succeeded(self, c: Connection, org_id: str) -> None:
        await self._q.auto_top_up_succeeded(c, org_id=org_id)

    async def auto_top_up_failed(self, c: Connection, org_id: str, next_attempt_at: datetime, most: int) -> bool:
        """Whether they are turned off by this, the last of `most` failures in a row."""
        return bool(await self._q.auto_top_up_failed(c, org_id=org_id, next_attempt_at=next_attempt_at, most=most))

    # Customers and their cards

    async def get_customer(self, c: Connection, org_id: str, provider: str) -> str | None:
        ref: str | None = await self._q.get_customer(c, org_id=org_id, provider=provider)
        return ref

    async def add_customer(self, c: Connection, org_id: str, provider: str, ref: str, now: datetime) -> str:
        """The organisation's customer; of two that were made at once, the first."""
        return str(await self._q.add_customer(c, org_id=org_id, provider=provider, ref=ref, now=now))

    async def lock_customer(self, c: Connection, org_id: str, provider: str) -> None:
        """Before the organisation's cards are changed."""
        await self._q.lock_customer(c, org_id=org_id, provider=provider)

    async def add_method(self, c: Connection, org_id: str, provider: str, card: Card, now: datetime) -> Row:
        row: Row = await self._q.add_method(
            c, id=ids.new("pm"), org_id=org_id, provider=provider, ref=card.ref, brand=card.brand, last4=card.last4,
            exp_month=card.exp_month, exp_year=card.exp_year, now=now,
        )  # fmt: skip
        return row

    async def get_method(self, c: Connection, org_id: str, provider: str, method_id: str) -> Row | None:
        row: Row | None = await self._q.get_method(c, id=method_id, org_id=org_id, provider=provider)
        return row

    async def default_method(self, c: Connection, org_id: str, provider: str) -> Row | None:
        row: Row | None = await self._q.default_method(c, org_id=org_id, provider=provider)
        return row

    async def list_methods(self, c: Connection, org_id: str, provider: str, before: str | None, most: int) -> list[Row]:
        rows = self._q.list_methods(c, org_id=org_id, provider=provider, before=before, most=most)
        return [r async for r in rows]

    async def set_default(self, c: Connection, org_id: str, provider: str, method_id: str) -> Row:
        await self._q.drop_default(c, org_id=org_id, provider=provider)
        row: Row = await self._q.set_default(c, id=method_id)
        return row

    async def detach_method(self, c: Connection, method: Row, now: datetime) -> None:
        """Charges it no more; the newest of the others takes its place where it was the default."""
        await self._q.detach_method(c, id=method["id"], now=now)
        if method["is_default"]:
            org_id, provider = method["org_id"], method["provider"]
            newest = await self._q.newest_method(c, org_id=org_id, provider=provider)
            if newest is not None:
                await self._q.set_default(c, id=newest)

    async def unforgotten_methods(self, c: Connection, provider: str, most: int) -> list[Row]:
        return [r async for r in self._q.unforgotten_methods(c, provider=provider, most=most)]

    async def forget_method(self, c: Connection, method_id: str, now: datetime) -> None:
        await self._q.forget_method(c, id=method_id, now=now)

    # The proof of the books

    async def payments_between(self, c: Connection, after: str, until: str) -> list[Row]:
        """Those of ids from one on until just before another."""
        return [r async for r in self._q.payments_between(c, after=after, until=until)]

    async def reversals_between(self, c: Connection, after: str, until: str) -> list[Row]:
        """Those with such digits in their ids."""
        return [r async for r in self._q.reversals_between(c, after=after, until=until)]

    async def owned_between(self, c: Connection, provider: str, after: str, until: str) -> list[Row]:
        """kind, id, ref, amount and status of what the provider moves, with such digits in their ids."""
        return [r async for r in self._q.owned_between(c, provider=provider, after=after, until=until)]

    async def owned_of(self, c: Connection, provider: str, refs: Sequence[str], own_ids: Sequence[str]) -> list[Row]:
        """Those of the provider's names, and those under way of ids."""
        return [r async for r in self._q.owned_of(c, provider=provider, refs=refs, ids=own_ids)]

    async def owned_by_id(self, c: Connection, own_id: str) -> list[Row]:
        return [r async for r in self._q.owned_by_id(c, id=own_id)]

    async def untold(self, c: Connection, refs: Sequence[str]) -> set[str]:
        """The provider's names of which it has told something that is not handled yet."""
        return {r["object_ref"] async for r in self._q.untold(c, refs=refs)}
